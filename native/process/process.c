/*
 * Giving up privileges for good.
 *
 * Capabilities and user ids belong to a thread, and by the time JavaScript runs Node.js has several. So the calling
 * thread alone gives up what it has and then runs the program anew: execve(2) ends the other threads, and what it
 * starts has the privileges of the thread that called it and no more.
 *
 * agent/kernel/privileges.ts decides what is kept.
 */
#define _GNU_SOURCE
#include "../arguments.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel's errno values end below this (MAX_ERRNO): a result tells the step that failed beside it. */
#define MOST_ERRNO 4095
#define LAST_CAPABILITY 63

/* Steps, as RUN_ANEW_STEPS in agent/kernel/privileges.ts names them. */
enum step { STEP_ARGUMENTS, STEP_USER, STEP_ROOT, STEP_CAPABILITIES, STEP_PROGRAM };

static int64_t failed(enum step step)
{
	return -(int64_t)(errno + step * (MOST_ERRNO + 1));
}

/*
 * The C library's own calls change all threads, by a signal to each; here one is enough, and the others must not run
 * with half of the change.
 */
static bool become_user(uint32_t user, uint32_t group)
{
	return prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0 && syscall(SYS_setgroups, 0, NULL) == 0 &&
	       syscall(SYS_setresgid, group, group, group) == 0 && syscall(SYS_setresuid, user, user, user) == 0;
}

/* From now on user 0 is a user like others: execve(2) gives it nothing (capabilities(7)). Needs CAP_SETPCAP. */
static bool disarm_root(void)
{
	return prctl(PR_SET_SECUREBITS,
		     SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED, 0, 0,
		     0) == 0;
}

static bool keep_capabilities(uint64_t kept)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		uint32_t word = kept >> (i * 32);

		data[i] = (struct __user_cap_data_struct){ .effective = word, .permitted = word, .inheritable = word };
	}
	if (syscall(SYS_capset, &header, data) != 0 || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
		return false;
	for (unsigned long i = 0; i <= LAST_CAPABILITY; i++) {
		if ((kept >> i & 1) != 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0) != 0)
			return false;
	}
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* Copies an array of strings for execve(2); NULL when it is none or memory is short. Never freed: execve follows. */
static char **read_strings(napi_env env, napi_value array)
{
	uint32_t count;
	char **strings;

	if (napi_get_array_length(env, array, &count) != napi_ok)
		return NULL;
	strings = calloc((size_t)count + 1, sizeof(*strings));
	for (uint32_t i = 0; strings != NULL && i < count; i++) {
		napi_value element;
		size_t bytes;

		if (napi_get_element(env, array, i, &element) != napi_ok ||
		    napi_get_value_string_utf8(env, element, NULL, 0, &bytes) != napi_ok)
			return NULL;
		strings[i] = malloc(bytes + 1);
		if (strings[i] == NULL ||
		    napi_get_value_string_utf8(env, element, strings[i], bytes + 1, &bytes) != napi_ok)
			return NULL;
	}
	return strings;
}

/*
 * runAnew(user, group, low, high, arguments, environment): keeps the capabilities whose bits are set in the two words
 * and runs /proc/self/exe with these arguments. `user` -1 leaves user and group as they are. Returns only when that
 * fails: minus the errno and 4096 times the step.
 */
static napi_value run_anew(napi_env env, napi_callback_info info)
{
	char **arguments, **environment;
	napi_value values[6];
	uint32_t low, high;
	int32_t user, group;
	uint64_t kept;

	if (!read_arguments(env, info, 6, values) || !read_int(env, values[0], &user) ||
	    !read_int(env, values[1], &group) || napi_get_value_uint32(env, values[2], &low) != napi_ok ||
	    napi_get_value_uint32(env, values[3], &high) != napi_ok ||
	    (arguments = read_strings(env, values[4])) == NULL ||
	    (environment = read_strings(env, values[5])) == NULL) {
		errno = EINVAL;
		return give_int(env, failed(STEP_ARGUMENTS));
	}
	kept = (uint64_t)high << 32 | low;
	/* What can never be had again. Needs CAP_SETPCAP, without which a program that is run can gain nothing either. */
	for (unsigned long i = 0; i <= LAST_CAPABILITY; i++) {
		if ((kept >> i & 1) == 0)
			prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	}
	if (user >= 0) {
		if (!become_user(user, group))
			return give_int(env, failed(STEP_USER));
	} else if (geteuid() == 0 && !disarm_root()) {
		return give_int(env, failed(STEP_ROOT));
	}
	if (!keep_capabilities(kept))
		return give_int(env, failed(STEP_CAPABILITIES));
	/* Node.js marks every descriptor that it was given, and these three are what the next one needs of them. */
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		fcntl(fd, F_SETFD, 0);
	execve("/proc/self/exe", arguments, environment);
	return give_int(env, failed(STEP_PROGRAM));
}

NAPI_MODULE_INIT()
{
	napi_value function;

	if (napi_create_function(env, "runAnew", NAPI_AUTO_LENGTH, run_anew, NULL, &function) != napi_ok ||
	    napi_set_named_property(env, exports, "runAnew", function) != napi_ok)
		return NULL;
	return exports;
}
