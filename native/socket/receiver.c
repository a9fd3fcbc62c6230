/*
 * Receiving in batches. A receiver owns one block of memory, shared with JavaScript as one ArrayBuffer:
 *
 *     meta        4 x i32 for each slot: length, flags (MSG_TRUNC, ...), address length, control length
 *     addresses   32 bytes for each slot
 *     control     `control` bytes for each slot
 *     data        `stride` bytes for each slot, of which the first `headroom` are left free
 *
 * It is mapped without huge pages and never cleared, so slots (and the part of a slot) that nothing was received
 * into cost no memory.
 */
#define _GNU_SOURCE
#include "socket.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <uv.h>

#define META_BYTES 16
#define ADDRESS_BYTES 32
#define MOST_SLOTS 1024
#define MOST_SLOT_BYTES (1 << 20)
#define MOST_CONTROL_BYTES 4096

/* Unmapped when both the receiver and the collector of garbage have let go of it. */
struct arena {
	char *memory;
	size_t bytes;
	int references;
};

struct receiver {
	uv_poll_t poll;
	struct socket *socket;
	struct arena *arena;
	int32_t *meta;
	napi_ref callback;
	napi_async_context context;
	int slots;
	int control_bytes;
	int batches;
	int pauses;
	struct mmsghdr *messages;
	struct iovec *vectors;
};

static void arena_release(struct arena *arena)
{
	if (--arena->references > 0)
		return;
	munmap(arena->memory, arena->bytes);
	free(arena);
}

static void arena_collected(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)data;
	arena_release(hint);
}

static struct arena *arena_create(size_t bytes)
{
	struct arena *arena = malloc(sizeof(*arena));

	if (arena == NULL)
		return NULL;
	arena->bytes = bytes;
	arena->references = 1;
	arena->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena->memory == MAP_FAILED) {
		free(arena);
		return NULL;
	}
	/* One touched byte would otherwise make 2 MiB resident. A kernel without huge pages refuses: all the same. */
	madvise(arena->memory, bytes, MADV_NOHUGEPAGE);
	return arena;
}

static void receiver_free(struct receiver *receiver)
{
	if (receiver->arena != NULL)
		arena_release(receiver->arena);
	free(receiver->messages);
	free(receiver->vectors);
	free(receiver);
}

static void poll_closed(uv_handle_t *handle)
{
	struct receiver *receiver = handle->data;
	struct socket *socket = receiver->socket;
	struct environment *environment = socket->environment;

	receiver_free(receiver);
	environment_poll_closed(environment);
	socket_release(socket);
}

void receiver_stop(struct receiver *receiver)
{
	struct environment *environment = receiver->socket->environment;

	napi_delete_reference(environment->env, receiver->callback);
	napi_async_destroy(environment->env, receiver->context);
	receiver->callback = NULL;
	environment->closing_polls++;
	uv_close((uv_handle_t *)&receiver->poll, poll_closed);
}

/* Calls JavaScript with the number of messages in the slots, or a negative errno. False: JavaScript runs no more. */
static bool deliver(struct receiver *receiver, int count)
{
	napi_env env = receiver->socket->environment->env;
	napi_value callback, argument, global, error;
	napi_handle_scope scope;
	napi_status status;

	if (napi_open_handle_scope(env, &scope) != napi_ok)
		return false;
	if (napi_get_reference_value(env, receiver->callback, &callback) == napi_ok &&
	    napi_create_int32(env, count, &argument) == napi_ok && napi_get_global(env, &global) == napi_ok) {
		status = napi_make_callback(env, receiver->context, global, callback, 1, &argument, NULL);
		if (status == napi_pending_exception && napi_get_and_clear_last_exception(env, &error) == napi_ok)
			napi_fatal_exception(env, error);
	} else {
		status = napi_generic_failure;
	}
	napi_close_handle_scope(env, scope);
	return status == napi_ok || status == napi_pending_exception;
}

/* Receives one batch; gives the number of messages or a negative errno. */
static int receive_batch(struct receiver *receiver)
{
	int32_t *meta = receiver->meta;
	int count;

	do
		count = recvmmsg(receiver->socket->fd, receiver->messages, receiver->slots, MSG_DONTWAIT, NULL);
	while (count < 0 && errno == EINTR);
	if (count < 0)
		return -errno;
	for (int i = 0; i < count; i++, meta += 4) {
		struct mmsghdr *message = &receiver->messages[i];

		meta[0] = message->msg_len;
		meta[1] = message->msg_hdr.msg_flags;
		meta[2] = message->msg_hdr.msg_namelen;
		meta[3] = message->msg_hdr.msg_controllen;
		message->msg_hdr.msg_namelen = ADDRESS_BYTES;
		message->msg_hdr.msg_controllen = receiver->control_bytes;
	}
	return count;
}

/*
 * The descriptor is readable, or has an error to report. After `batches` batches the other handles of the loop get
 * their turn; libuv calls again for what is left.
 *
 * An error of the socket (ENOBUFS after an overrun, ENETDOWN) makes libuv stop the poll and give UV_EBADF, although
 * the descriptor is as good as before (uv__poll_io() in src/unix/poll.c). The receive call tells the true error and
 * clears it; then the poll is started again.
 */
static void readable(uv_poll_t *poll, int status, int events)
{
	struct receiver *receiver = poll->data;
	struct socket *socket = receiver->socket;
	int error, count;

	(void)events;
	socket_hold(socket);
	for (int batch = 0; batch < receiver->batches && !socket->closed; batch++) {
		count = receive_batch(receiver);
		if (count == -EAGAIN)
			break;
		if (!deliver(receiver, count) || (count >= 0 && count < receiver->slots))
			break;
	}
	if (status < 0 && !socket->closed && receiver->pauses == 0) {
		error = uv_poll_start(poll, UV_READABLE, readable);
		if (error != 0)
			deliver(receiver, error);
	}
	socket_release(socket);
}

void receiver_pause(struct receiver *receiver)
{
	if (receiver->pauses++ == 0)
		uv_poll_stop(&receiver->poll);
}

void receiver_resume(struct receiver *receiver)
{
	int error;

	if (--receiver->pauses > 0)
		return;
	error = uv_poll_start(&receiver->poll, UV_READABLE, readable);
	if (error != 0)
		deliver(receiver, error);
}

struct order {
	int slots;
	int stride;
	int headroom;
	int control_bytes;
	int batches;
};

static bool order_is_valid(const struct order *order)
{
	return order->slots >= 1 && order->slots <= MOST_SLOTS && order->batches >= 1 &&
	       order->stride <= MOST_SLOT_BYTES && order->stride % 8 == 0 && order->headroom >= 0 &&
	       order->headroom < order->stride && order->control_bytes >= 0 &&
	       order->control_bytes <= MOST_CONTROL_BYTES && order->control_bytes % 8 == 0;
}

/* Places the slots in the arena and prepares the vectors of recvmmsg. False: no memory. */
static bool receiver_allocate(struct receiver *receiver, const struct order *order)
{
	size_t control = META_BYTES + ADDRESS_BYTES, data = control + order->control_bytes;
	size_t slots = order->slots;
	char *memory;

	receiver->arena = arena_create((data + order->stride) * slots);
	receiver->messages = calloc(slots, sizeof(*receiver->messages));
	receiver->vectors = calloc(slots, sizeof(*receiver->vectors));
	if (receiver->arena == NULL || receiver->messages == NULL || receiver->vectors == NULL)
		return false;
	memory = receiver->arena->memory;
	receiver->meta = (int32_t *)memory;
	for (size_t i = 0; i < slots; i++) {
		struct msghdr *header = &receiver->messages[i].msg_hdr;

		receiver->vectors[i].iov_base = memory + data * slots + i * order->stride + order->headroom;
		receiver->vectors[i].iov_len = order->stride - order->headroom;
		header->msg_iov = &receiver->vectors[i];
		header->msg_iovlen = 1;
		header->msg_name = memory + META_BYTES * slots + i * ADDRESS_BYTES;
		header->msg_namelen = ADDRESS_BYTES;
		header->msg_control = memory + control * slots + i * order->control_bytes;
		header->msg_controllen = order->control_bytes;
	}
	receiver->slots = order->slots;
	receiver->control_bytes = order->control_bytes;
	receiver->batches = order->batches;
	return true;
}

/* What JavaScript sees of the receiver: its memory, its function, and a name for async hooks. */
static bool receiver_connect(napi_env env, struct receiver *receiver, napi_value callback, napi_value *memory)
{
	struct arena *arena = receiver->arena;
	napi_value name;

	if (napi_create_string_latin1(env, "weir-socket", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_create_reference(env, callback, 1, &receiver->callback) != napi_ok)
		return false;
	if (napi_async_init(env, NULL, name, &receiver->context) != napi_ok) {
		napi_delete_reference(env, receiver->callback);
		return false;
	}
	arena->references++;
	if (napi_create_external_arraybuffer(env, arena->memory, arena->bytes, arena_collected, arena, memory) !=
	    napi_ok) {
		arena->references--;
		napi_async_destroy(env, receiver->context);
		napi_delete_reference(env, receiver->callback);
		return false;
	}
	return true;
}

/* (handle, slots, stride, headroom, control bytes, batches, function) → ArrayBuffer, or -errno */
napi_value receiver_start_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[7], memory;
	struct receiver *receiver;
	struct socket *socket;
	struct order order;
	uv_loop_t *loop;
	int error;

	if (!read_arguments(env, info, 7, arguments) || !read_int(env, arguments[1], &order.slots) ||
	    !read_int(env, arguments[2], &order.stride) || !read_int(env, arguments[3], &order.headroom) ||
	    !read_int(env, arguments[4], &order.control_bytes) || !read_int(env, arguments[5], &order.batches) ||
	    !order_is_valid(&order))
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	if (socket->receiver != NULL)
		return give_int(env, -EALREADY);
	if (napi_get_uv_event_loop(env, &loop) != napi_ok)
		return give_int(env, -EINVAL);
	receiver = calloc(1, sizeof(*receiver));
	if (receiver == NULL)
		return give_int(env, -ENOMEM);
	receiver->socket = socket;
	receiver->poll.data = receiver;
	if (!receiver_allocate(receiver, &order) || !receiver_connect(env, receiver, arguments[6], &memory)) {
		receiver_free(receiver);
		return give_int(env, -ENOMEM);
	}
	error = uv_poll_init(loop, &receiver->poll, socket->fd);
	if (error != 0) {
		napi_delete_reference(env, receiver->callback);
		napi_async_destroy(env, receiver->context);
		receiver_free(receiver);
		return give_int(env, error);
	}
	socket->receiver = receiver;
	socket_hold(socket);
	error = uv_poll_start(&receiver->poll, UV_READABLE, readable);
	if (error != 0) {
		socket->receiver = NULL;
		receiver_stop(receiver);
		return give_int(env, error);
	}
	return memory;
}
