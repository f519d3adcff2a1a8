// libcurl, loaded when it is first used: its forty libraries cost a program that needs no network most of its start. The types and constants are
// those of <curl/curl.h>; the functions are found by name in libcurl.so.4.
//
// Functions that begin with ccurl_ are those of libcurl without the c, except where a comment says otherwise. curl's option calls are variadic, and
// Swift imports no variadic function: there is one typed function for each kind of argument. No policy here.
//
// Any thread may call any function at any time. Functions without a handle load the library, and return their failure value if it cannot be
// loaded. Functions with a handle expect one of this module.
#ifndef CCURL_H
#define CCURL_H

#include <curl/curl.h>

/// Loads the library unless it is loaded. Returns NULL, or why it cannot be loaded: the text of dlerror(3), which lives forever.
const char *ccurl_load(void);

typedef size_t (*ccurl_receiver)(char *bytes, size_t size, size_t count, void *context);

// Without a handle.

CURLcode ccurl_global_init(long flags);
CURL *ccurl_easy_init(void);
CURLM *ccurl_multi_init(void);
CURLU *ccurl_url(void);
struct curl_slist *ccurl_slist_append(struct curl_slist *list, const char *text);
time_t ccurl_getdate(const char *text);
/// Static text; NULL if the library cannot be loaded.
const char *ccurl_easy_strerror(CURLcode code);
/// The version of the running library; NULL if it cannot be loaded.
const char *ccurl_version(void);
/// The file of certificate authorities that curl uses by default; NULL if it has none.
const char *ccurl_authority_file(void);

// Lists and texts of the library.

void ccurl_slist_free_all(struct curl_slist *list);
void ccurl_free(void *text);

// Transfers.

void ccurl_easy_cleanup(CURL *easy);
void ccurl_easy_reset(CURL *easy);
CURLcode ccurl_set_long(CURL *easy, CURLoption option, long value);
CURLcode ccurl_set_offset(CURL *easy, CURLoption option, curl_off_t value);
/// curl copies the string, except for CURLOPT_POSTFIELDS.
CURLcode ccurl_set_string(CURL *easy, CURLoption option, const char *value);
CURLcode ccurl_set_pointer(CURL *easy, CURLoption option, void *value);
CURLcode ccurl_set_receiver(CURL *easy, CURLoption option, ccurl_receiver value);
/// PEM certificates of authorities instead of those in curl's file; copied.
CURLcode ccurl_set_authorities(CURL *easy, const void *bytes, size_t size);
CURLcode ccurl_get_long(CURL *easy, CURLINFO info, long *value);
CURLcode ccurl_get_offset(CURL *easy, CURLINFO info, curl_off_t *value);
/// Lets a paused transfer send and receive again. May call the transfer's receiver before it returns.
CURLcode ccurl_resume(CURL *easy);

/// What a receiver returns to be called again with the same bytes after ccurl_resume.
static inline size_t ccurl_pause_result(void) {
    return CURL_WRITEFUNC_PAUSE;
}

/// What a sender returns to be called again after ccurl_resume, and to break the transfer off.
static inline size_t ccurl_send_pause_result(void) {
    return CURL_READFUNC_PAUSE;
}

static inline size_t ccurl_send_abort_result(void) {
    return CURL_READFUNC_ABORT;
}

// Groups of transfers.

void ccurl_multi_cleanup(CURLM *multi);
CURLMcode ccurl_multi_set_long(CURLM *multi, CURLMoption option, long value);
CURLMcode ccurl_multi_add_handle(CURLM *multi, CURL *easy);
CURLMcode ccurl_multi_remove_handle(CURLM *multi, CURL *easy);
CURLMcode ccurl_multi_perform(CURLM *multi, int *running);
/// Without descriptors of the caller.
CURLMcode ccurl_multi_poll(CURLM *multi, int milliseconds);
CURLMcode ccurl_multi_wakeup(CURLM *multi);
CURLMsg *ccurl_multi_info_read(CURLM *multi, int *left);

// URLs.

void ccurl_url_cleanup(CURLU *url);
CURLUcode ccurl_url_set(CURLU *url, CURLUPart part, const char *text, unsigned flags);
CURLUcode ccurl_url_get(CURLU *url, CURLUPart part, char **text, unsigned flags);

#endif
