#pragma once

/// The size of a block in bytes: that of the Merkle trees of fs-verity.
#define CSHA2_BLOCK 4096

/// How many blocks `csha2_blocks_256` can hash at a time; 0 if the processor has no suitable instructions.
int csha2_lanes_256(void);

/// How many blocks `csha2_blocks_512` can hash at a time; 0 if the processor has no suitable instructions.
int csha2_lanes_512(void);

/// Computes the SHA-256 of each of several consecutive blocks: `count` is from 1 to `csha2_lanes_256()`, and `digests` has room for 32 bytes each.
void csha2_blocks_256(const void *_Nonnull blocks, int count, void *_Nonnull digests);

/// Computes the SHA-512 of each of several consecutive blocks: `count` is from 1 to `csha2_lanes_512()`, and `digests` has room for 64 bytes each.
void csha2_blocks_512(const void *_Nonnull blocks, int count, void *_Nonnull digests);
