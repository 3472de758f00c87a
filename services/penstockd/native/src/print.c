// Prints values. Shared by encode.c, digest.c, records.c and sheet.c.
#include "print.h"
#include "read.h"

int32_t broken;

static inline u8 *two(u8 *o, int32_t v) {
  o[0] = (u8)('0' + v / 10);
  o[1] = (u8)('0' + v % 10);
  return o + 2;
}

u8 *integer(u8 *o, int64_t value) {
  uint64_t v = (uint64_t)value;
  u8 digits[20];
  int32_t n = 0;
  if (value < 0) {
    *o++ = '-';
    v = 0 - v;
  }
  do digits[n++] = (u8)('0' + v % 10);
  while (v /= 10);
  while (n) *o++ = digits[--n];
  return o;
}

// Prints days since 2000-01-01 as year-month-day (years 1 to 9999).
u8 *date(u8 *o, int32_t days) {
  if (days == INT32_MIN) days = FIRST_DAY;
  if (days == INT32_MAX) days = LAST_DAY;
  if (days < FIRST_DAY || days > LAST_DAY) {
    broken = 1;
    return o;
  }
  uint32_t z = (uint32_t)(days + 730425), era = z / 146097, doe = z % 146097;
  uint32_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  uint32_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
  uint32_t month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);
  o = two(two(o, (int32_t)year / 100), (int32_t)year % 100);
  *o++ = '-';
  o = two(o, (int32_t)month);
  *o++ = '-';
  return two(o, (int32_t)(doy - (153 * mp + 2) / 5 + 1));
}

// Prints microseconds since 2000-01-01 as RFC 3339.
u8 *timestamp(u8 *o, int64_t us) {
  const int64_t day = 86400000000;
  if (us == INT64_MIN) us = FIRST_DAY * day; // as above
  if (us == INT64_MAX) us = (LAST_DAY + 1) * day - 1;
  int64_t days = us / day, rest = us % day;
  if (rest < 0) {
    rest += day;
    days--;
  }
  if (days < -800000 || days > 3000000) days = 3000000; // date() refuses it
  o = date(o, (int32_t)days);
  int32_t seconds = (int32_t)(rest / 1000000), micros = (int32_t)(rest % 1000000);
  *o++ = 'T';
  o = two(o, seconds / 3600);
  *o++ = ':';
  o = two(o, seconds / 60 % 60);
  *o++ = ':';
  o = two(o, seconds % 60);
  *o++ = '.';
  o = two(two(two(o, micros / 10000), micros / 100 % 100), micros % 100);
  *o++ = 'Z';
  return o;
}

// Prints a numeric. Its digits are in base 10,000, the first worth 10,000^weight; `scale` decimal
// digits follow the point.
u8 *numeric(u8 *o, const u8 *p, int32_t size) {
  int32_t n = be16(p), weight = be16(p + 2), sign = be16(p + 4) & 0xffff, scale = be16(p + 6);
  if (n < 0 || size != 8 + 2 * n || weight > 12 || scale > 60 || (sign & ~0x4000)) {
    broken = 1;
    return o;
  }
  if (sign) *o++ = '-';
  u8 *start = o;
  for (int32_t i = 0; i <= weight; i++) {
    int32_t d = i < n ? be16(p + 8 + 2 * i) : 0;
    o = two(two(o, d / 100), d % 100);
    if (i == 0) {
      int32_t zeros = d < 10 ? 3 : d < 100 ? 2 : d < 1000 ? 1 : 0;
      for (int32_t k = 0; k < 4 - zeros; k++) start[k] = start[k + zeros];
      o -= zeros;
    }
  }
  if (weight < 0) *o++ = '0';
  if (!scale) return o;
  *o++ = '.';
  for (int32_t i = weight + 1, left = scale; left > 0; i++, left -= 4) {
    int32_t d = i >= 0 && i < n ? be16(p + 8 + 2 * i) : 0;
    two(two(o, d / 100), d % 100);
    o += left < 4 ? left : 4;
  }
  return o;
}

u8 *base64(u8 *o, const u8 *p, int32_t n) {
  static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (; n > 0; n -= 3, p += 3, o += 4) {
    uint32_t v = (uint32_t)(p[0] << 16 | (n > 1 ? p[1] : 0) << 8 | (n > 2 ? p[2] : 0));
    o[0] = (u8)digit[v >> 18];
    o[1] = (u8)digit[v >> 12 & 63];
    o[2] = n > 1 ? (u8)digit[v >> 6 & 63] : '=';
    o[3] = n > 2 ? (u8)digit[v & 63] : '=';
  }
  return o;
}

u8 *xml_char(u8 *o, u8 c, int32_t attribute) {
  switch (c) {
  case '<': return word(o, "&lt;");
  case '>': return word(o, "&gt;");
  case '&': return word(o, "&amp;");
  case '"': return word(o, "&quot;");
  case '\r': return word(o, "&#13;");
  case '\n': if (attribute) return word(o, "&#10;"); break;
  case '\t': if (attribute) return word(o, "&#9;"); break;
  default:
    if (c < 0x20) return word(o, "\xEF\xBF\xBD"); // XML cannot carry it
  }
  *o++ = c;
  return o;
}

// Quotes a cell that is empty or contains a quote, comma or line end. NULL is an empty cell without
// quotes.
u8 *csv_text(u8 *o, const u8 *s, int32_t n) {
  u8 *start = o;
  const u8 *from = s;
  int32_t size = n, quoted = n == 0;
  while (n > 0) {
    COPY_UNTIL(wasm_v128_or(wasm_v128_or(IS('"'), IS(',')), wasm_v128_or(IS('\n'), IS('\r'))));
    quoted = 1;
    break;
  }
  if (!quoted) return o;
  o = start, s = from, n = size;
  *o++ = '"';
  while (n > 0) {
    COPY_UNTIL(IS('"'));
    *o++ = '"';
    *o++ = '"';
    s++;
    n--;
  }
  *o++ = '"';
  return o;
}

// Prints the inside of a JSON string. The canonical form of a record writes \b and \f; other output
// has \u escapes for them.
u8 *json_text(u8 *o, const u8 *s, int32_t n, int32_t canonical) {
  while (n > 0) {
    COPY_UNTIL(wasm_v128_or(CONTROL, wasm_v128_or(IS('"'), IS('\\'))));
    u8 c = *s++;
    n--;
    *o++ = '\\';
    switch (c) {
    case '\n': *o++ = 'n'; break;
    case '\r': *o++ = 'r'; break;
    case '\t': *o++ = 't'; break;
    case '"': case '\\': *o++ = c; break;
    case '\b': case '\f':
      if (canonical) {
        *o++ = c == '\b' ? 'b' : 'f';
        break;
      }
      __attribute__((fallthrough));
    default:
      o = word(o, "u00");
      *o++ = '0' + (c >> 4);
      *o++ = (u8)"0123456789abcdef"[c & 15];
    }
  }
  return o;
}
