#pragma once

#include <curl/curl.h>

// curl's option calls are variadic, and Swift imports no variadic function: one typed shim for each kind of argument. No policy here.

typedef size_t (*ccurl_receiver)(char *bytes, size_t size, size_t count, void *context);

static inline CURLcode ccurl_set_long(CURL *easy, CURLoption option, long value) {
    return curl_easy_setopt(easy, option, value);
}

/// curl copies the string, except for CURLOPT_POSTFIELDS.
static inline CURLcode ccurl_set_string(CURL *easy, CURLoption option, const char *value) {
    return curl_easy_setopt(easy, option, value);
}

static inline CURLcode ccurl_set_pointer(CURL *easy, CURLoption option, void *value) {
    return curl_easy_setopt(easy, option, value);
}

static inline CURLcode ccurl_set_receiver(CURL *easy, CURLoption option, ccurl_receiver value) {
    return curl_easy_setopt(easy, option, value);
}

/// The version of the running library.
static inline const char *ccurl_version(void) {
    return curl_version_info(CURLVERSION_NOW)->version;
}

/// The file of certificate authorities that curl uses by default; NULL if it has none.
static inline const char *ccurl_authority_file(void) {
    return curl_version_info(CURLVERSION_NOW)->cainfo;
}

/// PEM certificates of authorities instead of those in curl's file; copied.
static inline CURLcode ccurl_set_authorities(CURL *easy, const void *bytes, size_t size) {
    struct curl_blob blob = {(void *)bytes, size, CURL_BLOB_COPY};
    return curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
}

static inline CURLcode ccurl_get_long(CURL *easy, CURLINFO info, long *value) {
    return curl_easy_getinfo(easy, info, value);
}

static inline CURLcode ccurl_get_offset(CURL *easy, CURLINFO info, curl_off_t *value) {
    return curl_easy_getinfo(easy, info, value);
}

static inline CURLMcode ccurl_multi_set_long(CURLM *multi, CURLMoption option, long value) {
    return curl_multi_setopt(multi, option, value);
}

static inline CURLcode ccurl_set_offset(CURL *easy, CURLoption option, curl_off_t value) {
    return curl_easy_setopt(easy, option, value);
}

/// What a sender returns to be called again after ccurl_resume, and to break the transfer off.
static inline size_t ccurl_send_pause_result(void) {
    return CURL_READFUNC_PAUSE;
}

static inline size_t ccurl_send_abort_result(void) {
    return CURL_READFUNC_ABORT;
}

/// Lets a paused transfer send and receive again. May call the transfer's receiver before it returns.
static inline CURLcode ccurl_resume(CURL *easy) {
    return curl_easy_pause(easy, CURLPAUSE_CONT);
}

/// What a receiver returns to be called again with the same bytes after ccurl_resume.
static inline size_t ccurl_pause_result(void) {
    return CURL_WRITEFUNC_PAUSE;
}
