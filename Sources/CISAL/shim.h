#pragma once

#include <isa-l.h>
#include <stddef.h>

// The state of ISA-L's inflate as untyped memory. Swift imports its tables as tuples of many thousand elements and emits 115 KB of code to
// copy and compare such values.

/// The size in bytes of the memory for a state.
static inline size_t cisal_inflate_size(void) {
    return sizeof(struct inflate_state);
}

static inline void cisal_inflate_init(void *state) {
    isal_inflate_init(state);
}

/// Prepares for the deflate data and the trailer of the next gzip member.
static inline void cisal_inflate_reset(void *state) {
    isal_inflate_reset(state);
    ((struct inflate_state *)state)->crc_flag = ISAL_GZIP_NO_HDR_VER;
}

/// isal_inflate. The counts are those of the bytes offered, and on return those that are left.
static inline int cisal_inflate(void *state, const void *input, uint32_t *input_count, void *output, uint32_t *output_count) {
    struct inflate_state *it = state;
    // ISA-L never writes through next_in; the field just lacks the const.
    it->next_in = (uint8_t *)input;
    it->avail_in = *input_count;
    it->next_out = output;
    it->avail_out = *output_count;
    int status = isal_inflate(it);
    *input_count = it->avail_in;
    *output_count = it->avail_out;
    return status;
}

/// Whether the member has ended.
static inline int cisal_inflate_has_ended(const void *state) {
    return ((const struct inflate_state *)state)->block_state == ISAL_BLOCK_FINISH;
}
