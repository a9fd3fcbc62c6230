/* The module: its functions, its state for each environment, and reading arguments. */
#include "bpf.h"

#include <stdlib.h>

struct object *read_object(napi_env env, napi_value value)
{
	void *object;

	if (napi_get_value_external(env, value, &object) != napi_ok)
		return NULL;
	return ((struct object *)object)->closed ? NULL : object;
}

static bool read_name(napi_env env, napi_value value, char name[NAME_BYTES])
{
	return napi_get_value_string_latin1(env, value, name, NAME_BYTES, NULL) == napi_ok;
}

struct bpf_map *read_map(napi_env env, struct object *object, napi_value value)
{
	char name[NAME_BYTES];

	if (object->bpf == NULL || !read_name(env, value, name))
		return NULL;
	return bpf_object__find_map_by_name(object->bpf, name);
}

struct bpf_program *read_program(napi_env env, struct object *object, napi_value value)
{
	char name[NAME_BYTES];

	if (object->bpf == NULL || !read_name(env, value, name))
		return NULL;
	return bpf_object__find_program_by_name(object->bpf, name);
}

void environment_release(struct environment *environment)
{
	if (--environment->references == 0)
		free(environment);
}

void environment_poll_closed(struct environment *environment)
{
	if (--environment->closing_polls == 0 && environment->ending)
		napi_remove_async_cleanup_hook(environment->cleanup);
}

/*
 * The environment ends (the worker exits, the process leaves its event loop) and JavaScript runs no more. Node.js
 * turns the event loop until the hook is removed, so libuv can let go of the polls.
 */
static void environment_end(napi_async_cleanup_hook_handle handle, void *data)
{
	struct environment *environment = data;

	environment->ending = true;
	for (struct object *object = environment->objects, *next; object != NULL; object = next) {
		next = object->next;
		object_close(object);
	}
	if (environment->closing_polls == 0)
		napi_remove_async_cleanup_hook(handle);
	environment_release(environment);
}

NAPI_MODULE_INIT()
{
	static const struct {
		const char *name;
		napi_callback call;
	} functions[] = {
		{ "create", object_create_call },
		{ "open", object_open_call },
		{ "setConstants", object_constants_call },
		{ "setAutoload", object_autoload_call },
		{ "log", object_log_call },
		{ "programDescriptor", object_program_call },
		{ "load", job_load_call },
		{ "attach", job_attach_call },
		{ "detach", job_detach_call },
		{ "close", job_close_call },
		{ "lookup", map_lookup_call },
		{ "update", map_update_call },
		{ "remove", map_delete_call },
		{ "mapEntries", map_entries_call },
		{ "mapMemory", map_memory_call },
		{ "possibleCpus", possible_cpus_call },
		{ "pageSize", page_size_call },
		{ "clockOffset", clock_offset_call },
		{ "watch", watch_start_call },
		{ "arm", watch_arm_call },
	};
	struct environment *environment = calloc(1, sizeof(*environment));
	napi_value function;

	if (environment == NULL)
		return NULL;
	environment->env = env;
	environment->references = 1;
	if (napi_add_async_cleanup_hook(env, environment_end, environment, &environment->cleanup) != napi_ok) {
		free(environment);
		return NULL;
	}
	log_install();
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, environment,
					 &function) != napi_ok ||
		    napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
			return NULL;
	}
	return exports;
}
