// Turns cells made by split_csv or records.c into COPY BINARY rows, following a plan that
// load_plan.py makes: for each new record, a row of the dataset's table and one of the change log.
//
// Reads only the spelling that our own exports use. A row with any other cell, valid or not, is
// left to the readers in Python; only they report what is wrong.
#include "abi/cells.h"
#include "abi/load.h"

typedef struct {
  const u8 *p;
  int32_t n; // -1: NULL
} Cell;

enum { MOST_KEY = 512 };

static const int64_t DAY = 86400000000; // microseconds
static Cell cells[MOST_COLUMNS];
static const u8 *base; // the plan
static int32_t left;   // the row is left to Python

static inline u8 *lit(u8 *o, Text t) { return put(o, base + t.at, t.size); }

static inline u8 *be16(u8 *o, int32_t v) {
  o[0] = (u8)(v >> 8), o[1] = (u8)v;
  return o + 2;
}
static inline u8 *be32(u8 *o, int32_t v) {
  *(uint32_t *)o = __builtin_bswap32((uint32_t)v);
  return o + 4;
}
static inline u8 *be64(u8 *o, int64_t v) {
  *(uint64_t *)o = __builtin_bswap64((uint64_t)v);
  return o + 8;
}
static inline u8 *varint(u8 *o, uint64_t v) {
  for (; v > 0x7f; v >>= 7) *o++ = (u8)(v | 0x80);
  *o++ = (u8)v;
  return o;
}
static inline u8 *sized(u8 *o, const u8 *s, int32_t n) { return put(be32(o, n), s, n); }

// Writes a string, bytes or message field of the protobuf image.
static inline u8 *delimited(u8 *o, const Op *op, const u8 *s, int32_t n) {
  if (!n && !op->presence) return o;
  return put(varint(lit(o, op->tag), (uint64_t)n), s, n);
}

// Whether text is valid UTF-8 and every format and the database can hold its characters.
static int32_t clean(const u8 *p, int32_t n) {
  const u8 *end = p + n;
  while (p < end) {
    u8 c = *p++;
    if (c < 0x80) {
      if (c < 0x20 && c != '\t' && c != '\n' && c != '\r') return 0;
      continue;
    }
    int32_t more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    if (c < 0xc2 || c > 0xf4 || end - p < more) return 0;
    if (c == 0xe0 && p[0] < 0xa0) return 0; // overlong
    if (c == 0xed && p[0] > 0x9f) return 0; // a surrogate
    if (c == 0xf0 && p[0] < 0x90) return 0;
    if (c == 0xf4 && p[0] > 0x8f) return 0;
    if (c == 0xef && p[0] == 0xbf && p[1] >= 0xbe) return 0; // U+FFFE, U+FFFF
    for (; more; more--)
      if ((*p++ & 0xc0) != 0x80) return 0;
  }
  return 1;
}

static inline int32_t digit(u8 c) { return c >= '0' && c <= '9'; }

// Finds the cells of the row at `p`; returns the start of the next row. Sets `odd` to a value other
// than 0 if a byte is neither plain ASCII nor a separator.
static const u8 *cut(const u8 *p, const u8 *end, int32_t *count, uint32_t *odd) {
  const u8 *start = p;
  int32_t n = 0;
  for (;; p += 16) {
    v128_t v = wasm_v128_load(p);
    uint32_t stop = wasm_i8x16_bitmask(wasm_v128_or(wasm_i8x16_eq(v, wasm_i8x16_splat(CELL)),
                                                    wasm_i8x16_eq(v, wasm_i8x16_splat(ROW))));
    uint32_t strange = wasm_i8x16_bitmask(wasm_i8x16_lt(v, wasm_i8x16_splat(NULL_CELL)));
    for (; stop; stop &= stop - 1) {
      int32_t k = __builtin_ctz(stop);
      const u8 *at = p + k;
      if (at >= end) break;
      if (n < MOST_COLUMNS) {
        int32_t size = (int32_t)(at - start);
        cells[n] = (Cell){start, size == 1 && *start == NULL_CELL ? -1 : size};
      }
      n++;
      start = at + 1;
      if (*at == ROW) {
        *odd |= strange & ((1u << k) - 1);
        *count = n;
        return start;
      }
    }
    *odd |= strange;
    if (p >= end) break;
  }
  *count = -1; // the row is not complete
  return end;
}

// --- rules: whether a value certainly meets the rules of its field ---

// Counts the characters of UTF-8 text.
static int64_t characters(const u8 *s, int32_t n) {
  int64_t count = 0;
  for (int32_t i = 0; i < n; i++) count += (s[i] & 0xc0) != 0x80;
  return count;
}

static inline int32_t letter_or_digit(u8 c) {
  return digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

// Whether HTML accepts the text as an e-mail address.
static int32_t email(const u8 *s, int32_t n) {
  static const u8 odd[] = ".!#$%&'*+/=?^_`{|}~-";
  int32_t i = 0;
  for (; i < n && s[i] != '@'; i++) {
    int32_t known = letter_or_digit(s[i]);
    for (int32_t k = 0; odd[k] && !known; k++) known = s[i] == odd[k];
    if (!known) return 0;
  }
  if (!i || i == n) return 0;
  while (i < n) { // at the "@" or a dot, which a label follows
    int32_t start = ++i;
    while (i < n && (letter_or_digit(s[i]) || s[i] == '-')) i++;
    if (i == start || i - start > 63 || s[start] == '-' || s[i - 1] == '-') return 0;
    if (i < n && s[i] != '.') return 0;
    if (i == n - 1) return 0;
  }
  return 1;
}

// Matches greedily. The plan has only patterns in which no part can begin with a character that
// could continue the part before it.
static int32_t pattern(const Rule *rule, const u8 *s, int32_t n) {
  const Part *part = (const Part *)(base + rule->arg);
  int32_t i = 0;
  for (int64_t k = 0; k < rule->low.whole; k++, part++) {
    int32_t count = 0;
    while (i < n && count < part->most && s[i] < 0x80 && part->set[s[i] >> 5] >> (s[i] & 31) & 1)
      i++, count++;
    if (count < part->least) return 0;
  }
  return i == n;
}

static int32_t text_meets(const Op *op, const u8 *s, int32_t n) {
  const Rule *rule = (const Rule *)(base + op->rules);
  for (int32_t i = 0; i < op->rule_count; i++, rule++) {
    int64_t size = n;
    switch (rule->kind) {
    case ZERO_PASSES:
      if (!n) return 1;
      break;
    case CHARACTERS:
      // Text has at most as many characters as bytes.
      if (!rule->low.whole && size <= rule->high.whole) break;
      size = characters(s, n); // fall through
    case BYTES:
      if (size < rule->low.whole || size > rule->high.whole) return 0;
      break;
    case EMAIL:
      if (!email(s, n)) return 0;
      break;
    case PATTERN:
      if (!pattern(rule, s, n)) return 0;
      break;
    case NO_PREFIX:
      if (n && s[0] == rule->arg) return 0;
      break;
    default: return 0;
    }
  }
  return 1;
}

static int32_t whole_meets(const Op *op, int64_t v) {
  const Rule *rule = (const Rule *)(base + op->rules);
  for (int32_t i = 0; i < op->rule_count; i++, rule++) {
    if (rule->kind == ZERO_PASSES && !v) return 1;
    if (rule->kind == RANGE && (v < rule->low.whole || v > rule->high.whole)) return 0;
  }
  return 1;
}

static int32_t number_meets(const Op *op, double v) {
  const Rule *rule = (const Rule *)(base + op->rules);
  for (int32_t i = 0; i < op->rule_count; i++, rule++)
    if (rule->kind == RANGE && !(v >= rule->low.number && v <= rule->high.number)) return 0;
  return 1;
}

static int32_t items_meet(const Op *op, int64_t count, int64_t longest) {
  const Rule *rule = (const Rule *)(base + op->rules);
  for (int32_t i = 0; i < op->rule_count; i++, rule++) {
    if (rule->kind == ZERO_PASSES && !count) return 1;
    if (rule->kind == ITEMS && (count < rule->low.whole || count > rule->high.whole)) return 0;
    if (rule->kind == ITEM_CHARACTERS && longest > rule->high.whole) return 0;
  }
  return 1;
}

// --- one cell: writes the column to *row and the field to the image; returns the image's end ---

static u8 *image_number(u8 *o, const Op *op, int64_t v) {
  if (!v && !op->presence) return o;
  o = lit(o, op->tag);
  switch (op->arg) {
  case ZIGZAG: return varint(o, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
  case FIXED32: *(uint32_t *)o = (uint32_t)v; return o + 4;
  case FIXED64: *(uint64_t *)o = (uint64_t)v; return o + 8;
  }
  return varint(o, (uint64_t)v);
}

// Writes a numeric of `whole` digits at `s` and `part` digits after the point, at `point`.
static u8 *numeric(u8 *o, const u8 *s, int32_t whole, const u8 *point, int32_t part, int32_t minus) {
  u8 digits[56];
  int32_t pad = -whole & 3, groups = (whole + pad) / 4 + (part + 3) / 4, weight = (whole + pad) / 4 - 1;
  for (int32_t i = 0; i < 4 * groups; i++) digits[i] = 0;
  for (int32_t i = 0; i < whole; i++) digits[pad + i] = s[i] - '0';
  for (int32_t i = 0; i < part; i++) digits[pad + whole + i] = point[i] - '0';
  int32_t values[14], first = 0;
  for (int32_t i = 0; i < groups; i++) {
    const u8 *d = digits + 4 * i;
    values[i] = d[0] * 1000 + d[1] * 100 + d[2] * 10 + d[3];
  }
  while (groups > first && !values[groups - 1]) groups--;
  while (first < groups && !values[first]) first++, weight--;
  int32_t n = groups - first;
  o = be32(o, 8 + 2 * n);
  o = be16(be16(o, n), n ? weight : 0);
  o = be16(be16(o, minus && n ? 0x4000 : 0), part);
  for (int32_t i = first; i < groups; i++) o = be16(o, values[i]);
  return o;
}

static u8 *whole(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  int32_t minus = *s == '-', size = n - minus, bad = size < 1 || size > 19;
  const u8 *d = s + minus;
  uint64_t v = 0;
  for (int32_t i = 0; i < size && !bad; i++) {
    bad |= !digit(d[i]);
    v = v * 10 + (d[i] - '0');
  }
  if (bad || (*d == '0' && n > 1)) return left = 1, o;
  uint64_t most = op->code == INT32 ? INT32_MAX : op->code == UINT32 ? UINT32_MAX
                  : op->code == INT64 ? INT64_MAX : UINT64_MAX;
  int32_t unsign = op->code == UINT32 || op->code == UINT64;
  if (v > most + (uint64_t)minus || (minus && unsign)) return left = 1, o;
  int64_t value = (int64_t)(minus ? 0 - v : v);
  if (op->rule_count && !whole_meets(op, value)) return left = 1, o;
  if (op->code == INT32) *row = be32(be32(*row, 4), (int32_t)value);
  else if (op->code == UINT64) *row = numeric(*row, d, size, d, 0, 0);
  else *row = be64(be32(*row, 8), value);
  return image_number(o, op, value);
}

// Splits -?digits(.digits)?; returns 0 if the text has another form or leading zeros.
static int32_t decimal(const u8 *s, int32_t n, int32_t *before, int32_t *after) {
  int32_t minus = n && *s == '-', i = minus;
  while (i < n && digit(s[i])) i++;
  *before = i - minus;
  *after = 0;
  if (!*before || (*before > 1 && s[minus] == '0')) return 0;
  if (i < n) {
    if (s[i++] != '.' || i == n) return 0;
    *after = n - i;
    for (; i < n; i++)
      if (!digit(s[i])) return 0;
  }
  return 1;
}

static u8 *exact(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  int32_t before, after, minus = n && *s == '-';
  if (n > 48 || !decimal(s, n, &before, &after)) return left = 1, o;
  int32_t counted = before == 1 && s[minus] == '0' ? 0 : before;
  if (after > op->extra || counted > op->arg - op->extra) return left = 1, o;
  int32_t zero = minus;
  for (int32_t i = minus; i < n; i++) zero &= s[i] == '0' || s[i] == '.';
  if (zero) return left = 1, o; // Python drops the sign of a negative zero
  *row = numeric(*row, s + minus, before, s + minus + before + 1, after, minus);
  return delimited(o, op, s, n);
}

// Whole numbers up to 2^53 and powers up to 10^22 are exact in binary, so dividing one by the other
// rounds correctly. Numbers with more digits are left to Python.
static u8 *binary(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,
                                 1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17};
  int32_t before, after, minus = n && *s == '-';
  if (!decimal(s, n, &before, &after) || before + after > 17) return left = 1, o;
  int64_t v = 0;
  for (int32_t i = minus; i < n; i++)
    if (s[i] != '.') v = v * 10 + (s[i] - '0');
  if (v > (int64_t)1 << 53) return left = 1, o;
  union {
    double number;
    uint64_t bits;
  } wide = {(double)v / power[after]};
  // From there on, a whole number may become another.
  if (op->code == FLOAT && wide.number > 16777216.0) return left = 1, o;
  if (minus && v) wide.number = -wide.number; // there is one zero
  union {
    float number;
    uint32_t bits;
  } narrow = {(float)wide.number};
  double number = op->code == FLOAT ? (double)narrow.number : wide.number;
  if (op->rule_count && !number_meets(op, number)) return left = 1, o;
  if (op->code == FLOAT) *row = be32(be32(*row, 4), (int32_t)narrow.bits);
  else *row = be64(be32(*row, 8), (int64_t)wide.bits);
  if (!wide.bits && !op->presence) return o;
  o = lit(o, op->tag);
  if (op->code == FLOAT) {
    *(uint32_t *)o = narrow.bits;
    return o + 4;
  }
  *(uint64_t *)o = wide.bits;
  return o + 8;
}

// Reads a number of `n` digits; sets `left` if one is not a digit.
static int32_t digits(const u8 *s, int32_t n) {
  int32_t v = 0;
  for (; n; n--, s++) {
    if (!digit(*s)) left = 1;
    v = v * 10 + (*s - '0');
  }
  return v;
}

// Reads YYYY-MM-DD as days since 2000-01-01; sets `left` if it is not a date.
static int32_t days(const u8 *s) {
  static const u8 length[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  int32_t y = digits(s, 4), m = digits(s + 5, 2), d = digits(s + 8, 2);
  int32_t leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
  if (left || s[4] != '-' || s[7] != '-' || y < 1 || m < 1 || m > 12 || d < 1 ||
      d > length[m - 1] + (m == 2 && leap))
    return left = 1, 0;
  y -= m <= 2;
  int32_t era = y / 400, yoe = y % 400, doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
  return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 730425;
}

static u8 *date(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  if (n != 10) return left = 1, o;
  *row = be32(be32(*row, 4), days(s));
  return delimited(o, op, s, n);
}

// Reads YYYY-MM-DDTHH:MM:SS(.f…)?Z with up to six digits of fraction.
static u8 *moment(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  if (n < 20 || n > 27 || n == 21 || s[n - 1] != 'Z' || s[10] != 'T' || s[13] != ':' ||
      s[16] != ':' || (n > 20 && s[19] != '.'))
    return left = 1, o;
  int32_t day = days(s), hour = digits(s + 11, 2), minute = digits(s + 14, 2);
  int32_t second = digits(s + 17, 2), part = n > 20 ? digits(s + 20, n - 21) : 0;
  if (left || hour > 23 || minute > 59 || second > 59) return left = 1, o;
  for (int32_t k = n > 20 ? n - 21 : 6; k < 6; k++) part *= 10;
  int64_t us = day * DAY + ((hour * 60 + minute) * 60 + second) * (int64_t)1000000 + part;
  // The first and the last moment stand for infinity.
  if (us <= -730119 * DAY || us >= 2921940 * DAY - 1) return left = 1, o;
  *row = be64(be32(*row, 8), us);
  u8 inner[24], *i = inner;
  int64_t seconds = (us - part) / 1000000 + 946684800;
  if (seconds) *i++ = 0x08, i = varint(i, (uint64_t)seconds);
  if (part) *i++ = 0x10, i = varint(i, (uint64_t)part * 1000);
  o = lit(o, op->tag);
  *o++ = (u8)(i - inner);
  for (u8 *k = inner; k < i; k++) *o++ = *k;
  return o;
}

// Reads a JSON array of strings without \u, \b, \f, and without blanks except after its commas. The
// column takes the text unchanged.
static u8 *strings(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  u8 *r = be32(*row, n + 1);
  *r++ = 1; // jsonb's version
  *row = put(r, s, n);
  const u8 *p = s + 1, *end = s + n;
  if (n < 2 || s[0] != '[' || s[n - 1] != ']') return left = 1, o;
  int64_t count = 0, longest = 0;
  if (n == 2) {
    if (op->rule_count && !items_meet(op, 0, 0)) left = 1;
    return o;
  }
  for (;;) {
    if (end - p < 2 || *p++ != '"') break;
    const u8 *start = p;
    int32_t escapes = 0;
    for (; p < end && *p != '"'; p++) {
      if (*p < 0x20) return left = 1, o;
      if (*p == '\\') escapes++, p++;
    }
    if (p >= end) break;
    count++;
    if (op->rule_count) {
      int64_t size = characters(start, (int32_t)(p - start)) - escapes;
      if (size > longest) longest = size;
    }
    o = varint(lit(o, op->tag), (uint64_t)(p - start - escapes));
    if (!escapes) {
      o = put(o, start, (int32_t)(p - start));
    } else {
      for (const u8 *c = start; c < p; c++) {
        if (*c == '\\') {
          c++;
          if (*c == '"' || *c == '\\' || *c == '/') *o++ = *c;
          else if (*c == 'n') *o++ = '\n';
          else if (*c == 'r') *o++ = '\r';
          else if (*c == 't') *o++ = '\t';
          else return left = 1, o;
        } else {
          *o++ = *c;
        }
      }
    }
    p++;
    if (p >= end) break;
    if (*p == ',') {
      p++;
      if (p < end && *p == ' ') p++; // the database prints a blank here
      continue;
    }
    if (*p == ']' && p + 1 == end) {
      if (op->rule_count && !items_meet(op, count, longest)) left = 1;
      return o;
    }
    break;
  }
  return left = 1, o;
}

// Reads other repeated fields and maps only if they are empty: just the brackets in `op->arg`.
static u8 *empty(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  if (n != 2 || !op->arg || (s[0] | s[1] << 8) != op->arg) return left = 1, o;
  if (op->rule_count && !items_meet(op, 0, 0)) return left = 1, o;
  u8 *r = be32(*row, 3);
  *r++ = 1;
  *row = put(r, s, 2);
  return o;
}

static u8 *name(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  const Name *known = (const Name *)(base + op->arg);
  for (int32_t i = 0; i < op->extra; i++, known++) {
    if (known->name.size != n) continue;
    int32_t k = 0;
    while (k < n && base[known->name.at + k] == s[k]) k++;
    if (k < n) continue;
    *row = sized(*row, s, n);
    return lit(o, known->image);
  }
  return left = 1, o;
}

static u8 *truth(u8 *o, u8 **row, const Op *op, const u8 *s, int32_t n) {
  int32_t yes = n == 4 && s[0] == 't' && s[1] == 'r' && s[2] == 'u' && s[3] == 'e';
  int32_t no = n == 5 && s[0] == 'f' && s[1] == 'a' && s[2] == 'l' && s[3] == 's' && s[4] == 'e';
  if (!yes && !no) return left = 1, o;
  u8 *r = be32(*row, 1);
  *r = (u8)yes;
  *row = r + 1;
  if (no && !op->presence) return o;
  o = lit(o, op->tag);
  *o = (u8)yes;
  return o + 1;
}

static u8 *value(u8 *o, u8 **row, const Op *op, Cell cell, uint32_t odd) {
  const u8 *s = cell.p;
  int32_t n = cell.n;
  if (odd && (op->code == TEXT || op->code == STRINGS) && !clean(s, n)) return left = 1, o;
  if (op->rule_count && (op->code == TEXT || op->code == DECIMAL || op->code == DATE) &&
      !text_meets(op, s, n))
    return left = 1, o;
  switch (op->code) {
  case TEXT:
    *row = sized(*row, s, n);
    return delimited(o, op, s, n);
  case ENUM: return name(o, row, op, s, n);
  case BOOL: return truth(o, row, op, s, n);
  case INT32: case INT64: case UINT32: case UINT64: return whole(o, row, op, s, n);
  case FLOAT: case DOUBLE: return binary(o, row, op, s, n);
  case DECIMAL: return exact(o, row, op, s, n);
  case DATE: return date(o, row, op, s, n);
  case TIME: return moment(o, row, op, s, n);
  case STRINGS: return strings(o, row, op, s, n);
  case OTHER: return empty(o, row, op, s, n);
  }
  return left = 1, o;
}

// --- rows ---

// Whether a key can stand in a path; see catalog/keys.py. Rows with other keys, valid or not, are
// left to Python.
static int32_t plain_key(Cell key) {
  if (key.n < 1 || key.n > MOST_KEY) return 0;
  if (key.p[0] == '.' && (key.n == 1 || (key.n == 2 && key.p[1] == '.'))) return 0;
  for (int32_t i = 0; i < key.n; i++)
    if (key.p[i] < 0x20 || key.p[i] > 0x7e || key.p[i] == '/') return 0;
  return 1;
}

// Whether a cell is spelled as a part of a key: a whole number, or text without escapes.
static int32_t plain_part(Cell part, int32_t whole) {
  int32_t i = whole && part.n > 1 && part.p[0] == '-';
  if (whole && part.p[i] == '0') return part.n == 1;
  for (; i < part.n; i++) {
    u8 c = part.p[i];
    if (whole ? c < '0' || c > '9' : c < 0x20 || c > 0x7d || c == '/' || c == '%') return 0;
  }
  return 1;
}

// The key of the row in `cells`; without bytes if the row is left to Python.
static Cell join_key(const Plan *plan) {
  static u8 text[MOST_KEY + 16];
  const int32_t *part = (const int32_t *)(base + plan->key_at);
  const Cell none = {text, 0};
  if (plan->key_parts == 1 && part[0] >= 0) return plain_key(cells[part[0]]) ? cells[part[0]] : none;
  u8 *o = text;
  for (int32_t i = 0; i < plan->key_parts; i++) {
    int32_t whole = part[i] < 0;
    Cell cell = cells[whole ? -1 - part[i] : part[i]];
    if (cell.n < 1 || cell.n >= MOST_KEY - (o - text) || !plain_part(cell, whole)) return none;
    if (i) *o++ = '~';
    o = put(o, cell.p, cell.n);
  }
  return (Cell){text, (int32_t)(o - text)};
}

// Whether any cell of the operations from `i` up to, not including, `end` has a value.
static int32_t any(const Plan *plan, int32_t i, int32_t end) {
  for (; i < end; i++)
    if (plan->op[i].column >= 0 && cells[plan->op[i].column].n >= 0) return 1;
  return 0;
}

// Writes the columns to `*row` and the record to `o`; stops when `left` is set.
static u8 *record(u8 *o, u8 **row, const Plan *plan, uint32_t odd) {
  u8 *open[MOST_DEPTH + 1]; // where the size of each open message stands; 0: the message is absent
  int32_t depth = 0;
  open[0] = 0;
  for (int32_t i = 0; i < plan->ops && !left; i++) {
    const Op *op = &plan->op[i];
    if (op->code == GROUP) { // a nested message: absent if all of its columns are NULL
      open[++depth] = 0;
      if (any(plan, i + 1, op->arg)) {
        o = lit(o, op->tag);
        open[depth] = ++o; // one byte for its size
      }
    } else if (op->code == CLOSE) {
      u8 *start = open[depth--];
      if (start) {
        uint32_t size = (uint32_t)(o - start), more = 0;
        while (size >> 7 * (more + 1)) more++;
        for (u8 *p = o - 1; more && p >= start; p--) p[more] = *p;
        varint(start - 1, size);
        o += more;
      }
    } else if (op->column < 0 || cells[op->column].n < 0) {
      int32_t present = open[depth] != 0;
      left |= op->required & (present ? WITHIN : ABSENT);
      *row = lit(*row, present ? op->filled : op->null);
      o = lit(o, present ? op->filled_image : op->null_image);
    } else {
      o = value(o, row, op, cells[op->column], odd);
    }
  }
  return o;
}

// Takes complete rows of cells. `index` receives the bytes written at `rows`, `entries` and `keys`,
// then for each row the size of its row and of its entry, or LEFT, or BLANK. `rows` and `entries`
// have `room` bytes each, `keys` has `size`. CELL follows each key.
EXPORT(load) int32_t load(const Plan *plan, const u8 *in, int32_t size, Index *index, u8 *keys,
                          u8 *rows, u8 *entries, int32_t room, int64_t ordinal) {
  const u8 *p = in, *end = in + size;
  u8 *k = keys, *r = rows, *e = entries;
  int32_t status = DONE, *pair = index->pair;
  base = (const u8 *)plan;
  result = (Result){0};
  while (p < end) {
    int32_t count;
    uint32_t odd = 0;
    const u8 *next = cut(p, end, &count, &odd);
    if (count < 0) {
      status = MALFORMED;
      break;
    }
    int64_t most = 4 * (int64_t)(next - p) + plan->fixed;
    if (most > rows + room - r || most > entries + room - e) {
      status = FULL;
      break;
    }
    int32_t blank = plan->width > 1 && count == 1 && cells[0].n < 0;
    pair[0] = blank ? BLANK : LEFT;
    pair[1] = 0;
    Cell key = {0, 0};
    if (count == plan->width) key = join_key(plan);
    left = !key.n;
    if (!left) {
      u8 *row = lit(r, plan->row_head);
      u8 *entry = lit(e, plan->entry_head);
      entry = lit(be64(entry, ordinal), plan->dataset);
      entry = lit(sized(entry, key.p, key.n), plan->operation);
      u8 *done = record(entry + 4, &row, plan, odd);
      if (!left) {
        be32(entry, (int32_t)(done - entry - 4));
        pair[0] = (int32_t)(row - r);
        pair[1] = (int32_t)(done - e);
        r = row, e = done;
        k = put(k, key.p, key.n);
        *k++ = CELL;
        ordinal++;
      }
    }
    pair += 2;
    p = next;
    result.rows++;
  }
  index->rows = (int32_t)(r - rows);
  index->entries = (int32_t)(e - entries);
  index->keys = (int32_t)(k - keys);
  result.consumed = (int32_t)(p - in);
  return status;
}
