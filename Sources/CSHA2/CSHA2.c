// SHA-256 and SHA-512 (FIPS 180-4) of several blocks of one size at a time, each in a lane of AVX-512 registers.
#include "CSHA2.h"

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>

/// The first 64 bits of the fractional parts of the cube roots of the first 80 primes (FIPS 180-4, 4.2.3); SHA-256 uses the first 32 bits (4.2.2).
static const uint64_t roots[80] = {
    0x428a2f98d728ae22, 0x7137449123ef65cd, 0xb5c0fbcfec4d3b2f, 0xe9b5dba58189dbbc,
    0x3956c25bf348b538, 0x59f111f1b605d019, 0x923f82a4af194f9b, 0xab1c5ed5da6d8118,
    0xd807aa98a3030242, 0x12835b0145706fbe, 0x243185be4ee4b28c, 0x550c7dc3d5ffb4e2,
    0x72be5d74f27b896f, 0x80deb1fe3b1696b1, 0x9bdc06a725c71235, 0xc19bf174cf692694,
    0xe49b69c19ef14ad2, 0xefbe4786384f25e3, 0x0fc19dc68b8cd5b5, 0x240ca1cc77ac9c65,
    0x2de92c6f592b0275, 0x4a7484aa6ea6e483, 0x5cb0a9dcbd41fbd4, 0x76f988da831153b5,
    0x983e5152ee66dfab, 0xa831c66d2db43210, 0xb00327c898fb213f, 0xbf597fc7beef0ee4,
    0xc6e00bf33da88fc2, 0xd5a79147930aa725, 0x06ca6351e003826f, 0x142929670a0e6e70,
    0x27b70a8546d22ffc, 0x2e1b21385c26c926, 0x4d2c6dfc5ac42aed, 0x53380d139d95b3df,
    0x650a73548baf63de, 0x766a0abb3c77b2a8, 0x81c2c92e47edaee6, 0x92722c851482353b,
    0xa2bfe8a14cf10364, 0xa81a664bbc423001, 0xc24b8b70d0f89791, 0xc76c51a30654be30,
    0xd192e819d6ef5218, 0xd69906245565a910, 0xf40e35855771202a, 0x106aa07032bbd1b8,
    0x19a4c116b8d2d0c8, 0x1e376c085141ab53, 0x2748774cdf8eeb99, 0x34b0bcb5e19b48a8,
    0x391c0cb3c5c95a63, 0x4ed8aa4ae3418acb, 0x5b9cca4f7763e373, 0x682e6ff3d6b2b8a3,
    0x748f82ee5defb2fc, 0x78a5636f43172f60, 0x84c87814a1f0ab72, 0x8cc702081a6439ec,
    0x90befffa23631e28, 0xa4506cebde82bde9, 0xbef9a3f7b2c67915, 0xc67178f2e372532b,
    0xca273eceea26619c, 0xd186b8c721c0c207, 0xeada7dd6cde0eb1e, 0xf57d4f7fee6ed178,
    0x06f067aa72176fba, 0x0a637dc5a2c898a6, 0x113f9804bef90dae, 0x1b710b35131c471b,
    0x28db77f523047d84, 0x32caab7b40c72493, 0x3c9ebe0a15c9bebc, 0x431d67c49c100d4c,
    0x4cc5d4becb3e42b6, 0x597f299cfc657e2a, 0x5fcb6fab3ad6faec, 0x6c44198c4a475817,
};

/// The first 64 bits of the fractional parts of the square roots of the first 8 primes (5.3.5); SHA-256 uses the first 32 bits (5.3.3).
static const uint64_t initial[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};

#define WIDE __attribute__((target("avx512f,avx512bw")))
#define INLINE static inline __attribute__((always_inline)) WIDE

/// Also asks whether the kernel keeps these registers.
static int has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

int csha2_lanes_256(void) { return has_avx512() ? 16 : 0; }
int csha2_lanes_512(void) { return has_avx512() ? 8 : 0; }

// In what follows, `is512` is a constant: it selects words of 64 bits and SHA-512, or words of 32 bits and SHA-256.

/// Changes the byte order of each word.
INLINE __m512i swapped(int is512, __m512i x) {
    return _mm512_shuffle_epi8(
        x, is512 ? _mm512_set4_epi32(0x08090a0b, 0x0c0d0e0f, 0x00010203, 0x04050607)
                 : _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203));
}

/// Reads 64 bytes of each lane, and transposes them: `w[j]` holds word `j` of all lanes. `lanes[i]` is the beginning of lane `i`'s block.
INLINE void load256(const uint8_t *const lanes[16], size_t offset, __m512i w[16]) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = swapped(0, _mm512_loadu_si512(lanes[i] + offset));
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        __m512i low = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88), high = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        __m512i low2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88), high2 = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
        w[i] = _mm512_shuffle_i32x4(low, low2, 0x88);
        w[i + 8] = _mm512_shuffle_i32x4(low, low2, 0xdd);
        w[i + 4] = _mm512_shuffle_i32x4(high, high2, 0x88);
        w[i + 12] = _mm512_shuffle_i32x4(high, high2, 0xdd);
    }
}

/// Reads 64 bytes of each lane, and transposes them: `w[j]` holds word `j` of all lanes.
INLINE void load512(const uint8_t *const lanes[8], size_t offset, __m512i w[8]) {
    __m512i a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = swapped(1, _mm512_loadu_si512(lanes[i] + offset));
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        __m512i low = _mm512_shuffle_i64x2(b[i], b[i + 2], 0x88), high = _mm512_shuffle_i64x2(b[i], b[i + 2], 0xdd);
        __m512i low2 = _mm512_shuffle_i64x2(b[i + 4], b[i + 6], 0x88), high2 = _mm512_shuffle_i64x2(b[i + 4], b[i + 6], 0xdd);
        w[i] = _mm512_shuffle_i64x2(low, low2, 0x88);
        w[i + 4] = _mm512_shuffle_i64x2(low, low2, 0xdd);
        w[i + 2] = _mm512_shuffle_i64x2(high, high2, 0x88);
        w[i + 6] = _mm512_shuffle_i64x2(high, high2, 0xdd);
    }
}

INLINE __m512i broadcast(int is512, uint64_t word) { return is512 ? _mm512_set1_epi64((long long)word) : _mm512_set1_epi32((int)word); }

INLINE __m512i add(int is512, __m512i x, __m512i y) { return is512 ? _mm512_add_epi64(x, y) : _mm512_add_epi32(x, y); }

INLINE __m512i rotate(int is512, __m512i x, int n) {
    return is512 ? _mm512_rorv_epi64(x, _mm512_set1_epi64(n)) : _mm512_rorv_epi32(x, _mm512_set1_epi32(n));
}

INLINE __m512i shift(int is512, __m512i x, int n) {
    return is512 ? _mm512_srlv_epi64(x, _mm512_set1_epi64(n)) : _mm512_srlv_epi32(x, _mm512_set1_epi32(n));
}

// The last argument of ternarylogic is a table: bit i is the result for the bits of i in the order x, y, z.

INLINE __m512i parity(__m512i x, __m512i y, __m512i z) { return _mm512_ternarylogic_epi64(x, y, z, 0x96); }

/// The rounds for one message block of 16 words (6.2.2 and 6.4.2). The first numbers are those of SHA-512 (4.1.3), the second those of SHA-256 (4.1.2).
INLINE void compress(int is512, __m512i state[8], __m512i w[16]) {
#define ADD(x, y) add(is512, x, y)
#define ROTATE(x, wide, narrow) rotate(is512, x, is512 ? wide : narrow)
#define SHIFT(x, wide, narrow) shift(is512, x, is512 ? wide : narrow)
    __m512i a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
#pragma clang loop unroll(full)
    for (int t = 0; t < (is512 ? 80 : 64); t++) {
        if (t >= 16) {
            __m512i x = w[(t + 1) & 15], y = w[(t + 14) & 15];
            __m512i s0 = parity(ROTATE(x, 1, 7), ROTATE(x, 8, 18), SHIFT(x, 7, 3));
            __m512i s1 = parity(ROTATE(y, 19, 17), ROTATE(y, 61, 19), SHIFT(y, 6, 10));
            w[t & 15] = ADD(ADD(w[t & 15], s0), ADD(w[(t + 9) & 15], s1));
        }
        __m512i k = broadcast(is512, is512 ? roots[t] : roots[t] >> 32);
        __m512i choice = _mm512_ternarylogic_epi64(e, f, g, 0xca), majority = _mm512_ternarylogic_epi64(a, b, c, 0xe8);
        __m512i t1 = ADD(ADD(h, parity(ROTATE(e, 14, 6), ROTATE(e, 18, 11), ROTATE(e, 41, 25))), ADD(choice, ADD(k, w[t & 15])));
        __m512i t2 = ADD(parity(ROTATE(a, 28, 2), ROTATE(a, 34, 13), ROTATE(a, 39, 22)), majority);
        h = g, g = f, f = e, e = ADD(d, t1), d = c, c = b, b = a, a = ADD(t1, t2);
    }
    state[0] = ADD(state[0], a), state[1] = ADD(state[1], b), state[2] = ADD(state[2], c), state[3] = ADD(state[3], d);
    state[4] = ADD(state[4], e), state[5] = ADD(state[5], f), state[6] = ADD(state[6], g), state[7] = ADD(state[7], h);
#undef ADD
#undef ROTATE
#undef SHIFT
}

INLINE void hash(int is512, const void *blocks, int count, uint8_t *digests) {
    const int lane_count = is512 ? 8 : 16, word_size = is512 ? 8 : 4;
    if (count < 1 || count > lane_count) __builtin_trap();
    const uint8_t *lanes[16];
    // The other lanes hash the last block again.
    for (int i = 0; i < lane_count; i++) lanes[i] = (const uint8_t *)blocks + (size_t)(i < count ? i : count - 1) * CSHA2_BLOCK;
    __m512i state[8], w[16];
    for (int i = 0; i < 8; i++) state[i] = broadcast(is512, is512 ? initial[i] : initial[i] >> 32);
    for (size_t offset = 0; offset < CSHA2_BLOCK; offset += is512 ? 128 : 64) {
        if (is512) {
            load512(lanes, offset, w);
            load512(lanes, offset + 64, w + 8);
        } else {
            load256(lanes, offset, w);
        }
        compress(is512, state, w);
    }
    // The padding (5.1): a bit, zeros, and the number of bits.
    for (int i = 1; i < 15; i++) w[i] = _mm512_setzero_si512();
    w[0] = broadcast(is512, is512 ? 0x8000000000000000 : 0x80000000);
    w[15] = broadcast(is512, CSHA2_BLOCK * 8);
    compress(is512, state, w);
    for (int i = 0; i < 8; i++) {
        uint8_t words[64];
        _mm512_storeu_si512(words, swapped(is512, state[i]));
        for (int lane = 0; lane < count; lane++)
            __builtin_memcpy(digests + (lane * 8 + i) * word_size, words + lane * word_size, (size_t)word_size);
    }
}

WIDE void csha2_blocks_256(const void *blocks, int count, void *digests) { hash(0, blocks, count, digests); }
WIDE void csha2_blocks_512(const void *blocks, int count, void *digests) { hash(1, blocks, count, digests); }

#else

int csha2_lanes_256(void) { return 0; }
int csha2_lanes_512(void) { return 0; }
// Not called: there are no lanes.
void csha2_blocks_256(const void *blocks, int count, void *digests) { (void)blocks, (void)count, (void)digests, __builtin_trap(); }
void csha2_blocks_512(const void *blocks, int count, void *digests) { (void)blocks, (void)count, (void)digests, __builtin_trap(); }

#endif
