/*
 * Lets go of the code and the constants that only the start needed.
 *
 * Over half of what a Node.js process has resident is the program file itself, and most of that was used once: parsing,
 * linking of modules, the first compilation. Those pages are clean copies of files. Dropping them from this process
 * costs nothing but a look-up in the page cache for those that are used again, and only those come back.
 */
#define _GNU_SOURCE
#include <link.h>
#include <node_api.h>
#include <sys/mman.h>
#include <unistd.h>

/* Segments that are never written to, not even by the linker, can always be read again from the file. */
static int release_file_of(struct dl_phdr_info *object, size_t size, void *data)
{
	int64_t *released = data;
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)size;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
		uintptr_t start, end;

		if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W))
			continue;
		/* Whole pages inside the segment: its edges may share one with data. */
		start = (object->dlpi_addr + segment->p_vaddr + page - 1) & ~(page - 1);
		end = (object->dlpi_addr + segment->p_vaddr + segment->p_filesz) & ~(page - 1);
		/* The kernel refuses its own vDSO; nothing is lost by that. */
		if (start < end && madvise((void *)start, end - start, MADV_DONTNEED) == 0)
			*released += end - start;
	}
	return 0;
}

/* releaseStart(): bytes that this process let go of, whether or not they were resident. */
static napi_value release_start(napi_env env, napi_callback_info info)
{
	int64_t released = 0;
	napi_value result = NULL;

	(void)info;
	dl_iterate_phdr(release_file_of, &released);
	napi_create_int64(env, released, &result);
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
