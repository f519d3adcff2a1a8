// The minimum for any store that verifies images and stores each file once: the floor that bench.py measures pulls against.
//
//   floor DIRECTORY BLOB…
//
// For all BLOBs (gzip layers) at the same time: hash the blob, inflate it, hash the archive, hash each file's content and write it, once, to a
// file named after its digest. At the end, one syncfs. Nothing else is kept: no names, no metadata, no inline data.
// Prints a line per layer: the blob's digest, the archive's digest, the number of files to store. Uses SHA-256 of OpenSSL and inflate of ISA-L,
// as the measured program does.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFERS = 8, BUFFER_SIZE = 256 << 10, BLOCK = 512, DIGEST_SIZE = 32, CONSUMERS = 2 };

// Composefs stores files up to this size in line, not as objects.
enum { INLINE_LIMIT = 64 };

static int store;

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("floor: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *must(void *memory) {
    if (memory == NULL) fail("out of memory");
    return memory;
}

static void hex(const unsigned char *digest, char *text) {
    for (int index = 0; index < DIGEST_SIZE; index++) sprintf(text + 2 * index, "%02x", digest[index]);
}

// Buffers from the inflating thread to the two consumers. A buffer is reused when both have finished with it.
struct ring {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned char *bytes[BUFFERS];
    size_t counts[BUFFERS];
    uint64_t filled, done[CONSUMERS];
    bool ended;
};

struct layer {
    const char *path;
    struct ring ring;
    pthread_t threads[1 + CONSUMERS];
    unsigned char blob_digest[DIGEST_SIZE], archive_digest[DIGEST_SIZE];
    uint64_t files;
};

static unsigned char *space(struct ring *ring) {
    pthread_mutex_lock(&ring->mutex);
    while (ring->filled - ring->done[0] == BUFFERS || ring->filled - ring->done[1] == BUFFERS)
        pthread_cond_wait(&ring->changed, &ring->mutex);
    pthread_mutex_unlock(&ring->mutex);
    return ring->bytes[ring->filled % BUFFERS];
}

static void fill(struct ring *ring, size_t count, bool last) {
    pthread_mutex_lock(&ring->mutex);
    if (count > 0) ring->counts[ring->filled++ % BUFFERS] = count;
    ring->ended = last;
    pthread_cond_broadcast(&ring->changed);
    pthread_mutex_unlock(&ring->mutex);
}

// The next buffer of a consumer, or NULL at the end.
static const unsigned char *next(struct ring *ring, int consumer, size_t *count) {
    const unsigned char *bytes = NULL;
    pthread_mutex_lock(&ring->mutex);
    while (ring->done[consumer] == ring->filled && !ring->ended) pthread_cond_wait(&ring->changed, &ring->mutex);
    if (ring->done[consumer] < ring->filled) {
        bytes = ring->bytes[ring->done[consumer] % BUFFERS];
        *count = ring->counts[ring->done[consumer] % BUFFERS];
    }
    pthread_mutex_unlock(&ring->mutex);
    return bytes;
}

static void release(struct ring *ring, int consumer) {
    pthread_mutex_lock(&ring->mutex);
    ring->done[consumer]++;
    pthread_cond_broadcast(&ring->changed);
    pthread_mutex_unlock(&ring->mutex);
}

static void *inflate_blob(void *argument) {
    struct layer *layer = argument;
    int file = open(layer->path, O_RDONLY | O_CLOEXEC);
    if (file < 0) fail("%s: %s", layer->path, strerror(errno));
    unsigned char *input = must(malloc(BUFFER_SIZE));
    EVP_MD_CTX *hash = must(EVP_MD_CTX_new());
    EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    struct inflate_state *state = must(malloc(sizeof *state));
    isal_inflate_init(state);
    state->crc_flag = ISAL_GZIP;
    state->avail_in = 0;
    bool at_end = false, inside = false;
    while (!at_end) {
        state->next_out = space(&layer->ring);
        state->avail_out = BUFFER_SIZE;
        while (state->avail_out > 0) {
            if (state->avail_in == 0) {
                ssize_t count = read(file, input, BUFFER_SIZE);
                if (count < 0) fail("%s: %s", layer->path, strerror(errno));
                if (count == 0) {
                    if (inside) fail("%s: the gzip stream is cut short", layer->path);
                    at_end = true;
                    break;
                }
                EVP_DigestUpdate(hash, input, count);
                state->next_in = input;
                state->avail_in = count;
            }
            inside = true;
            int result = isal_inflate(state);
            if (result != ISAL_DECOMP_OK) fail("%s: the gzip stream is damaged (%d)", layer->path, result);
            if (state->block_state == ISAL_BLOCK_FINISH) {
                // The next member, if there is one.
                isal_inflate_reset(state);
                state->crc_flag = ISAL_GZIP;
                inside = false;
            }
        }
        fill(&layer->ring, BUFFER_SIZE - state->avail_out, at_end);
    }
    EVP_DigestFinal_ex(hash, layer->blob_digest, NULL);
    EVP_MD_CTX_free(hash);
    free(state);
    free(input);
    close(file);
    return NULL;
}

static void *digest_archive(void *argument) {
    struct layer *layer = argument;
    EVP_MD_CTX *hash = must(EVP_MD_CTX_new());
    EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    const unsigned char *bytes;
    size_t count;
    while ((bytes = next(&layer->ring, 0, &count)) != NULL) {
        EVP_DigestUpdate(hash, bytes, count);
        release(&layer->ring, 0);
    }
    EVP_DigestFinal_ex(hash, layer->archive_digest, NULL);
    EVP_MD_CTX_free(hash);
    return NULL;
}

// The archive as one consumer reads it, buffer by buffer.
struct reader {
    struct ring *ring;
    const char *path;
    const unsigned char *bytes;
    size_t left;
};

// Copies `count` bytes to `target`, or skips them if it is NULL. False at the end of the archive.
static bool take(struct reader *reader, unsigned char *target, uint64_t count) {
    while (count > 0) {
        if (reader->left == 0) {
            if (reader->bytes != NULL) release(reader->ring, 1);
            reader->bytes = next(reader->ring, 1, &reader->left);
            if (reader->bytes == NULL) return false;
        }
        size_t part = count < reader->left ? count : reader->left;
        if (target != NULL) {
            memcpy(target, reader->bytes, part);
            target += part;
        }
        reader->bytes += part;
        reader->left -= part;
        count -= part;
    }
    return true;
}

static uint64_t number(const unsigned char *field, size_t count) {
    uint64_t value = 0;
    if (field[0] & 0x80) {
        for (size_t index = 1; index < count; index++) value = value << 8 | field[index];
        return value;
    }
    for (size_t index = 0; index < count; index++)
        if (field[index] >= '0' && field[index] <= '7') value = value << 3 | (uint64_t)(field[index] - '0');
    return value;
}

static void put(const unsigned char *content, size_t size) {
    unsigned char digest[DIGEST_SIZE];
    char text[2 * DIGEST_SIZE + 1], name[2 * DIGEST_SIZE + 2];
    EVP_Digest(content, size, digest, NULL, EVP_sha256(), NULL);
    hex(digest, text);
    snprintf(name, sizeof name, "%.2s/%s", text, text + 2);
    int file = openat(store, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0) {
        if (errno == EEXIST) return;
        fail("%s: %s", name, strerror(errno));
    }
    while (size > 0) {
        ssize_t count = write(file, content, size);
        if (count < 0) fail("%s: %s", name, strerror(errno));
        content += count;
        size -= count;
    }
    close(file);
}

static void *store_files(void *argument) {
    struct layer *layer = argument;
    struct reader reader = {.ring = &layer->ring, .path = layer->path};
    unsigned char header[BLOCK], *content = NULL;
    size_t room = 0;
    while (take(&reader, header, BLOCK)) {
        // Zeros between the entries and at the end.
        if (header[0] == 0) continue;
        uint64_t size = number(header + 124, 12), padding = -size % BLOCK;
        if (header[156] != '0' && header[156] != 0) {
            // Extended headers have content too. Links have a size in some archives, but no content.
            bool has_content = strchr("xgLK7", header[156]) != NULL;
            if (has_content && !take(&reader, NULL, size + padding)) fail("%s: the archive is cut short", layer->path);
            continue;
        }
        if (size > room) {
            free(content);
            content = must(malloc(size));
            room = size;
        }
        if (!take(&reader, content, size) || !take(&reader, NULL, padding)) fail("%s: the archive is cut short", layer->path);
        if (size <= INLINE_LIMIT) continue;
        layer->files++;
        put(content, size);
    }
    free(content);
    return NULL;
}

static void start(pthread_t *thread, void *(*body)(void *), struct layer *layer) {
    if (pthread_create(thread, NULL, body, layer) != 0) fail("cannot start a thread");
}

int main(int count, char **arguments) {
    if (count < 3) fail("usage: floor DIRECTORY BLOB…");
    if (mkdir(arguments[1], 0755) < 0 || (store = open(arguments[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        fail("%s: %s", arguments[1], strerror(errno));
    for (int index = 0; index < 256; index++) {
        char name[3];
        snprintf(name, sizeof name, "%02x", index);
        if (mkdirat(store, name, 0755) < 0) fail("%s: %s", name, strerror(errno));
    }
    int layers = count - 2;
    struct layer *all = must(calloc(layers, sizeof *all));
    for (int index = 0; index < layers; index++) {
        struct layer *layer = &all[index];
        layer->path = arguments[2 + index];
        pthread_mutex_init(&layer->ring.mutex, NULL);
        pthread_cond_init(&layer->ring.changed, NULL);
        for (int buffer = 0; buffer < BUFFERS; buffer++) layer->ring.bytes[buffer] = must(malloc(BUFFER_SIZE));
        start(&layer->threads[0], inflate_blob, layer);
        start(&layer->threads[1], digest_archive, layer);
        start(&layer->threads[2], store_files, layer);
    }
    for (int index = 0; index < layers; index++)
        for (int thread = 0; thread < 1 + CONSUMERS; thread++) pthread_join(all[index].threads[thread], NULL);
    if (syncfs(store) < 0) fail("%s: %s", arguments[1], strerror(errno));
    for (int index = 0; index < layers; index++) {
        char blob[2 * DIGEST_SIZE + 1], archive[2 * DIGEST_SIZE + 1];
        hex(all[index].blob_digest, blob);
        hex(all[index].archive_digest, archive);
        printf("sha256:%s sha256:%s %llu\n", blob, archive, (unsigned long long)all[index].files);
    }
    return 0;
}
