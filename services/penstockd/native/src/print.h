// Prints values. Shared by encode.c, digest.c, records.c and sheet.c.
#pragma once
#include "kernel.h"

extern int32_t broken; // a value cannot be printed
extern int32_t lossy;  // a value was printed in a form that does not hold it exactly

u8 *integer(u8 *o, int64_t value);
u8 *date(u8 *o, int32_t days);
u8 *timestamp(u8 *o, int64_t us);
u8 *numeric(u8 *o, const u8 *p, int32_t size);
u8 *base64(u8 *o, const u8 *p, int32_t n);
u8 *xml_char(u8 *o, u8 c, int32_t attribute);
u8 *csv_text(u8 *o, const u8 *s, int32_t n);
u8 *json_text(u8 *o, const u8 *s, int32_t n, int32_t canonical);

// sheet.c
u8 *safe_text(u8 *o, const u8 *s, int32_t n, int32_t json);
u8 *sheet_bool(u8 *o, int32_t value);
u8 *sheet_integer(u8 *o, int64_t value);
u8 *sheet_numeric(u8 *o, const u8 *p, int32_t n);
u8 *sheet_float(u8 *o, const u8 *p, int32_t n);
u8 *sheet_bytes(u8 *o, const u8 *p, int32_t n);
u8 *sheet_date(u8 *o, int32_t days);
u8 *sheet_time(u8 *o, int64_t us);
u8 *sheet_text(u8 *o, const u8 *s, int32_t n); // 0 if it is too long for a cell

static inline u8 *word(u8 *o, const char *s) {
  while (*s) *o++ = (u8)*s++;
  return o;
}

// Copies text sixteen bytes at a time up to the first byte that needs escaping.
#define IS(c) wasm_i8x16_eq(v, wasm_i8x16_splat(c))
#define CONTROL wasm_u8x16_lt(v, wasm_i8x16_splat(0x20))
#define COPY_UNTIL(special)                                             \
  v128_t v = wasm_v128_load(s);                                         \
  wasm_v128_store(o, v);                                                \
  uint32_t bits = wasm_i8x16_bitmask(special);                          \
  if (n < 16) bits &= (1u << n) - 1;                                    \
  int32_t k = bits ? __builtin_ctz(bits) : n < 16 ? n : 16;             \
  s += k, o += k, n -= k;                                               \
  if (!bits) continue
