/* Maps: single entries by copy, and the memory of those maps that can be mapped. */
#define _GNU_SOURCE
#include "bpf.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct map_access {
	struct bpf_map *map;
	void *key;
	void *value;
	size_t key_bytes;
	size_t value_bytes;
};

/* Reads (handle, map, key) or (handle, map, key, value). Gives 0 or -errno. */
static int read_access(napi_env env, napi_callback_info info, size_t count, struct map_access *access)
{
	napi_value arguments[4];
	struct object *object;

	if (!read_arguments(env, info, count, arguments) ||
	    !read_bytes(env, arguments[2], &access->key, &access->key_bytes))
		return -EINVAL;
	if (count == 4 && !read_bytes(env, arguments[3], &access->value, &access->value_bytes))
		return -EINVAL;
	object = read_object(env, arguments[0]);
	if (object == NULL || !object->loaded)
		return -EBADF;
	access->map = read_map(env, object, arguments[1]);
	return access->map == NULL ? -ENOENT : 0;
}

/* (handle, map, key, value to be filled) → 0 or -errno. Of a per-CPU map: one value for each possible CPU. */
napi_value map_lookup_call(napi_env env, napi_callback_info info)
{
	struct map_access access;
	int error = read_access(env, info, 4, &access);

	if (error == 0)
		error = bpf_map__lookup_elem(access.map, access.key, access.key_bytes, access.value,
					     access.value_bytes, 0);
	return give_int(env, error);
}

/* (handle, map, key, value) → 0 or -errno */
napi_value map_update_call(napi_env env, napi_callback_info info)
{
	struct map_access access;
	int error = read_access(env, info, 4, &access);

	if (error == 0)
		error = bpf_map__update_elem(access.map, access.key, access.key_bytes, access.value,
					     access.value_bytes, BPF_ANY);
	return give_int(env, error);
}

/* (handle, map, key) → 0 or -errno */
napi_value map_delete_call(napi_env env, napi_callback_info info)
{
	struct map_access access;
	int error = read_access(env, info, 3, &access);

	if (error == 0)
		error = bpf_map__delete_elem(access.map, access.key, access.key_bytes, 0);
	return give_int(env, error);
}

/* (handle, map) → most entries; of a ring buffer, its bytes. Or -errno */
napi_value map_entries_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[2];
	struct object *object;
	struct bpf_map *map;

	if (!read_arguments(env, info, 2, arguments))
		return give_int(env, -EINVAL);
	object = read_object(env, arguments[0]);
	if (object == NULL)
		return give_int(env, -EBADF);
	map = read_map(env, object, arguments[1]);
	return give_int(env, map == NULL ? -ENOENT : (int64_t)bpf_map__max_entries(map));
}

struct mapping {
	void *memory;
	size_t bytes;
};

static void mapping_collected(napi_env env, void *data, void *hint)
{
	struct mapping *mapping = hint;

	(void)env;
	(void)data;
	munmap(mapping->memory, mapping->bytes);
	free(mapping);
}

/*
 * (handle, map, offset, bytes, 0 or 1) → ArrayBuffer, or -errno. The memory outlives the object. Writing to memory
 * that was not mapped to be written ends the process.
 */
napi_value map_memory_call(napi_env env, napi_callback_info info)
{
	int32_t offset, bytes, writable;
	napi_value arguments[5], memory;
	struct mapping *mapping;
	struct object *object;
	struct bpf_map *map;
	int error;

	if (!read_arguments(env, info, 5, arguments) || !read_int(env, arguments[2], &offset) ||
	    !read_int(env, arguments[3], &bytes) || !read_int(env, arguments[4], &writable) || offset < 0 ||
	    bytes <= 0)
		return give_int(env, -EINVAL);
	object = read_object(env, arguments[0]);
	if (object == NULL || !object->loaded)
		return give_int(env, -EBADF);
	map = read_map(env, object, arguments[1]);
	if (map == NULL)
		return give_int(env, -ENOENT);
	mapping = malloc(sizeof(*mapping));
	if (mapping == NULL)
		return give_int(env, -ENOMEM);
	mapping->bytes = bytes;
	mapping->memory = mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
			       bpf_map__fd(map), offset);
	if (mapping->memory == MAP_FAILED) {
		error = errno;
		free(mapping);
		return give_int(env, -error);
	}
	if (napi_create_external_arraybuffer(env, mapping->memory, bytes, mapping_collected, mapping, &memory) !=
	    napi_ok) {
		mapping_collected(env, NULL, mapping);
		return give_int(env, -ENOMEM);
	}
	return memory;
}

/* () → processors the kernel may ever have, or -errno */
napi_value possible_cpus_call(napi_env env, napi_callback_info info)
{
	(void)info;
	return give_int(env, libbpf_num_possible_cpus());
}

/* () → bytes of a page of memory: a ring buffer's consumer position, its producer position and its data start at one */
napi_value page_size_call(napi_env env, napi_callback_info info)
{
	(void)info;
	return give_int(env, sysconf(_SC_PAGESIZE));
}

/* () → nanoseconds from CLOCK_MONOTONIC, which BPF programs read, to CLOCK_REALTIME, as bigint */
napi_value clock_offset_call(napi_env env, napi_callback_info info)
{
	struct timespec monotonic, real;
	napi_value offset = NULL;

	(void)info;
	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_REALTIME, &real);
	napi_create_bigint_int64(env,
				 (real.tv_sec - monotonic.tv_sec) * INT64_C(1000000000) + real.tv_nsec -
					 monotonic.tv_nsec,
				 &offset);
	return offset;
}
