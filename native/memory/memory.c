/*
 * Lets go of the code and the constants that only the start needed.
 *
 * Over half of what a Node.js process has resident is the program file itself, and most of that was used once: parsing,
 * linking of modules, the first compilation. Those pages are clean copies of files. Dropping them from this process
 * costs nothing but a look-up in the page cache for those that are used again, and only those come back.
 */
#define _GNU_SOURCE
#include <inttypes.h>
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

/* releaseStart(): bytes of mappings that this process let go of, whether or not they were resident. */
static napi_value release_start(napi_env env, napi_callback_info info)
{
	FILE *maps = fopen("/proc/self/smaps", "re");
	napi_value result = NULL;

	(void)info;
	napi_create_int64(env, maps == NULL ? 0 : release_mappings(maps), &result);
	if (maps != NULL)
		fclose(maps);
	return result;
}

NAPI_MODULE_INIT()
{
	napi_value function;

	if (napi_create_function(env, "releaseStart", NAPI_AUTO_LENGTH, release_start, NULL, &function) != napi_ok ||
	    napi_set_named_property(env, exports, "releaseStart", function) != napi_ok)
		return NULL;
	return exports;
}
