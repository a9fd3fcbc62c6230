/* Asking about a network device by ioctl(2), on another thread: the kernel may wait for a lock or for the device. */
#define _GNU_SOURCE
#include "socket.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct control_work {
	napi_async_work work;
	napi_deferred deferred;
	napi_ref bytes;
	struct socket *socket;
	unsigned long request;
	struct ifreq interface;
	int result;
	size_t length;
	/* The mapping, and in it the memory that the kernel writes: it ends where the page that nobody may touch begins. */
	void *map;
	size_t map_bytes;
	char *memory;
};

/*
 * Some requests write as much as the device has, whatever the caller has made room for. What is too much then meets
 * the last page of the mapping, and the answer is EFAULT.
 */
static bool map_guarded(struct control_work *work)
{
	size_t page = sysconf(_SC_PAGESIZE), room = (work->length + page - 1) / page * page;

	work->map_bytes = room + page;
	work->map = mmap(NULL, work->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (work->map == MAP_FAILED)
		return false;
	if (mprotect((char *)work->map + room, page, PROT_NONE) != 0) {
		munmap(work->map, work->map_bytes);
		return false;
	}
	work->memory = (char *)work->map + room - work->length;
	return true;
}

static void control_free(napi_env env, struct control_work *work)
{
	if (work->bytes != NULL)
		napi_delete_reference(env, work->bytes);
	munmap(work->map, work->map_bytes);
	free(work);
}

/* On a thread of the pool. The socket keeps its descriptor open until control_completed(). */
static void control_execute(napi_env env, void *data)
{
	struct control_work *work = data;

	(void)env;
	work->interface.ifr_data = work->memory;
	work->result = ioctl(work->socket->fd, work->request, &work->interface);
	if (work->result < 0)
		work->result = -errno;
}

static void control_completed(napi_env env, napi_status status, void *data)
{
	struct control_work *work = data;
	napi_handle_scope scope;

	socket_send_ended(work->socket);
	socket_release(work->socket);
	napi_delete_async_work(env, work->work);
	if (napi_open_handle_scope(env, &scope) == napi_ok) {
		int result = status == napi_ok ? work->result : -ECANCELED;
		size_t length;
		napi_value bytes;
		void *target;

		if (result >= 0) {
			/* A buffer that was taken away meanwhile has no bytes any more. */
			if (napi_get_reference_value(env, work->bytes, &bytes) == napi_ok && bytes != NULL &&
			    read_bytes(env, bytes, &target, &length) && length == work->length)
				memcpy(target, work->memory, length);
			else
				result = -ECANCELED;
		}
		/* Fails when the environment ends, where nobody waits for the answer any more. */
		napi_resolve_deferred(env, work->deferred, give_int(env, result));
		napi_close_handle_scope(env, scope);
	}
	control_free(env, work);
}

/*
 * (handle, request, name of the interface in bytes, bytes) → promise of what ioctl() gave or -errno; a plain -errno
 * when it cannot begin. The request's data are `bytes`, before and after it.
 */
napi_value control_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[4], resource, promise;
	size_t name_length, length;
	struct control_work *work;
	struct socket *socket;
	void *name, *bytes;
	int32_t request;

	if (!read_arguments(env, info, 4, arguments) || !read_int(env, arguments[1], &request) ||
	    !read_bytes(env, arguments[2], &name, &name_length) || !read_bytes(env, arguments[3], &bytes, &length) ||
	    name_length >= IFNAMSIZ || length == 0)
		return give_int(env, -EINVAL);
	socket = read_socket(env, arguments[0]);
	if (socket == NULL)
		return give_int(env, -EBADF);
	work = calloc(1, sizeof(*work));
	if (work == NULL)
		return give_int(env, -ENOMEM);
	work->socket = socket;
	work->request = (uint32_t)request;
	work->length = length;
	memcpy(work->interface.ifr_name, name, name_length);
	if (!map_guarded(work)) {
		free(work);
		return give_int(env, -ENOMEM);
	}
	memcpy(work->memory, bytes, length);
	if (napi_create_reference(env, arguments[3], 1, &work->bytes) != napi_ok ||
	    napi_create_string_latin1(env, "weir-control", NAPI_AUTO_LENGTH, &resource) != napi_ok ||
	    napi_create_async_work(env, NULL, resource, control_execute, control_completed, work, &work->work) !=
		    napi_ok) {
		control_free(env, work);
		return give_int(env, -ENOMEM);
	}
	if (napi_create_promise(env, &work->deferred, &promise) != napi_ok ||
	    napi_queue_async_work(env, work->work) != napi_ok) {
		napi_delete_async_work(env, work->work);
		control_free(env, work);
		return give_int(env, -ENOMEM);
	}
	socket->sends++;
	socket_hold(socket);
	return promise;
}
