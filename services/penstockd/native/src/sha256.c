// SHA-256 (FIPS 180-4) of four texts at once, one in each lane of a vector. When a text ends, the
// next one takes its lane, so texts of different lengths keep all four lanes busy.
#include "sha256.h"

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static const u8 NOTHING[64]; // the block that a lane without a text reads

static uint32_t state[8][4]; // for each word, its value in each lane

#define ADD wasm_i32x4_add
#define XOR wasm_v128_xor
#define AND wasm_v128_and
#define ROTATE(x, n) wasm_v128_or(wasm_u32x4_shr(x, n), wasm_i32x4_shl(x, 32 - (n)))

static inline v128_t swapped(const u8 *p) {
  v128_t v = wasm_v128_load(p);
  return wasm_i8x16_shuffle(v, v, 3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
}

// Transposes four words of each of four texts into one vector per word.
static inline void words(v128_t *w, const u8 *const *p, int32_t at) {
  v128_t a = swapped(p[0] + at), b = swapped(p[1] + at), c = swapped(p[2] + at),
         d = swapped(p[3] + at);
  v128_t ab = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), cd = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5);
  w[0] = wasm_i64x2_shuffle(ab, cd, 0, 2);
  w[1] = wasm_i64x2_shuffle(ab, cd, 1, 3);
  ab = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7), cd = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
  w[2] = wasm_i64x2_shuffle(ab, cd, 0, 2);
  w[3] = wasm_i64x2_shuffle(ab, cd, 1, 3);
}

static inline v128_t extended(v128_t *w, int32_t i) {
  v128_t before = w[(i + 1) & 15], late = w[(i + 14) & 15];
  v128_t s0 = XOR(XOR(ROTATE(before, 7), ROTATE(before, 18)), wasm_u32x4_shr(before, 3));
  v128_t s1 = XOR(XOR(ROTATE(late, 17), ROTATE(late, 19)), wasm_u32x4_shr(late, 10));
  return w[i & 15] = ADD(ADD(w[i & 15], s0), ADD(w[(i + 9) & 15], s1));
}

static void block(const u8 *const *p) {
  v128_t w[16], s[8];
  for (int32_t i = 0; i < 16; i += 4) words(w + i, p, 4 * i);
  for (int32_t i = 0; i < 8; i++) s[i] = wasm_v128_load(state[i]);
  v128_t a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
#pragma clang loop unroll_count(16)
  for (int32_t i = 0; i < 64; i++) {
    v128_t word = i < 16 ? w[i] : extended(w, i);
    v128_t s1 = XOR(XOR(ROTATE(e, 6), ROTATE(e, 11)), ROTATE(e, 25));
    v128_t choice = XOR(g, AND(e, XOR(f, g)));
    v128_t t = ADD(ADD(ADD(h, s1), ADD(choice, word)), wasm_i32x4_splat((int32_t)K[i]));
    v128_t s0 = XOR(XOR(ROTATE(a, 2), ROTATE(a, 13)), ROTATE(a, 22));
    v128_t majority = XOR(AND(a, XOR(b, c)), AND(b, c));
    h = g, g = f, f = e, e = ADD(d, t), d = c, c = b, b = a, a = ADD(t, ADD(s0, majority));
  }
  v128_t after[8] = {a, b, c, d, e, f, g, h};
  for (int32_t i = 0; i < 8; i++) wasm_v128_store(state[i], ADD(s[i], after[i]));
}

void hash(const Job *jobs, int32_t count) {
  const u8 *p[4] = {NOTHING, NOTHING, NOTHING, NOTHING};
  int32_t left[4] = {0}, next = 0, busy = 0;
  u8 *target[4];
  for (;;) {
    for (int32_t lane = 0; lane < 4; lane++) {
      if (left[lane]) continue;
      if (p[lane] != NOTHING) {
        for (int32_t i = 0; i < 8; i++)
          *(uint32_t *)(target[lane] + 4 * i) = __builtin_bswap32(state[i][lane]);
        p[lane] = NOTHING;
        busy--;
      }
      if (next == count) continue;
      for (int32_t i = 0; i < 8; i++) state[i][lane] = START[i];
      p[lane] = jobs[next].text;
      left[lane] = jobs[next].blocks;
      target[lane] = jobs[next++].digest;
      busy++;
    }
    if (!busy) return;
    block(p);
    for (int32_t lane = 0; lane < 4; lane++)
      if (left[lane]) left[lane]--, p[lane] += 64;
  }
}

int32_t pad(u8 *text, u8 *end) {
  uint64_t bits = (uint64_t)(end - text) * 8;
  int32_t blocks = (int32_t)((end - text + 9 + 63) / 64);
  u8 *last = text + 64 * blocks;
  *end++ = 0x80;
  while (end < last - 8) *end++ = 0;
  *(uint64_t *)end = __builtin_bswap64(bits);
  return blocks;
}
