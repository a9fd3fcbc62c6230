/* Reading arguments and giving results, for all addons. False: an argument has not the type the caller relies on. */
#ifndef WEIR_ARGUMENTS_H
#define WEIR_ARGUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAPI_VERSION 9
#include <node_api.h>

static inline bool read_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *arguments)
{
	size_t given = count;

	return napi_get_cb_info(env, info, &given, arguments, NULL, NULL) == napi_ok && given == count;
}

static inline bool read_int(napi_env env, napi_value value, int32_t *result)
{
	return napi_get_value_int32(env, value, result) == napi_ok;
}

static inline bool read_bytes(napi_env env, napi_value value, void **data, size_t *length)
{
	napi_typedarray_type type;

	if (napi_get_typedarray_info(env, value, &type, length, data, NULL, NULL) != napi_ok)
		return false;
	return type == napi_uint8_array;
}

static inline napi_value give_int(napi_env env, int64_t number)
{
	napi_value value = NULL;

	napi_create_int64(env, number, &value);
	return value;
}

#endif
