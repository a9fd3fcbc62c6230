/*
 * A stand-in for libnvidia-ml.so.1 with the functions that weir uses, by the types of nvml.h. Two devices; the second is
 * of an older kind that cannot tell its energy and has no fan. What it does is set when it is compiled:
 *
 *     -DINIT_RESULT=9    nvmlInit fails
 *     -DHANG_INIT        nvmlInit never returns
 *     -DHANG_READ        a figure of a device never comes
 *     -DLOST             the second device is lost after the first look
 *     -DNO_COUNT         a symbol is missing that is needed
 *     -DBARE             every symbol is missing that is not needed
 *     -DNONE             no devices
 *     -DNONSENSE         busy for more than all of the time, more devices than there can be
 */
#include <unistd.h>

#ifndef INIT_RESULT
#define INIT_RESULT 0
#endif

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };

typedef struct device {
	unsigned index;
} *nvmlDevice_t;
typedef struct {
	unsigned gpu, memory;
} nvmlUtilization_t;
typedef struct {
	unsigned long long total, free, used;
} nvmlMemory_t;

static struct device devices[2] = { { 0 }, { 1 } };
static int looks;

static int lost(nvmlDevice_t device)
{
#ifdef LOST
	return device->index == 1 && looks > 1;
#else
	(void)device;
	return 0;
#endif
}

static void forever(void)
{
	for (;;)
		sleep(1000);
}

int nvmlInit_v2(void)
{
#ifdef HANG_INIT
	forever();
#endif
	return INIT_RESULT;
}

#ifndef NO_COUNT
int nvmlDeviceGetCount_v2(unsigned *count)
{
	looks++;
#ifdef NONE
	*count = 0;
#elif defined(NONSENSE)
	*count = 4000000000u;
#else
	*count = 2;
#endif
	return SUCCESS;
}
#endif

int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
	if (index > 1)
		return NOT_SUPPORTED;
	*device = &devices[index];
	return SUCCESS;
}

#ifndef BARE
int nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
	if (lost(device))
		return GPU_IS_LOST;
#ifdef HANG_READ
	forever();
#endif
#ifdef NONSENSE
	rates->gpu = rates->memory = 1000;
#else
	rates->gpu = device->index == 0 ? 100 : 50;
	rates->memory = device->index == 0 ? 20 : 5;
#endif
	return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	if (lost(device))
		return GPU_IS_LOST;
	memory->total = 80ull << 30;
	memory->free = (device->index == 0 ? 30ull : 50ull) << 30;
	memory->used = memory->total - memory->free;
	return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, int error, int counter, unsigned long long *count)
{
	/* Uncorrected, over the life of the device. */
	if (error != 1 || counter != 1 || lost(device))
		return NOT_SUPPORTED;
	*count = 3 + device->index;
	return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
	if (device->index == 1)
		return NOT_SUPPORTED;
	*millijoules = 0x100000000ull + 5000;
	return SUCCESS;
}

int nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts)
{
	(void)device;
	*milliwatts = 200000;
	return SUCCESS;
}

int nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius)
{
	if (sensor != 0)
		return NOT_SUPPORTED;
	*celsius = device->index == 0 ? 61 : 74;
	return SUCCESS;
}

int nvmlDeviceGetFanSpeed(nvmlDevice_t device, unsigned *percent)
{
	if (device->index == 1)
		return NOT_SUPPORTED;
	*percent = 42;
	return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count, void *infos)
{
	unsigned running = device->index == 0 ? 0 : 3;
	int result = *count < running ? INSUFFICIENT_SIZE : SUCCESS;

	(void)infos;
	*count = running;
	return result;
}
#endif
