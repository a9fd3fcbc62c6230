/*
 * What may take its time: the verifier, and attaching and detaching, which wait for the kernel's RTNL lock. It runs
 * on a thread of libuv's pool and gives a promise. One job of an object at a time; a second one gets EBUSY.
 */
#include "bpf.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

struct job {
	napi_async_work work;
	napi_deferred promise;
	struct object *object;
	int (*execute)(struct job *job);
	struct bpf_program *program;
	struct attachment *attachment;
	int32_t how;
	int32_t if_index;
	int result;
};

/* How a program is attached: to what its section names, or by TCX to an interface. */
enum { TRACING, TCX };

static int load(struct job *job)
{
	int error = bpf_object__load(job->object->bpf);

	if (error == 0)
		job->object->loaded = true;
	/* libbpf has read the kernel's type information, some megabytes, which malloc would keep for good. */
	malloc_trim(0);
	return error;
}

/* Before all others: a program that gives a verdict ends the chain, and ours never does. */
static int attach(struct job *job)
{
	LIBBPF_OPTS(bpf_tcx_opts, options, .flags = BPF_F_BEFORE);

	if (job->how == TRACING)
		job->attachment->link = bpf_program__attach(job->program);
	else
		job->attachment->link = bpf_program__attach_tcx(job->program, job->if_index, &options);
	return job->attachment->link == NULL ? -errno : job->attachment->number;
}

static int detach(struct job *job)
{
	return bpf_link__destroy(job->attachment->link);
}

static int close_all(struct job *job)
{
	struct attachment *attachment;
	int error = 0;

	for (attachment = job->object->attachments; attachment != NULL; attachment = attachment->next) {
		int result = bpf_link__destroy(attachment->link);

		attachment->link = NULL;
		if (result != 0)
			error = result;
	}
	return error;
}

static void execute(napi_env env, void *data)
{
	struct job *job = data;

	(void)env;
	log_begin(job->object);
	job->result = job->execute(job);
	log_end();
}

static void forget(struct object *object, struct attachment *attachment)
{
	struct attachment **link = &object->attachments;

	while (*link != attachment)
		link = &(*link)->next;
	*link = attachment->next;
	free(attachment);
}

static void complete(napi_env env, napi_status status, void *data)
{
	struct job *job = data;
	struct object *object = job->object;

	if (status != napi_ok)
		job->result = -ECANCELED;
	if (job->execute == attach && job->result >= 0) {
		job->attachment->next = object->attachments;
		object->attachments = job->attachment;
	} else if (job->execute == attach) {
		free(job->attachment);
	} else if (job->execute == detach) {
		forget(object, job->attachment);
	}
	object_job_ended(object);
	if (job->execute == close_all)
		object_close(object);
	/* Fails when the environment ends: nobody waits any more. */
	napi_resolve_deferred(env, job->promise, give_int(env, job->result));
	napi_delete_async_work(env, job->work);
	object_release(object);
	free(job);
}

/* Queues a copy of the order. Gives a promise of its result, or -errno. */
static napi_value start(napi_env env, const struct job *order)
{
	struct job *job = malloc(sizeof(*job));
	napi_value promise, name;

	if (job == NULL)
		goto no_memory;
	*job = *order;
	if (napi_create_string_latin1(env, "weir-bpf", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_create_promise(env, &job->promise, &promise) != napi_ok ||
	    napi_create_async_work(env, NULL, name, execute, complete, job, &job->work) != napi_ok)
		goto no_memory;
	if (napi_queue_async_work(env, job->work) != napi_ok) {
		napi_delete_async_work(env, job->work);
		goto no_memory;
	}
	object_hold(job->object);
	job->object->jobs++;
	return promise;

no_memory:
	if (order->execute == attach)
		free(order->attachment);
	free(job);
	return give_int(env, -ENOMEM);
}

/* The object, when it can take a job; else the reason why not. */
static int read_free_object(napi_env env, napi_value value, struct object **object)
{
	*object = read_object(env, value);
	if (*object == NULL || (*object)->bpf == NULL)
		return -EBADF;
	return (*object)->jobs > 0 ? -EBUSY : 0;
}

/* (handle) → promise of 0 or -errno */
napi_value job_load_call(napi_env env, napi_callback_info info)
{
	struct job job = { .execute = load };
	napi_value argument;
	int error;

	if (!read_arguments(env, info, 1, &argument))
		return give_int(env, -EINVAL);
	error = read_free_object(env, argument, &job.object);
	if (error == 0 && job.object->loaded)
		error = -EALREADY;
	return error != 0 ? give_int(env, error) : start(env, &job);
}

/* (handle, program, how, ifIndex) → promise of a number above 0, which stands for the attachment, or -errno */
napi_value job_attach_call(napi_env env, napi_callback_info info)
{
	struct job job = { .execute = attach };
	napi_value arguments[4];
	int error;

	if (!read_arguments(env, info, 4, arguments) || !read_int(env, arguments[2], &job.how) ||
	    job.how < TRACING || job.how > TCX || !read_int(env, arguments[3], &job.if_index))
		return give_int(env, -EINVAL);
	error = read_free_object(env, arguments[0], &job.object);
	if (error != 0)
		return give_int(env, error);
	if (!job.object->loaded)
		return give_int(env, -EBADF);
	job.program = read_program(env, job.object, arguments[1]);
	if (job.program == NULL)
		return give_int(env, -ENOENT);
	job.attachment = calloc(1, sizeof(*job.attachment));
	if (job.attachment == NULL)
		return give_int(env, -ENOMEM);
	job.attachment->number = ++job.object->last_number;
	return start(env, &job);
}

/* (handle, number) → promise of 0 or -errno */
napi_value job_detach_call(napi_env env, napi_callback_info info)
{
	struct job job = { .execute = detach };
	napi_value arguments[2];
	int32_t number;
	int error;

	if (!read_arguments(env, info, 2, arguments) || !read_int(env, arguments[1], &number))
		return give_int(env, -EINVAL);
	error = read_free_object(env, arguments[0], &job.object);
	if (error != 0)
		return give_int(env, error);
	job.attachment = job.object->attachments;
	while (job.attachment != NULL && job.attachment->number != number)
		job.attachment = job.attachment->next;
	return job.attachment == NULL ? give_int(env, -ENOENT) : start(env, &job);
}

/* (handle) → promise of 0 or -errno; nothing can be done with the object after that */
napi_value job_close_call(napi_env env, napi_callback_info info)
{
	struct job job = { .execute = close_all };
	napi_value argument;
	int error;

	if (!read_arguments(env, info, 1, &argument))
		return give_int(env, -EINVAL);
	error = read_free_object(env, argument, &job.object);
	return error != 0 ? give_int(env, error) : start(env, &job);
}
