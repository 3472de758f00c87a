// Reads rows of COPY BINARY. Shared by encode.c, columns.c and digest.c.
#pragma once
#include "kernel.h"

// The first and last supported day, counted from 2000-01-01. asyncpg stores them as -infinity and
// infinity.
static const int32_t FIRST_DAY = -730119, LAST_DAY = 2921939;

static inline int32_t be16(const u8 *p) { return (int16_t)(p[0] << 8 | p[1]); }
static inline int32_t be32(const u8 *p) {
  return (int32_t)__builtin_bswap32(*(const uint32_t *)p);
}
static inline int64_t be64(const u8 *p) {
  return (int64_t)__builtin_bswap64(*(const uint64_t *)p);
}

// Returns the size of the row that starts at `p`; 0 if the row is not complete before `end`, -1 if
// it does not have `columns` columns. Points `key` at the key column.
static inline int32_t row_size(int32_t columns, int32_t key_column, const u8 *p, const u8 *end,
                               const u8 **key) {
  const u8 *start = p;
  if (end - p < 2) return 0;
  if (be16(p) != columns) return -1;
  p += 2;
  for (int32_t i = 0; i < columns; i++) {
    if (end - p < 4) return 0;
    int32_t n = be32(p);
    if (i == key_column) *key = p;
    p += 4;
    if (n > end - p) return 0;
    if (n > 0) p += n;
  }
  return (int32_t)(p - start);
}
