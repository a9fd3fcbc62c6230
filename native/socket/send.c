/* Sending: many datagrams in one call, and one message on another thread. */
#define _GNU_SOURCE
#include "socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define MOST_REPORTS 1024

/*
 * Reads away what waits in the queue of errors (IP_RECVERR). The send that failed has told of it; unread, the queue
 * fills, and the kernel drops packets because of it. errno stays.
 */
static void clear_reports(int fd)
{
	struct msghdr message = { 0 };
	int error = errno;

	for (int i = 0; i < MOST_REPORTS; i++) {
		if (recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
	}
	errno = error;
}

/*
 * (handle, ArrayBuffer, Int32Array of offset and length alternating, first datagram, count) → datagrams sent, which
 * is less than `count` when one was refused, or -errno when that was the first one.
 */
napi_value send_batch_call(napi_env env, napi_callback_info info)
{
	struct mmsghdr messages[BATCH];
	struct iovec vectors[BATCH];
	size_t memory_bytes, numbers;
	napi_typedarray_type type;
	int first, count, sent = 0;
	napi_value arguments[5];
	struct socket *socket;
	void *memory, *data;
	int32_t *spans;

	if (!read_arguments(env, info, 5, arguments) ||
	    napi_get_arraybuffer_info(env, arguments[1], &memory, &memory_bytes) != napi_ok ||
	    napi_get_typedarray_info(env, arguments[2], &type, &numbers, &data, NULL, NULL) != napi_ok ||
	    type != napi_int32_array || !read_int(env, arguments[3], &first) ||
	    !read_int(env, arguments[4], &count) || first < 0 || count < 0 ||
	    ((size_t)first + count) * 2 > numbers)
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	spans = (int32_t *)data + (size_t)first * 2;
	memset(messages, 0, sizeof(messages));
	while (sent < count) {
		int batch = count - sent < BATCH ? count - sent : BATCH;
		int taken;

		for (int i = 0; i < batch; i++) {
			int32_t offset = spans[(sent + i) * 2], length = spans[(sent + i) * 2 + 1];

			if (offset < 0 || length < 0 || (size_t)offset + length > memory_bytes)
				return give_int(env, sent > 0 ? sent : -EFAULT);
			vectors[i].iov_base = (char *)memory + offset;
			vectors[i].iov_len = length;
			messages[i].msg_hdr.msg_iov = &vectors[i];
			messages[i].msg_hdr.msg_iovlen = 1;
		}
		taken = sendmmsg(socket->fd, messages, batch, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (taken < 0) {
			if (errno != EAGAIN)
				clear_reports(socket->fd);
			return give_int(env, sent > 0 ? sent : -errno);
		}
		sent += taken;
		if (taken < batch)
			break;
	}
	return give_int(env, sent);
}

struct send_work {
	napi_async_work work;
	napi_deferred deferred;
	struct socket *socket;
	ssize_t result;
	size_t length;
	bool pauses;
	char bytes[];
};

/* On a thread of the pool. The socket keeps its descriptor open until send_completed(). */
static void send_execute(napi_env env, void *data)
{
	struct send_work *work = data;

	(void)env;
	work->result = send(work->socket->fd, work->bytes, work->length, MSG_NOSIGNAL);
	if (work->result < 0)
		work->result = -errno;
}

static void send_completed(napi_env env, napi_status status, void *data)
{
	struct send_work *work = data;
	struct socket *socket = work->socket;
	napi_handle_scope scope;

	socket_send_ended(socket);
	if (work->pauses && !socket->closed)
		receiver_resume(socket->receiver);
	socket_release(socket);
	if (napi_open_handle_scope(env, &scope) == napi_ok) {
		napi_value result = give_int(env, status == napi_ok ? work->result : -ECANCELED);

		/* Fails when the environment ends, where nobody waits for the answer any more. */
		napi_resolve_deferred(env, work->deferred, result);
		napi_close_handle_scope(env, scope);
	}
	napi_delete_async_work(env, work->work);
	free(work);
}

/*
 * (handle, bytes, receive afterwards) → promise of the number of bytes sent or -errno; a plain -errno when it cannot begin.
 *
 * Receiving afterwards is for requests that the kernel answers one by one while it takes them: the loop would otherwise
 * be woken for each answer, which costs several times what the answer does.
 */
napi_value send_async_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[3], name, promise;
	struct send_work *work;
	struct socket *socket;
	size_t length;
	bool pauses;
	void *bytes;

	if (!read_arguments(env, info, 3, arguments) || !read_bytes(env, arguments[1], &bytes, &length) ||
	    napi_get_value_bool(env, arguments[2], &pauses) != napi_ok)
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	work = malloc(sizeof(*work) + length);
	if (work == NULL)
		return give_int(env, -ENOMEM);
	work->socket = socket;
	work->length = length;
	work->pauses = pauses && socket->receiver != NULL;
	memcpy(work->bytes, bytes, length);
	if (napi_create_string_latin1(env, "weir-send", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_create_async_work(env, NULL, name, send_execute, send_completed, work, &work->work) != napi_ok) {
		free(work);
		return give_int(env, -ENOMEM);
	}
	if (napi_create_promise(env, &work->deferred, &promise) != napi_ok ||
	    napi_queue_async_work(env, work->work) != napi_ok) {
		napi_delete_async_work(env, work->work);
		free(work);
		return give_int(env, -ENOMEM);
	}
	socket->sends++;
	socket_hold(socket);
	if (work->pauses)
		receiver_pause(socket->receiver);
	return promise;
}
