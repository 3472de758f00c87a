// Turns COPY BINARY rows into Arrow columns, following a plan that column_plan.py makes.
//
// Each call walks its rows twice: first to measure each column, then to fill it.
#include "abi/columns.h"
#include "read.h"

static const int32_t EPOCH = 10957; // days from 1970-01-01 to 2000-01-01
static const int64_t DAY = 86400000000;

static int32_t broken; // a value does not fit its column

typedef struct {
  uint64_t low, high;
} Wide;

static inline Wide times(Wide v, uint64_t factor, uint64_t more) { // both below 2^31
  uint64_t a = (v.low & 0xffffffff) * factor + more, b = (v.low >> 32) * factor + (a >> 32);
  return (Wide){b << 32 | (a & 0xffffffff), v.high * factor + (b >> 32)};
}

// Returns a numeric's value * 10^scale; sets `broken` if that is not exact. The digits are in base
// 10,000, and the first is worth 10,000^weight.
static Wide numeric(const u8 *p, int32_t size, int32_t precision, int32_t scale) {
  static const uint64_t power[] = {1, 10, 100, 1000};
  int32_t n = be16(p), weight = be16(p + 2), sign = be16(p + 4) & 0xffff;
  Wide v = {0, 0};
  if (size < 8 || n < 0 || size != 8 + 2 * n || (sign & ~0x4000)) {
    broken = 1;
    return v;
  }
  if (!n) return v;
  int32_t first = be16(p + 8), more = 4 * (weight - n + 1) + scale; // powers of ten to add
  int32_t digits = 4 * (n - 1) + (first < 10 ? 1 : first < 100 ? 2 : first < 1000 ? 3 : 4) + more;
  if (more < -3 || digits > precision) {
    broken = 1;
    return v;
  }
  for (int32_t i = 0; i < n - (more < 0); i++) v = times(v, 10000, (uint64_t)be16(p + 8 + 2 * i));
  for (; more >= 4; more -= 4) v = times(v, 10000, 0);
  if (more > 0) v = times(v, power[more], 0);
  if (more < 0) { // some of the last four digits are beyond the scale and must be zeros
    uint64_t last = (uint64_t)be16(p + 6 + 2 * n);
    v = times(v, power[4 + more], last / power[-more]);
    if (last % power[-more]) broken = 1;
  }
  if (sign) v = (Wide){0 - v.low, ~v.high + (v.low == 0)};
  return v;
}

static int32_t days(int32_t d) {
  if (d == INT32_MIN) d = FIRST_DAY;
  if (d == INT32_MAX) d = LAST_DAY;
  if (d < FIRST_DAY || d > LAST_DAY) broken = 1;
  return d + EPOCH;
}

static int64_t micros(int64_t us) {
  if (us == INT64_MIN) us = FIRST_DAY * DAY;
  if (us == INT64_MAX) us = (LAST_DAY + 1) * DAY - 1;
  if (us < FIRST_DAY * DAY || us >= (LAST_DAY + 1) * DAY) {
    broken = 1;
    us = 0;
  }
  return us + EPOCH * DAY;
}

// Stores a value of fixed width in its column.
static inline void fixed(const Kind *kind, const u8 *p, int32_t n, u8 *data, int32_t row) {
  switch (kind->code) {
  case BOOL: data[row >> 3] |= (u8)((*p & 1) << (row & 7)); break;
  case INT4: case FLOAT4: ((int32_t *)data)[row] = be32(p); break;
  case INT8: case FLOAT8: ((int64_t *)data)[row] = be64(p); break;
  case UINT4: ((uint32_t *)data)[row] = (uint32_t)be64(p); break;
  case UINT8: {
    Wide v = numeric(p, n, 20, 0);
    if (v.high) broken = 1;
    ((uint64_t *)data)[row] = v.low;
    break;
  }
  case DECIMAL: ((Wide *)data)[row] = numeric(p, n, kind->precision, kind->scale); break;
  case DATE: ((int32_t *)data)[row] = days(be32(p)); break;
  case TIME: ((int64_t *)data)[row] = micros(be64(p)); break;
  default: broken = 1;
  }
}

// Adds the row at `p`, which measure() has found to be complete.
static inline const u8 *add(const Plan *plan, Filled *c, const u8 *p, int32_t row) {
  const Kind *kind = plan->kind;
  p += 2;
  for (int32_t i = 0; i < plan->columns; i++, kind++, c++) {
    int32_t n = be32(p), size = n < 0 ? 0 : n;
    p += 4;
    if (i == plan->key) keep_key(p, n);
    if (c->valid && n >= 0) c->valid[row >> 3] |= (u8)(1 << (row & 7));
    if (!kind->width) { // text, bytes, or jsonb, whose first byte is its version
      int32_t skip = kind->code == JSONB && size;
      put(c->data + c->size, p + skip, size - skip);
      c->size += size - skip;
      c->ends[row + 1] = c->size;
    } else if (n >= 0 && kind->code != PASSED) {
      fixed(kind, p, n, c->data, row);
      if (broken) {
        result.detail = i;
        return p;
      }
    }
    p += size;
  }
  return p;
}

// Adds the sizes of the row at `p` to those of the columns and returns the row's size; 0 if the row
// is not complete before `end`, -1 if it has another number of columns.
static int32_t measure(const Plan *plan, Filled *columns, const u8 *p, const u8 *end) {
  const u8 *start = p;
  if (end - p < 2) return 0;
  if (be16(p) != plan->columns) return -1;
  p += 2;
  for (int32_t i = 0; i < plan->columns; i++) {
    if (end - p < 4) return 0;
    int32_t n = be32(p);
    p += 4;
    if (n > end - p) return 0;
    // An incomplete row makes the columns' sizes too large, which is harmless.
    if (n < 0) columns[i].nulls++;
    else columns[i].size += n, p += n;
  }
  return (int32_t)(p - start);
}

static u8 *clear(u8 *o, int32_t n) { // up to the next multiple of 64
  u8 *end = o + ((n + 63) & ~63);
  for (; o < end; o += 16) wasm_v128_store(o, wasm_i8x16_splat(0));
  return end;
}

// Fills columns with the complete rows at `in`. Writes to `out`, an address divisible by 64: first
// a Filled for each column of the input, then their buffers, each at an address divisible by 64 and
// with zeros where there is no value. Needs 5 bytes for each byte of input and 512 for each column.
EXPORT(columns) int32_t columns(const Plan *plan, const u8 *in, int32_t size, u8 *out) {
  const u8 *p = in, *end = in + size;
  Filled *c = (Filled *)out;
  u8 *o = clear(out, plan->columns * (int32_t)sizeof(Filled));
  int32_t status = DONE, rows = 0, room = keys_room();
  broken = 0;
  result = (Result){0};
  for (;; rows++) {
    if (end - p >= 2 && be16(p) == -1) {
      p += 2;
      status = END;
      break;
    }
    if (rows == room) {
      status = KEYS;
      break;
    }
    int32_t n = measure(plan, c, p, end);
    if (n <= 0) {
      status = n < 0 ? MALFORMED : DONE;
      result.detail = n; // -1 with MALFORMED: the fault is in the row, not in one of its columns
      break;
    }
    p += n;
  }
  for (int32_t i = 0; i < plan->columns; i++) {
    int32_t width = plan->kind[i].width, bits = (rows + 7) / 8;
    if (plan->kind[i].code == PASSED) continue;
    int32_t taken = width < 0 ? bits : width ? rows * width : c[i].size + 16; // put's slack
    c[i].valid = c[i].nulls ? o : 0;
    if (c[i].nulls) o = clear(o, bits);
    c[i].ends = (int32_t *)o;
    if (!width) o = clear(o, 4 * (rows + 1));
    c[i].data = o;
    o = width ? clear(o, taken) : o + ((taken + 63) & ~63);
    c[i].size = width ? taken : 0;
  }
  const u8 *q = in;
  for (int32_t row = 0; row < rows; row++) {
    q = add(plan, c, q, row);
    if (broken) {
      result.rows = row;
      return MALFORMED;
    }
  }
  for (int32_t i = 0; i < plan->columns; i++) {
    if (plan->kind[i].code == PASSED || !c[i].valid) continue;
    int32_t valid = 0;
    for (int32_t k = 0; k < (rows + 7) / 8; k++) valid += __builtin_popcount(c[i].valid[k]);
    c[i].nulls = rows - valid;
  }
  result.consumed = (int32_t)(p - in);
  result.rows = rows;
  return status;
}
