/* The module: its functions, and its state for each environment. */
#include "socket.h"

#include <stdlib.h>

struct socket *read_socket(napi_env env, napi_value value)
{
	void *socket;

	if (napi_get_value_external(env, value, &socket) != napi_ok)
		return NULL;
	return ((struct socket *)socket)->closed ? NULL : socket;
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
	for (struct socket *socket = environment->sockets, *next; socket != NULL; socket = next) {
		next = socket->next;
		socket_close(socket);
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
		{ "open", socket_open_call },
		{ "close", socket_close_call },
		{ "bind", socket_bind_call },
		{ "connect", socket_connect_call },
		{ "name", socket_name_call },
		{ "setOption", socket_set_option_call },
		{ "getOption", socket_get_option_call },
		{ "attachFilter", socket_attach_filter_call },
		{ "receive", receiver_start_call },
		{ "sendBatch", send_batch_call },
		{ "sendAsync", send_async_call },
		{ "control", control_call },
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
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, environment,
					 &function) != napi_ok ||
		    napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
			return NULL;
	}
	return exports;
}
