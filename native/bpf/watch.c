/*
 * Waiting until a ring buffer has something: one call into JavaScript for each time it is armed, because a ring that
 * is being filled would wake the event loop without end.
 */
#define _GNU_SOURCE
#include "bpf.h"

#include <errno.h>
#include <stdlib.h>
#include <uv.h>

struct watch {
	uv_poll_t poll;
	struct object *object;
	napi_ref callback;
	napi_async_context context;
};

static void poll_closed(uv_handle_t *handle)
{
	struct watch *watch = handle->data;
	struct object *object = watch->object;
	struct environment *environment = object->environment;

	free(watch);
	environment_poll_closed(environment);
	object_release(object);
}

void watch_stop(struct watch *watch)
{
	struct environment *environment = watch->object->environment;

	napi_delete_reference(environment->env, watch->callback);
	napi_async_destroy(environment->env, watch->context);
	environment->closing_polls++;
	uv_close((uv_handle_t *)&watch->poll, poll_closed);
}

static void readable(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;
	struct object *object = watch->object;
	napi_env env = object->environment->env;
	napi_value callback, global, error;
	napi_handle_scope scope;

	(void)status;
	(void)events;
	uv_poll_stop(poll);
	object_hold(object);
	if (napi_open_handle_scope(env, &scope) == napi_ok) {
		if (napi_get_reference_value(env, watch->callback, &callback) == napi_ok &&
		    napi_get_global(env, &global) == napi_ok &&
		    napi_make_callback(env, watch->context, global, callback, 0, NULL, NULL) ==
			    napi_pending_exception &&
		    napi_get_and_clear_last_exception(env, &error) == napi_ok)
			napi_fatal_exception(env, error);
		napi_close_handle_scope(env, scope);
	}
	object_release(object);
}

/* What JavaScript sees of the watch: its function, and a name for async hooks. */
static bool watch_connect(napi_env env, struct watch *watch, napi_value callback)
{
	napi_value name;

	if (napi_create_string_latin1(env, "weir-bpf", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_create_reference(env, callback, 1, &watch->callback) != napi_ok)
		return false;
	if (napi_async_init(env, NULL, name, &watch->context) == napi_ok)
		return true;
	napi_delete_reference(env, watch->callback);
	return false;
}

/* (handle, map, function) → 0 or -errno. One watch for each object; it is not armed yet. */
napi_value watch_start_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[3];
	struct object *object;
	struct watch *watch;
	struct bpf_map *map;
	uv_loop_t *loop;
	int error;

	if (!read_arguments(env, info, 3, arguments) || napi_get_uv_event_loop(env, &loop) != napi_ok)
		return give_int(env, -EINVAL);
	object = read_object(env, arguments[0]);
	if (object == NULL || !object->loaded)
		return give_int(env, -EBADF);
	map = read_map(env, object, arguments[1]);
	if (map == NULL)
		return give_int(env, -ENOENT);
	if (object->watch != NULL)
		return give_int(env, -EALREADY);
	watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return give_int(env, -ENOMEM);
	watch->object = object;
	watch->poll.data = watch;
	if (!watch_connect(env, watch, arguments[2])) {
		free(watch);
		return give_int(env, -ENOMEM);
	}
	error = uv_poll_init(loop, &watch->poll, bpf_map__fd(map));
	if (error != 0) {
		napi_delete_reference(env, watch->callback);
		napi_async_destroy(env, watch->context);
		free(watch);
		return give_int(env, error);
	}
	object->watch = watch;
	object_hold(object);
	return give_int(env, 0);
}

/* (handle) → 0 or -errno: calls the function once when the ring buffer is not empty, or next becomes so */
napi_value watch_arm_call(napi_env env, napi_callback_info info)
{
	struct object *object;
	napi_value argument;

	if (!read_arguments(env, info, 1, &argument))
		return give_int(env, -EINVAL);
	object = read_object(env, argument);
	if (object == NULL || object->watch == NULL)
		return give_int(env, -EBADF);
	return give_int(env, uv_poll_start(&object->watch->poll, UV_READABLE, readable));
}
