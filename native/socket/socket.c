/* Opening, naming, options and closing. */
#define _GNU_SOURCE
#include "socket.h"

#include <errno.h>
#include <linux/filter.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

void socket_hold(struct socket *socket)
{
	socket->references++;
}

void socket_release(struct socket *socket)
{
	if (--socket->references > 0)
		return;
	environment_release(socket->environment);
	free(socket);
}

static void close_descriptor(struct socket *socket)
{
	if (!socket->closed || socket->sends > 0 || socket->fd < 0)
		return;
	close(socket->fd);
	socket->fd = -1;
}

void socket_close(struct socket *socket)
{
	if (socket->closed)
		return;
	socket->closed = true;
	*socket->link = socket->next;
	if (socket->next != NULL)
		socket->next->link = socket->link;
	if (socket->receiver != NULL) {
		receiver_stop(socket->receiver);
		socket->receiver = NULL;
	}
	close_descriptor(socket);
}

void socket_send_ended(struct socket *socket)
{
	socket->sends--;
	close_descriptor(socket);
}

/* The JavaScript handle has been collected. */
static void handle_collected(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	socket_close(data);
	socket_release(data);
}

struct open_order {
	int domain;
	int type;
	int protocol;
	int namespace;
	int result;
};

static int open_here(const struct open_order *order)
{
	int fd = socket(order->domain, order->type | SOCK_CLOEXEC | SOCK_NONBLOCK, order->protocol);

	return fd < 0 ? -errno : fd;
}

/* A thread of its own, because a thread that has changed its namespace is of no further use to the process. */
static void *open_in_namespace(void *data)
{
	struct open_order *order = data;

	if (setns(order->namespace, CLONE_NEWNET) != 0)
		order->result = -errno - MOST_ERRNO;
	else
		order->result = open_here(order);
	return NULL;
}

static int open_descriptor(struct open_order *order)
{
	pthread_t thread;
	int error;

	if (order->namespace < 0)
		return open_here(order);
	error = pthread_create(&thread, NULL, open_in_namespace, order);
	if (error != 0)
		return -error;
	pthread_join(thread, NULL);
	return order->result;
}

/* (domain, type, protocol, namespace descriptor or -1) → handle, or -errno; -4095 - errno when setns failed. */
napi_value socket_open_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[4], handle;
	struct open_order order;
	struct socket *socket;
	void *environment;
	size_t count = 4;
	int fd;

	if (napi_get_cb_info(env, info, &count, arguments, NULL, &environment) != napi_ok || count != 4 ||
	    !read_int(env, arguments[0], &order.domain) || !read_int(env, arguments[1], &order.type) ||
	    !read_int(env, arguments[2], &order.protocol) || !read_int(env, arguments[3], &order.namespace))
		return give_int(env, -EINVAL);
	fd = open_descriptor(&order);
	if (fd < 0)
		return give_int(env, fd);
	socket = calloc(1, sizeof(*socket));
	if (socket == NULL) {
		close(fd);
		return give_int(env, -ENOMEM);
	}
	if (napi_create_external(env, socket, handle_collected, NULL, &handle) != napi_ok) {
		close(fd);
		free(socket);
		return give_int(env, -ENOMEM);
	}
	socket->fd = fd;
	socket->references = 1;
	socket->environment = environment;
	socket->environment->references++;
	socket->next = socket->environment->sockets;
	socket->link = &socket->environment->sockets;
	if (socket->next != NULL)
		socket->next->link = &socket->next;
	socket->environment->sockets = socket;
	return handle;
}

/* (handle) → 0 */
napi_value socket_close_call(napi_env env, napi_callback_info info)
{
	napi_value argument;
	struct socket *socket;

	if (!read_arguments(env, info, 1, &argument))
		return give_int(env, -EINVAL);
	socket = read_socket(env, argument);
	if (socket != NULL)
		socket_close(socket);
	return give_int(env, 0);
}

typedef int address_call(int fd, const struct sockaddr *address, socklen_t length);

static napi_value call_with_address(napi_env env, napi_callback_info info, address_call *call)
{
	napi_value arguments[2];
	struct socket *socket;
	size_t length;
	void *address;

	if (!read_arguments(env, info, 2, arguments) || !read_bytes(env, arguments[1], &address, &length))
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	return give_int(env, call(socket->fd, address, length) == 0 ? 0 : -errno);
}

/* (handle, address) → 0 or -errno */
napi_value socket_bind_call(napi_env env, napi_callback_info info)
{
	return call_with_address(env, info, bind);
}

/* (handle, address) → 0 or -errno */
napi_value socket_connect_call(napi_env env, napi_callback_info info)
{
	return call_with_address(env, info, connect);
}

/* (handle, bytes to be filled) → length of the socket's own address, or -errno */
napi_value socket_name_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[2];
	struct socket *socket;
	socklen_t used;
	size_t length;
	void *address;

	if (!read_arguments(env, info, 2, arguments) || !read_bytes(env, arguments[1], &address, &length))
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	used = length;
	if (getsockname(socket->fd, address, &used) != 0)
		return give_int(env, -errno);
	return give_int(env, used);
}

/* (handle, level, option, value) → 0 or -errno */
napi_value socket_set_option_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[4];
	struct socket *socket;
	int level, option;
	size_t length;
	void *value;

	if (!read_arguments(env, info, 4, arguments) || !read_int(env, arguments[1], &level) ||
	    !read_int(env, arguments[2], &option) || !read_bytes(env, arguments[3], &value, &length))
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	return give_int(env, setsockopt(socket->fd, level, option, value, length) == 0 ? 0 : -errno);
}

/* (handle, level, option, bytes to be filled) → length of the value, or -errno */
napi_value socket_get_option_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[4];
	struct socket *socket;
	int level, option;
	socklen_t used;
	size_t length;
	void *value;

	if (!read_arguments(env, info, 4, arguments) || !read_int(env, arguments[1], &level) ||
	    !read_int(env, arguments[2], &option) || !read_bytes(env, arguments[3], &value, &length))
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	used = length;
	if (getsockopt(socket->fd, level, option, value, &used) != 0)
		return give_int(env, -errno);
	return give_int(env, used);
}

/* (handle, instructions of classic BPF, 8 bytes each) → 0 or -errno */
napi_value socket_attach_filter_call(napi_env env, napi_callback_info info)
{
	struct sock_fprog program;
	napi_value arguments[2];
	struct socket *socket;
	size_t length;
	void *code;

	if (!read_arguments(env, info, 2, arguments) || !read_bytes(env, arguments[1], &code, &length) ||
	    length % sizeof(struct sock_filter) != 0 || length / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	program.len = length / sizeof(struct sock_filter);
	program.filter = code;
	if (setsockopt(socket->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0)
		return give_int(env, -errno);
	return give_int(env, 0);
}
