// Codes the set of keys that an export delivers, small enough to be stored for ever.
//
// The key of each row is hashed as the row passes. A full segment of hashes becomes a Golomb-Rice
// coded set: each hash is scaled to `count` << RATE, the sorted values are cut into buckets of
// equal width, and each bucket holds the differences, written as a quotient in unary and RATE bits.
// A key that is not in the set seems to be in it with a probability of 2^-RATE. keys.py reads the
// set.
#include "abi/keys.h"

enum { SEGMENT = 1 << 20, RADIX = 10, DIGITS = 1 << RADIX };

static uint64_t *hashes; // SEGMENT of them, followed by as much room for sorting
static int32_t count;
static uint64_t latest; // the hash of the key of the row before, if there was one
static int32_t begun;

static inline uint64_t mix(uint64_t h, uint64_t word) {
  h = (h ^ word) * 0x9E3779B97F4A7C15u;
  return h ^ h >> 32;
}

// Stored sets depend on this function, so it must never change.
static uint64_t hash(const u8 *s, int32_t n) {
  uint64_t h = (uint64_t)n;
  for (; n >= 8; n -= 8, s += 8) h = mix(h, *(const uint64_t *)s);
  if (n > 0) h = mix(h, *(const uint64_t *)s & (((uint64_t)1 << 8 * n) - 1));
  h = (h ^ h >> 33) * 0xFF51AFD7ED558CCDu;
  h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53u;
  return h ^ h >> 33;
}

// Sets the memory for the hashes: 2 * SEGMENT numbers of 8 bytes.
EXPORT(start_keys) void start_keys(uint64_t *room) {
  hashes = room;
  count = 0;
  begun = 0;
}

int32_t keys_room(void) { return SEGMENT - count; }

// Adds the key of a row. Rows of one record follow each other and count once.
void keep_key(const u8 *s, int32_t n) {
  uint64_t h = hash(s, n);
  if (!begun || h != latest) hashes[count++] = h;
  begun = 1;
  latest = h;
}

static void sort(uint64_t *from, uint64_t *to) {
  for (int32_t shift = 0; shift < 4 * RADIX; shift += RADIX) { // four passes end in `from`
    int32_t place[DIGITS] = {0};
    for (int32_t i = 0; i < count; i++) place[from[i] >> shift & (DIGITS - 1)]++;
    for (int32_t i = 0, sum = 0; i < DIGITS; i++) {
      int32_t n = place[i];
      place[i] = sum;
      sum += n;
    }
    for (int32_t i = 0; i < count; i++) to[place[from[i] >> shift & (DIGITS - 1)]++] = from[i];
    uint64_t *other = from;
    from = to;
    to = other;
  }
}

// Codes the collected hashes, then drops them. Returns the coded set; result.produced is its size,
// result.rows the number of keys. Layout: the count, the size of the body, the end of each bucket
// in bits, then the bits, lowest first.
EXPORT(code_keys) u8 *code_keys(void) {
  uint64_t *values = hashes;
  u8 *out = (u8 *)(hashes + SEGMENT);
  for (int32_t i = 0; i < count; i++) {
    uint64_t h = values[i];
    values[i] = ((h >> 32) * (uint64_t)count >> 32) << RATE | (h & ((1 << RATE) - 1));
  }
  sort(values, hashes + SEGMENT);
  int32_t buckets = (count + (1 << BUCKET) - 1) >> BUCKET, next = 0;
  uint32_t *head = (uint32_t *)out, *ends = head + 2;
  u8 *bits = (u8 *)(ends + buckets);
  uint64_t held = 0; // bits of the unfinished byte, `at` & 7 of them
  uint32_t at = 0;
  for (int32_t b = 0; b < buckets; b++) {
    uint64_t last = (uint64_t)b << (RATE + BUCKET), end = last + ((uint64_t)1 << (RATE + BUCKET));
    for (; next < count && values[next] < end; next++) {
      uint64_t delta = values[next] - last, quotient = delta >> RATE;
      last = values[next];
      for (; quotient; quotient--) // zeros, then a one
        if (!(++at & 7)) *bits++ = (u8)held, held = 0;
      held |= (uint64_t)1 << (at & 7);
      held |= (delta & ((1 << RATE) - 1)) << ((at & 7) + 1);
      uint32_t size = (at & 7) + 1 + RATE;
      at += 1 + RATE;
      for (; size >= 8; size -= 8, held >>= 8) *bits++ = (u8)held;
    }
    ends[b] = at;
  }
  if (at & 7) *bits++ = (u8)held;
  head[0] = (uint32_t)count;
  head[1] = (uint32_t)(bits - (u8 *)ends);
  result = (Result){.produced = (int32_t)(bits - out), .rows = count};
  count = 0;
  return out;
}
