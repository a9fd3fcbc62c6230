/*
 * NVIDIA's management library, loaded and asked on threads of their own: it talks to a driver that may take its time, or
 * never answer. Such a thread is left behind; those of Node.js's pool would keep the process from ending.
 *
 * The functions and structures are those of nvml.h since version 11; agent/counters/gpus.ts decides what becomes of the
 * figures.
 */
#define _GNU_SOURCE
#include "../arguments.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NVML_SUCCESS 0
#define NVML_ERROR_INSUFFICIENT_SIZE 7
#define NVML_MEMORY_ERROR_UNCORRECTED 1
#define NVML_AGGREGATE_ECC 1
#define NVML_TEMPERATURE_GPU 0
#define MOST_DEVICES 64

/* Words of a device, as GPU_WORDS in agent/counters/gpus.ts names them; the first has a bit for each that is known. */
enum word { KNOWN, GPU_BUSY, MEMORY_BUSY, MEMORY_TOTAL, MEMORY_FREE, ECC_ERRORS, ENERGY, POWER, TEMPERATURE, FAN, PROCESSES, WORDS };

typedef void *device_t;

struct nvml {
	int (*init)(void);
	int (*count)(unsigned *count);
	int (*handle)(unsigned index, device_t *device);
	int (*utilization)(device_t device, unsigned rates[2]);
	int (*memory)(device_t device, unsigned long long total_free_used[3]);
	int (*ecc)(device_t device, int error, int counter, unsigned long long *count);
	int (*energy)(device_t device, unsigned long long *millijoules);
	int (*power)(device_t device, unsigned *milliwatts);
	int (*temperature)(device_t device, int sensor, unsigned *celsius);
	int (*fan)(device_t device, unsigned *percent);
	int (*processes)(device_t device, unsigned *count, void *infos);
};

struct job {
	napi_deferred deferred;
	napi_threadsafe_function done;
	void (*run)(struct job *job);
	struct nvml *nvml;
	char *path;
	/* What came of it: text of an error, else devices. */
	char error[256];
	unsigned devices;
	uint64_t words[MOST_DEVICES][WORDS];
};

/* The second name is for libraries that have not got the first. False when neither is there. */
static bool find(void *library, void *function, const char *name, const char *older)
{
	void *symbol = dlsym(library, name);

	if (symbol == NULL && older != NULL)
		symbol = dlsym(library, older);
	memcpy(function, &symbol, sizeof(symbol));
	return symbol != NULL;
}

static void load(struct job *job)
{
	void *library = dlopen(job->path, RTLD_NOW | RTLD_LOCAL);
	struct nvml *nvml = job->nvml;
	int result;

	if (library == NULL) {
		strncpy(job->error, dlerror(), sizeof(job->error) - 1);
		return;
	}
	if (!find(library, &nvml->init, "nvmlInit_v2", "nvmlInit") ||
	    !find(library, &nvml->count, "nvmlDeviceGetCount_v2", "nvmlDeviceGetCount") ||
	    !find(library, &nvml->handle, "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex")) {
		snprintf(job->error, sizeof(job->error), "%s: not a library of NVIDIA's management interface", job->path);
		dlclose(library);
		return;
	}
	/* Any of these may be missing: then its figure is not known. */
	find(library, &nvml->utilization, "nvmlDeviceGetUtilizationRates", NULL);
	find(library, &nvml->memory, "nvmlDeviceGetMemoryInfo", NULL);
	find(library, &nvml->ecc, "nvmlDeviceGetTotalEccErrors", NULL);
	find(library, &nvml->energy, "nvmlDeviceGetTotalEnergyConsumption", NULL);
	find(library, &nvml->power, "nvmlDeviceGetPowerUsage", NULL);
	find(library, &nvml->temperature, "nvmlDeviceGetTemperature", NULL);
	find(library, &nvml->fan, "nvmlDeviceGetFanSpeed", NULL);
	find(library, &nvml->processes, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses");
	result = nvml->init();
	if (result != NVML_SUCCESS)
		snprintf(job->error, sizeof(job->error), "%s: nvmlInit: error %d", job->path, result);
}

static void keep(uint64_t *words, enum word word, uint64_t value)
{
	words[KNOWN] |= UINT64_C(1) << word;
	words[word] = value;
}

static void read_device(const struct nvml *nvml, device_t device, uint64_t *words)
{
	unsigned long long memory[3], number;
	unsigned rates[2], count;

	if (nvml->utilization != NULL && nvml->utilization(device, rates) == NVML_SUCCESS) {
		keep(words, GPU_BUSY, rates[0]);
		keep(words, MEMORY_BUSY, rates[1]);
	}
	if (nvml->memory != NULL && nvml->memory(device, memory) == NVML_SUCCESS) {
		keep(words, MEMORY_TOTAL, memory[0]);
		keep(words, MEMORY_FREE, memory[1]);
	}
	if (nvml->ecc != NULL &&
	    nvml->ecc(device, NVML_MEMORY_ERROR_UNCORRECTED, NVML_AGGREGATE_ECC, &number) == NVML_SUCCESS)
		keep(words, ECC_ERRORS, number);
	if (nvml->energy != NULL && nvml->energy(device, &number) == NVML_SUCCESS)
		keep(words, ENERGY, number);
	if (nvml->power != NULL && nvml->power(device, &count) == NVML_SUCCESS)
		keep(words, POWER, count);
	if (nvml->temperature != NULL && nvml->temperature(device, NVML_TEMPERATURE_GPU, &count) == NVML_SUCCESS)
		keep(words, TEMPERATURE, count);
	if (nvml->fan != NULL && nvml->fan(device, &count) == NVML_SUCCESS)
		keep(words, FAN, count);
	if (nvml->processes != NULL) {
		int result;

		/* Without room for any it tells how many there are. */
		count = 0;
		result = nvml->processes(device, &count, NULL);
		if (result == NVML_SUCCESS || result == NVML_ERROR_INSUFFICIENT_SIZE)
			keep(words, PROCESSES, count);
	}
}

static void read_devices(struct job *job)
{
	const struct nvml *nvml = job->nvml;
	int result = nvml->count(&job->devices);

	if (result != NVML_SUCCESS) {
		snprintf(job->error, sizeof(job->error), "nvmlDeviceGetCount: error %d", result);
		return;
	}
	if (job->devices > MOST_DEVICES)
		job->devices = MOST_DEVICES;
	for (unsigned i = 0; i < job->devices; i++) {
		device_t device;

		if (nvml->handle(i, &device) == NVML_SUCCESS)
			read_device(nvml, device, job->words[i]);
	}
}

static void *thread_main(void *data)
{
	struct job *job = data;
	napi_threadsafe_function done = job->done;

	job->run(job);
	/* Refused when the environment has ended meanwhile: nobody waits, and the job is nobody's. */
	if (napi_call_threadsafe_function(done, job, napi_tsfn_nonblocking) == napi_ok)
		napi_release_threadsafe_function(done, napi_tsfn_release);
	return NULL;
}

static void free_job(struct job *job)
{
	free(job->path);
	free(job);
}

/* On the main thread. An error is text; devices are their words; a library loaded is `true`. */
static void job_done(napi_env env, napi_value callback, void *context, void *data)
{
	struct job *job = data;
	napi_value result = NULL;
	void *bytes;

	(void)callback;
	(void)context;
	if (env != NULL) {
		if (job->error[0] != '\0') {
			napi_create_string_utf8(env, job->error, NAPI_AUTO_LENGTH, &result);
		} else if (job->run == load) {
			napi_get_boolean(env, true, &result);
		} else if (napi_create_arraybuffer(env, job->devices * sizeof(job->words[0]), &bytes, &result) == napi_ok &&
			   job->devices > 0) {
			memcpy(bytes, job->words, job->devices * sizeof(job->words[0]));
		}
		napi_resolve_deferred(env, job->deferred, result);
	}
	free_job(job);
}

/* Gives a promise, or undefined when there is no memory or thread for it. */
static napi_value start(napi_env env, struct nvml *nvml, void (*run)(struct job *job), char *path)
{
	struct job *job = calloc(1, sizeof(*job));
	napi_value name, promise = NULL;
	pthread_attr_t attributes;
	pthread_t thread;

	if (job == NULL) {
		free(path);
		return NULL;
	}
	job->nvml = nvml;
	job->run = run;
	job->path = path;
	if (napi_create_string_latin1(env, "weir-nvml", NAPI_AUTO_LENGTH, &name) != napi_ok ||
	    napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, NULL, NULL, job_done, &job->done) != napi_ok) {
		free_job(job);
		return NULL;
	}
	/* A library that never answers does not keep the process. */
	napi_unref_threadsafe_function(env, job->done);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (napi_create_promise(env, &job->deferred, &promise) != napi_ok ||
	    pthread_create(&thread, &attributes, thread_main, job) != 0) {
		napi_release_threadsafe_function(job->done, napi_tsfn_abort);
		free_job(job);
		promise = NULL;
	}
	pthread_attr_destroy(&attributes);
	return promise;
}

/* load(path) → promise of true or the text of an error. The library stays loaded until the process ends. */
static napi_value load_call(napi_env env, napi_callback_info info)
{
	napi_value arguments[1];
	struct nvml *nvml;
	size_t length;
	char *path;

	if (!read_arguments(env, info, 1, arguments) ||
	    napi_get_value_string_utf8(env, arguments[0], NULL, 0, &length) != napi_ok ||
	    napi_get_instance_data(env, (void **)&nvml) != napi_ok)
		return NULL;
	path = malloc(length + 1);
	if (path == NULL)
		return NULL;
	napi_get_value_string_utf8(env, arguments[0], path, length + 1, &length);
	return start(env, nvml, load, path);
}

/* read() → promise of an ArrayBuffer with the words of each device, or the text of an error. Only after load(). */
static napi_value read_call(napi_env env, napi_callback_info info)
{
	struct nvml *nvml;

	(void)info;
	if (napi_get_instance_data(env, (void **)&nvml) != napi_ok || nvml->count == NULL)
		return NULL;
	return start(env, nvml, read_devices, NULL);
}

/* Node.js unloads an addon with the last worker that used it; threads that were left behind still run in this one. */
static bool stay_loaded(void)
{
	Dl_info self;

	return dladdr((void *)thread_main, &self) != 0 &&
	       dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE) != NULL;
}

NAPI_MODULE_INIT()
{
	static const struct {
		const char *name;
		napi_callback call;
	} functions[] = { { "load", load_call }, { "read", read_call } };
	/* Never freed: a thread that was left behind may still use it. */
	struct nvml *nvml = calloc(1, sizeof(*nvml));
	napi_value function;

	if (nvml == NULL || !stay_loaded() || napi_set_instance_data(env, nvml, NULL, NULL) != napi_ok)
		return NULL;
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL, &function) !=
			    napi_ok ||
		    napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
			return NULL;
	}
	return exports;
}
