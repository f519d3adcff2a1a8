#pragma once

#include <zlib.h>

// deflateInit2 is a macro that passes the version of the header and the size of the structure, which Swift does not import.

/// Raw deflate: neither header nor trailer, the window 32 KiB.
static inline int czlib_raw_deflate_init(z_stream *stream, int level) {
    return deflateInit2(stream, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
}
