/*
 * Sockets for Node.js as descriptors and batches. What is inside the bytes is the business of the TypeScript above;
 * see agent/kernel/native.ts for each function's contract.
 *
 * Functions give 0 or a count, or a negative errno. Nothing here throws.
 */
#ifndef WEIR_SOCKET_H
#define WEIR_SOCKET_H

#include "../arguments.h"

/* The kernel's errno values end below this (MAX_ERRNO), so results beyond it can tell a second thing. */
#define MOST_ERRNO 4095

struct receiver;

/*
 * One for each environment (the main thread and each worker have their own). It lives until the environment is
 * torn down and the last socket is gone, whichever comes later.
 */
struct environment {
	napi_env env;
	struct socket *sockets;
	napi_async_cleanup_hook_handle cleanup;
	size_t references;
	size_t closing_polls;
	bool ending;
};

/*
 * References are held by: the JavaScript handle until it is collected, the poll until libuv lets go of it, each
 * send or control request under way on another thread, and whoever is calling into JavaScript. The descriptor is closed when the
 * socket is closed and no thread uses it, so its number is not reused under a running send.
 */
struct socket {
	struct environment *environment;
	struct socket *next;
	struct socket **link;
	struct receiver *receiver;
	size_t references;
	/* Sends and control requests under way on other threads. */
	size_t sends;
	int fd;
	bool closed;
};

void socket_hold(struct socket *socket);
void socket_release(struct socket *socket);
/* Stops receiving and closes the descriptor as soon as no thread uses it. May be called again. */
void socket_close(struct socket *socket);
/* The last send on another thread has ended. */
void socket_send_ended(struct socket *socket);

/* Receives nothing until receiver_resume() has been called as often. */
void receiver_pause(struct receiver *receiver);
void receiver_resume(struct receiver *receiver);
/* Ends receiving; the receiver is freed when libuv has let go of its poll handle. */
void receiver_stop(struct receiver *receiver);

void environment_release(struct environment *environment);
/* Lets the environment end if it only waited for polls to be closed. */
void environment_poll_closed(struct environment *environment);

/* Undefined or null for a closed socket: its descriptor is gone. */
struct socket *read_socket(napi_env env, napi_value value);

napi_value socket_open_call(napi_env env, napi_callback_info info);
napi_value socket_close_call(napi_env env, napi_callback_info info);
napi_value socket_bind_call(napi_env env, napi_callback_info info);
napi_value socket_connect_call(napi_env env, napi_callback_info info);
napi_value socket_name_call(napi_env env, napi_callback_info info);
napi_value socket_set_option_call(napi_env env, napi_callback_info info);
napi_value socket_get_option_call(napi_env env, napi_callback_info info);
napi_value socket_attach_filter_call(napi_env env, napi_callback_info info);
napi_value receiver_start_call(napi_env env, napi_callback_info info);
napi_value send_batch_call(napi_env env, napi_callback_info info);
napi_value send_async_call(napi_env env, napi_callback_info info);
napi_value control_call(napi_env env, napi_callback_info info);

#endif
