#include "CCurl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

// The name has had this number since 2006: an incompatible libcurl would have another.
#define LIBRARY "libcurl.so.4"

#define FUNCTIONS(F)                                                                                                                           \
    F(curl_global_init)                                                                                                                        \
    F(curl_version_info)                                                                                                                       \
    F(curl_getdate)                                                                                                                            \
    F(curl_free)                                                                                                                               \
    F(curl_slist_append)                                                                                                                       \
    F(curl_slist_free_all)                                                                                                                     \
    F(curl_easy_init)                                                                                                                          \
    F(curl_easy_cleanup)                                                                                                                       \
    F(curl_easy_reset)                                                                                                                         \
    F(curl_easy_setopt)                                                                                                                        \
    F(curl_easy_getinfo)                                                                                                                       \
    F(curl_easy_pause)                                                                                                                         \
    F(curl_easy_strerror)                                                                                                                      \
    F(curl_multi_init)                                                                                                                         \
    F(curl_multi_cleanup)                                                                                                                      \
    F(curl_multi_setopt)                                                                                                                       \
    F(curl_multi_add_handle)                                                                                                                   \
    F(curl_multi_remove_handle)                                                                                                                \
    F(curl_multi_perform)                                                                                                                      \
    F(curl_multi_poll)                                                                                                                         \
    F(curl_multi_wakeup)                                                                                                                       \
    F(curl_multi_info_read)                                                                                                                    \
    F(curl_url)                                                                                                                                \
    F(curl_url_cleanup)                                                                                                                        \
    F(curl_url_set)                                                                                                                            \
    F(curl_url_get)

// Each member has the name and the type of its function. Some names are macros with arguments, too: calls are written (library.name)(…).
static struct {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
#undef MEMBER
} library;

static char failure[512];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    // All symbols at once: one that the library lacks is an error here, and does not end the process later. The library is never unloaded.
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (handle != NULL) {
        int found = 1;
#define FIND(name) found = found && (*(void **)&library.name = dlsym(handle, #name)) != NULL;
        FUNCTIONS(FIND)
#undef FIND
        if (found) return;
    }
    const char *text = dlerror();
    snprintf(failure, sizeof failure, "%s", text != NULL && *text != 0 ? text : LIBRARY " cannot be loaded");
}

const char *ccurl_load(void) {
    pthread_once(&once, load);
    return failure[0] != 0 ? failure : NULL;
}

CURLcode ccurl_global_init(long flags) {
    return ccurl_load() == NULL ? (library.curl_global_init)(flags) : CURLE_FAILED_INIT;
}

CURL *ccurl_easy_init(void) {
    return ccurl_load() == NULL ? (library.curl_easy_init)() : NULL;
}

CURLM *ccurl_multi_init(void) {
    return ccurl_load() == NULL ? (library.curl_multi_init)() : NULL;
}

CURLU *ccurl_url(void) {
    return ccurl_load() == NULL ? (library.curl_url)() : NULL;
}

struct curl_slist *ccurl_slist_append(struct curl_slist *list, const char *text) {
    return ccurl_load() == NULL ? (library.curl_slist_append)(list, text) : NULL;
}

time_t ccurl_getdate(const char *text) {
    return ccurl_load() == NULL ? (library.curl_getdate)(text, NULL) : -1;
}

const char *ccurl_easy_strerror(CURLcode code) {
    return ccurl_load() == NULL ? (library.curl_easy_strerror)(code) : NULL;
}

const char *ccurl_version(void) {
    return ccurl_load() == NULL ? (library.curl_version_info)(CURLVERSION_NOW)->version : NULL;
}

const char *ccurl_authority_file(void) {
    return ccurl_load() == NULL ? (library.curl_version_info)(CURLVERSION_NOW)->cainfo : NULL;
}

void ccurl_slist_free_all(struct curl_slist *list) {
    if (list != NULL) (library.curl_slist_free_all)(list);
}

void ccurl_free(void *text) {
    (library.curl_free)(text);
}

void ccurl_easy_cleanup(CURL *easy) {
    (library.curl_easy_cleanup)(easy);
}

void ccurl_easy_reset(CURL *easy) {
    (library.curl_easy_reset)(easy);
}

CURLcode ccurl_set_long(CURL *easy, CURLoption option, long value) {
    return (library.curl_easy_setopt)(easy, option, value);
}

CURLcode ccurl_set_offset(CURL *easy, CURLoption option, curl_off_t value) {
    return (library.curl_easy_setopt)(easy, option, value);
}

CURLcode ccurl_set_string(CURL *easy, CURLoption option, const char *value) {
    return (library.curl_easy_setopt)(easy, option, value);
}

CURLcode ccurl_set_pointer(CURL *easy, CURLoption option, void *value) {
    return (library.curl_easy_setopt)(easy, option, value);
}

CURLcode ccurl_set_receiver(CURL *easy, CURLoption option, ccurl_receiver value) {
    return (library.curl_easy_setopt)(easy, option, value);
}

CURLcode ccurl_set_authorities(CURL *easy, const void *bytes, size_t size) {
    struct curl_blob blob = {(void *)bytes, size, CURL_BLOB_COPY};
    return (library.curl_easy_setopt)(easy, CURLOPT_CAINFO_BLOB, &blob);
}

CURLcode ccurl_get_long(CURL *easy, CURLINFO info, long *value) {
    return (library.curl_easy_getinfo)(easy, info, value);
}

CURLcode ccurl_get_offset(CURL *easy, CURLINFO info, curl_off_t *value) {
    return (library.curl_easy_getinfo)(easy, info, value);
}

CURLcode ccurl_resume(CURL *easy) {
    return (library.curl_easy_pause)(easy, CURLPAUSE_CONT);
}

void ccurl_multi_cleanup(CURLM *multi) {
    (library.curl_multi_cleanup)(multi);
}

CURLMcode ccurl_multi_set_long(CURLM *multi, CURLMoption option, long value) {
    return (library.curl_multi_setopt)(multi, option, value);
}

CURLMcode ccurl_multi_add_handle(CURLM *multi, CURL *easy) {
    return (library.curl_multi_add_handle)(multi, easy);
}

CURLMcode ccurl_multi_remove_handle(CURLM *multi, CURL *easy) {
    return (library.curl_multi_remove_handle)(multi, easy);
}

CURLMcode ccurl_multi_perform(CURLM *multi, int *running) {
    return (library.curl_multi_perform)(multi, running);
}

CURLMcode ccurl_multi_poll(CURLM *multi, int milliseconds) {
    return (library.curl_multi_poll)(multi, NULL, 0, milliseconds, NULL);
}

CURLMcode ccurl_multi_wakeup(CURLM *multi) {
    return (library.curl_multi_wakeup)(multi);
}

CURLMsg *ccurl_multi_info_read(CURLM *multi, int *left) {
    return (library.curl_multi_info_read)(multi, left);
}

void ccurl_url_cleanup(CURLU *url) {
    (library.curl_url_cleanup)(url);
}

CURLUcode ccurl_url_set(CURLU *url, CURLUPart part, const char *text, unsigned flags) {
    return (library.curl_url_set)(url, part, text, flags);
}

CURLUcode ccurl_url_get(CURLU *url, CURLUPart part, char **text, unsigned flags) {
    return (library.curl_url_get)(url, part, text, flags);
}
