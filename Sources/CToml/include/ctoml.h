#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A TOML 1.0 document as a walk through its values: toml++ behind a C interface, as Swift imports no C++ here. No policy.

enum ctoml_kind {
    ctoml_table_begin,
    ctoml_table_end,
    ctoml_array_begin,
    ctoml_array_end,
    ctoml_string,
    ctoml_integer,
    ctoml_boolean,
    /// Floats, dates and times.
    ctoml_other,
};

struct ctoml_event {
    int kind;
    /// Where the value begins, from 1; 0 where unknown.
    uint32_t line;
    /// The value's key where it is in a table, not terminated. Tables give their members in the keys' order.
    const char *key;
    size_t key_size;
    /// Of a string, UTF-8, not terminated. NUL bytes may occur.
    const char *text;
    size_t text_size;
    /// Of an integer; 0 or 1 of a boolean.
    int64_t integer;
};

/// Called once for each value, tables and arrays at both ends, the root table included. Must not throw.
typedef void (*ctoml_receiver)(const struct ctoml_event *event, void *context);

/// Parses all of it, then walks it. Arrays and inline tables nest at most 8 deep; tables made of dotted keys are as deep as their keys.
/// Returns 0; or the line of the first mistake (1 where that is unknown), with the reason in `message`, terminated and cut at `message_size`.
uint32_t ctoml_parse(const char *bytes, size_t size, ctoml_receiver receiver, void *context, char *message, size_t message_size);

#ifdef __cplusplus
}
#endif
