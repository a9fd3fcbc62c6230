/* Objects: their life, what is set before they are loaded, and what libbpf says about them. */
#define _GNU_SOURCE
#include "bpf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The end of a longer log is kept: the verifier tells what is wrong last. */
#define MOST_LOG_BYTES (256 << 10)

static __thread struct object *logging;

static int log_print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	size_t before, added;
	char *text, *log;

	if (logging == NULL || level > LIBBPF_WARN || vasprintf(&text, format, arguments) < 0)
		return 0;
	before = logging->log == NULL ? 0 : strlen(logging->log);
	added = strlen(text);
	log = realloc(logging->log, before + added + 1);
	if (log != NULL) {
		memcpy(log + before, text, added + 1);
		if (before + added > MOST_LOG_BYTES)
			memmove(log, log + before + added - MOST_LOG_BYTES, MOST_LOG_BYTES + 1);
		logging->log = log;
	}
	free(text);
	return 0;
}

void log_install(void)
{
	libbpf_set_print(log_print);
}

void log_begin(struct object *object)
{
	free(object->log);
	object->log = NULL;
	logging = object;
}

void log_end(void)
{
	logging = NULL;
}

void object_hold(struct object *object)
{
	object->references++;
}

void object_release(struct object *object)
{
	if (--object->references > 0)
		return;
	environment_release(object->environment);
	free(object->log);
	free(object);
}

static void close_descriptors(struct object *object)
{
	if (!object->closed || object->jobs > 0)
		return;
	for (struct attachment *attachment = object->attachments, *next; attachment != NULL; attachment = next) {
		next = attachment->next;
		bpf_link__destroy(attachment->link);
		free(attachment);
	}
	object->attachments = NULL;
	bpf_object__close(object->bpf);
	object->bpf = NULL;
}

void object_close(struct object *object)
{
	if (object->closed)
		return;
	object->closed = true;
	*object->link = object->next;
	if (object->next != NULL)
		object->next->link = object->link;
	if (object->watch != NULL) {
		watch_stop(object->watch);
		object->watch = NULL;
	}
	close_descriptors(object);
}

void object_job_ended(struct object *object)
{
	object->jobs--;
	close_descriptors(object);
}

/* The JavaScript handle has been collected. */
static void handle_collected(napi_env env, void *data, void *hint)
{
	(void)env;
	(void)hint;
	object_close(data);
	object_release(data);
}

/* () → handle of an object without anything in it, or -errno */
napi_value object_create_call(napi_env env, napi_callback_info info)
{
	struct object *object;
	void *environment;
	napi_value handle;
	size_t count = 0;

	if (napi_get_cb_info(env, info, &count, NULL, NULL, &environment) != napi_ok)
		return give_int(env, -EINVAL);
	object = calloc(1, sizeof(*object));
	if (object == NULL)
		return give_int(env, -ENOMEM);
	if (napi_create_external(env, object, handle_collected, NULL, &handle) != napi_ok) {
		free(object);
		return give_int(env, -ENOMEM);
	}
	object->references = 1;
	object->environment = environment;
	object->environment->references++;
	object->next = object->environment->objects;
	object->link = &object->environment->objects;
	if (object->next != NULL)
		object->next->link = &object->next;
	object->environment->objects = object;
	return handle;
}

/* (handle, bytes of an ELF file) → 0 or -errno */
napi_value object_open_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[2];
	struct object *object;
	size_t length;
	void *bytes;

	if (!read_arguments(env, info, 2, arguments) || !read_bytes(env, arguments[1], &bytes, &length))
		return give_int(env, -EINVAL);
	object = read_object(env, arguments[0]);
	if (object == NULL)
		return give_int(env, -EBADF);
	if (object->bpf != NULL)
		return give_int(env, -EALREADY);
	log_begin(object);
	object->bpf = bpf_object__open_mem(bytes, length, NULL);
	log_end();
	return give_int(env, object->bpf == NULL ? -errno : 0);
}

/* (handle, map, bytes) → 0 or -errno: the initial content of a data section, whole; before the object is loaded */
napi_value object_constants_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[3];
	struct object *object;
	struct bpf_map *map;
	size_t length;
	void *bytes;

	if (!read_arguments(env, info, 3, arguments) || !read_bytes(env, arguments[2], &bytes, &length))
		return give_int(env, -EINVAL);
	object = read_object(env, arguments[0]);
	if (object == NULL)
		return give_int(env, -EBADF);
	map = read_map(env, object, arguments[1]);
	if (map == NULL)
		return give_int(env, -ENOENT);
	return give_int(env, bpf_map__set_initial_value(map, bytes, length));
}

/* (handle, program, 0 or 1) → 0 or -errno: whether the program is loaded with the object */
napi_value object_autoload_call(napi_env env, napi_callback_info info)
{
	struct bpf_program *program;
	napi_value arguments[3];
	struct object *object;
	int32_t wanted;

	if (!read_arguments(env, info, 3, arguments) || !read_int(env, arguments[2], &wanted))
		return give_int(env, -EINVAL);
	object = read_object(env, arguments[0]);
	if (object == NULL)
		return give_int(env, -EBADF);
	program = read_program(env, object, arguments[1]);
	if (program == NULL)
		return give_int(env, -ENOENT);
	return give_int(env, bpf_program__set_autoload(program, wanted != 0));
}

/* (handle) → what was said since the last open, load or attach began; empty while a job is under way */
napi_value object_log_call(napi_env env, napi_callback_info info)
{
	napi_value argument, text = NULL;
	const char *log = "";
	void *object;

	if (read_arguments(env, info, 1, &argument) && napi_get_value_external(env, argument, &object) == napi_ok &&
	    ((struct object *)object)->jobs == 0 && ((struct object *)object)->log != NULL)
		log = ((struct object *)object)->log;
	napi_create_string_utf8(env, log, NAPI_AUTO_LENGTH, &text);
	return text;
}

/* (handle, program) → its descriptor, which is the object's own, or -errno */
napi_value object_program_call(napi_env env, napi_callback_info info)
{
	struct bpf_program *program;
	napi_value arguments[2];
	struct object *object;

	if (!read_arguments(env, info, 2, arguments))
		return give_int(env, -EINVAL);
	object = read_object(env, arguments[0]);
	if (object == NULL)
		return give_int(env, -EBADF);
	program = read_program(env, object, arguments[1]);
	if (program == NULL)
		return give_int(env, -ENOENT);
	return give_int(env, bpf_program__fd(program));
}
