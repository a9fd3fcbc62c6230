/*
 * Lets go of the code and the constants that only the start needed.
 *
 * Over half of what a Node.js process has resident is the program file itself, and most of that was used once: parsing,
 * linking of modules, the first compilation. Those pages are clean copies of files. Dropping them from this process
 * costs nothing but a look-up in the page cache for those that are used again, and only those come back.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <malloc.h>
#include <node_api.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/*
 * Goes through /proc/self/smaps: the head of a mapping ("start-end perms offset device inode path"), then its figures
 * ("Anonymous: 8 kB"). Only mappings of files that are not writable and have no page of their own can be read again:
 * relocated data, breakpoints and code on huge pages are anonymous.
 */
static int64_t release_mappings(FILE *maps)
{
	uintptr_t start = 0, end = 0;
	bool is_file = false;
	char *line = NULL;
	size_t size = 0;
	int64_t released = 0;

	while (getline(&line, &size, maps) > 0) {
		uintptr_t first, last;
		unsigned long anonymous;
		char permissions[5];
		int path = 0;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %*s %*s %*s %n", &first, &last, permissions, &path) == 3) {
			start = first;
			end = last;
			is_file = permissions[1] != 'w' && path > 0 && line[path] == '/';
		} else if (is_file && sscanf(line, "Anonymous: %lu", &anonymous) == 1) {
			if (anonymous == 0 && madvise((void *)start, end - start, MADV_DONTNEED) == 0)
				released += end - start;
		}
	}
	free(line);
	return released;
}

struct job {
	napi_async_work work;
	napi_deferred promise;
	int64_t released;
};

/* On a thread of libuv's pool: the kernel takes its time to tell of all mappings. */
static void execute(napi_env env, void *data)
{
	struct job *job = data;
	FILE *maps;

	(void)env;
	/* Pages between blocks that are in use; by itself malloc gives back only what lies behind the last of them. */
	malloc_trim(0);
	maps = fopen("/proc/self/smaps", "re");
	if (maps == NULL)
		return;
	job->released = release_mappings(maps);
	fclose(maps);
}

static void complete(napi_env env, napi_status status, void *data)
{
	struct job *job = data;
	napi_value result;

	(void)status;
	if (napi_create_int64(env, job->released, &result) == napi_ok)
		napi_resolve_deferred(env, job->promise, result);
	napi_delete_async_work(env, job->work);
	free(job);
}

/* releaseStart(): a promise of the bytes of mappings that this process let go of, whether or not they were resident. */
static napi_value release_start(napi_env env, napi_callback_info info)
{
	struct job *job = calloc(1, sizeof(*job));
	napi_value name, promise;

	(void)info;
	if (job == NULL || napi_create_string_utf8(env, "memory", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_create_async_work(env, NULL, name, execute, complete, job, &job->work) != napi_ok) {
		free(job);
		napi_throw_error(env, NULL, "no memory to let go of memory");
		return NULL;
	}
	if (napi_create_promise(env, &job->promise, &promise) != napi_ok ||
	    napi_queue_async_work(env, job->work) != napi_ok) {
		napi_delete_async_work(env, job->work);
		free(job);
		napi_throw_error(env, NULL, "no thread to let go of memory");
		return NULL;
	}
	return promise;
}

NAPI_MODULE_INIT()
{
	napi_value function;

	if (napi_create_function(env, "releaseStart", NAPI_AUTO_LENGTH, release_start, NULL, &function) != napi_ok ||
	    napi_set_named_property(env, exports, "releaseStart", function) != napi_ok)
		return NULL;
	return exports;
}
