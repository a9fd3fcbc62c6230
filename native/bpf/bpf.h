/*
 * BPF objects for Node.js, by libbpf: programs, maps and the memory of maps. What programs and maps are for is the
 * business of the TypeScript above; see agent/kernel/bpf-object.ts for each function's contract.
 *
 * Functions give 0 or a count, or a negative errno. Nothing here throws.
 */
#ifndef WEIR_BPF_H
#define WEIR_BPF_H

#include "../arguments.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

/* Names of maps and programs end below this. */
#define NAME_BYTES 64

struct watch;

/*
 * One for each environment (the main thread and each worker have their own). It lives until the environment is
 * torn down and the last object is gone, whichever comes later.
 */
struct environment {
	napi_env env;
	struct object *objects;
	napi_async_cleanup_hook_handle cleanup;
	size_t references;
	size_t closing_polls;
	bool ending;
};

/* A program attached to something, by a number of our own. Closing its descriptor detaches it. */
struct attachment {
	struct attachment *next;
	struct bpf_link *link;
	int32_t number;
};

/*
 * References are held by: the JavaScript handle until it is collected, each job on another thread, and the watch
 * until libuv lets go of it. What libbpf holds is given back when the object is closed and no job uses it.
 */
struct object {
	struct environment *environment;
	struct object *next;
	struct object **link;
	struct bpf_object *bpf;
	struct attachment *attachments;
	struct watch *watch;
	/* Messages of libbpf and of the verifier since the last operation that keeps them. */
	char *log;
	size_t references;
	size_t jobs;
	int32_t last_number;
	bool loaded;
	bool closed;
};

void object_hold(struct object *object);
void object_release(struct object *object);
/* Detaches everything and closes all descriptors, as soon as no job uses them. May be called again. */
void object_close(struct object *object);
/* A job on another thread has ended. */
void object_job_ended(struct object *object);
/* Undefined or null for a closed object. */
struct object *read_object(napi_env env, napi_value value);
/* A map or program by its name; undefined or null when there is none. */
struct bpf_map *read_map(napi_env env, struct object *object, napi_value value);
struct bpf_program *read_program(napi_env env, struct object *object, napi_value value);

/* From here to log_end() what libbpf says on this thread becomes the log of the object. */
void log_begin(struct object *object);
void log_end(void);
/* Makes libbpf speak to us. */
void log_install(void);

/* Ends the watch; it is freed when libuv has let go of its poll handle. */
void watch_stop(struct watch *watch);

void environment_release(struct environment *environment);
/* Lets the environment end if it only waited for polls to be closed. */
void environment_poll_closed(struct environment *environment);

napi_value object_create_call(napi_env env, napi_callback_info info);
napi_value object_open_call(napi_env env, napi_callback_info info);
napi_value object_constants_call(napi_env env, napi_callback_info info);
napi_value object_autoload_call(napi_env env, napi_callback_info info);
napi_value object_log_call(napi_env env, napi_callback_info info);
napi_value object_program_call(napi_env env, napi_callback_info info);
napi_value job_load_call(napi_env env, napi_callback_info info);
napi_value job_attach_call(napi_env env, napi_callback_info info);
napi_value job_detach_call(napi_env env, napi_callback_info info);
napi_value job_close_call(napi_env env, napi_callback_info info);
napi_value map_lookup_call(napi_env env, napi_callback_info info);
napi_value map_update_call(napi_env env, napi_callback_info info);
napi_value map_delete_call(napi_env env, napi_callback_info info);
napi_value map_entries_call(napi_env env, napi_callback_info info);
napi_value map_memory_call(napi_env env, napi_callback_info info);
napi_value possible_cpus_call(napi_env env, napi_callback_info info);
napi_value page_size_call(napi_env env, napi_callback_info info);
napi_value clock_offset_call(napi_env env, napi_callback_info info);
napi_value watch_start_call(napi_env env, napi_callback_info info);
napi_value watch_arm_call(napi_env env, napi_callback_info info);

#endif
