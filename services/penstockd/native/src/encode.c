// COPY BINARY rows -> CSV, JSON or XML, steered by a plan that plan.py lays out.
#include "kernel.h"
#include "print.h"

typedef struct {
  int32_t at, size;
} Text; // a literal: offset from the plan's start, length

typedef struct {
  int32_t code, arg, shape;
  Text before, after, null;
} Op;

typedef struct {
  int32_t format, ops, columns, literals, key; // the key's column
  Text open, close;
  Op op[];
} Plan;

enum { CSV, JSON, XML, SAFE_CSV, SHEET };
enum { GROUP, LITERAL, TEXT, BOOL, INT4, INT8, NUMERIC, FLOAT, BYTEA, DATE, TIME, JSONB,
       PASSED };
enum { SCALAR, LIST, MAP, MESSAGE };

static const int32_t PER_BYTE = 16;    // a byte of a row becomes at most so many
static const int32_t PER_COLUMN = 128; // and a column at most so many more

Result result;
static const u8 *base; // the plan
int32_t broken;        // a value cannot be printed

static inline u8 *lit(u8 *o, Text t) { return put(o, base + t.at, t.size); }
static inline int32_t be16(const u8 *p) { return (int16_t)(p[0] << 8 | p[1]); }
static inline int32_t be32(const u8 *p) {
  return (int32_t)__builtin_bswap32(*(const uint32_t *)p);
}
static inline int64_t be64(const u8 *p) {
  return (int64_t)__builtin_bswap64(*(const uint64_t *)p);
}

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

// The first and last day that we know. asyncpg writes them as -infinity and infinity.
static const int32_t FIRST_DAY = -730119, LAST_DAY = 2921939;

// Days since 2000-01-01 -> year-month-day (years 1 to 9999).
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

// Microseconds since 2000-01-01 -> RFC 3339.
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

// numeric: digits in base 10,000, the first worth 10,000^weight; `scale` digits after the point.
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

static u8 *json_text(u8 *o, const u8 *s, int32_t n) {
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
    default:
      o = word(o, "u00");
      *o++ = '0' + (c >> 4);
      *o++ = (u8)"0123456789abcdef"[c & 15];
    }
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

static u8 *xml_text(u8 *o, const u8 *s, int32_t n) {
  while (n > 0) {
    COPY_UNTIL(wasm_v128_or(CONTROL, wasm_v128_or(IS('<'), wasm_v128_or(IS('>'), IS('&')))));
    o = xml_char(o, *s++, 0);
    n--;
  }
  return o;
}

// A cell is quoted if it holds a quote, comma or line end, or is empty: NULL is the bare empty cell.
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

static u8 *text(u8 *o, const u8 *s, int32_t n, int32_t format) {
  switch (format) {
  case JSON: return json_text(o, s, n);
  case XML: return xml_text(o, s, n);
  case SAFE_CSV: return safe_text(o, s, n, 0);
  default: return csv_text(o, s, n);
  }
}

// --- jsonb as XML: the JSON text is walked along the shape of its field ---

typedef struct {
  const u8 *p, *end;
} Source;

static u8 peek(Source *in) {
  while (in->p < in->end && (*in->p == ' ' || *in->p == '\n')) in->p++;
  return in->p < in->end ? *in->p : 0;
}

static u8 *utf8(u8 *o, uint32_t c, int32_t attribute) {
  if (c < 0x80) return xml_char(o, (u8)c, attribute);
  if (c < 0x800) *o++ = (u8)(0xC0 | c >> 6);
  else {
    if (c < 0x10000) *o++ = (u8)(0xE0 | c >> 12);
    else {
      *o++ = (u8)(0xF0 | c >> 18);
      *o++ = (u8)(0x80 | (c >> 12 & 63));
    }
    *o++ = (u8)(0x80 | (c >> 6 & 63));
  }
  *o++ = (u8)(0x80 | (c & 63));
  return o;
}

static uint32_t hex4(Source *in) {
  uint32_t v = 0;
  for (int32_t i = 0; i < 4 && in->p < in->end; i++) {
    u8 c = *in->p++;
    v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
  }
  return v;
}

static u8 *json_string_as_xml(u8 *o, Source *in, int32_t attribute) {
  in->p++;
  while (in->p < in->end && *in->p != '"') {
    u8 c = *in->p++;
    if (c != '\\') {
      o = c >= 0x80 ? (*o = c, o + 1) : xml_char(o, c, attribute);
      continue;
    }
    c = in->p < in->end ? *in->p++ : 0;
    if (c == 'u') {
      uint32_t v = hex4(in);
      if (v >= 0xD800 && v < 0xDC00 && in->p + 1 < in->end && in->p[0] == '\\') {
        in->p += 2;
        v = 0x10000 + ((v - 0xD800) << 10) + (hex4(in) - 0xDC00);
      }
      o = utf8(o, v, attribute);
    } else {
      o = xml_char(o, c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? 8
                      : c == 'f' ? 12 : c, attribute);
    }
  }
  in->p++;
  return o;
}

// Where the member's name stands in a message's shape; 0 if it does not.
static const int32_t *member(const int32_t *shape, const u8 *name, int32_t size) {
  const int32_t *m = shape + 2;
  for (int32_t i = 0; i < shape[1]; i++, m += 5) {
    int32_t k = 0;
    if (m[1] != size) continue;
    while (k < size && base[m[0] + k] == name[k]) k++;
    if (k == size) return m;
  }
  return 0;
}

static u8 *tag(u8 *o, const u8 *name, int32_t size, int32_t closing) {
  *o++ = '<';
  if (closing) *o++ = '/';
  o = put(o, name, size);
  *o++ = '>';
  return o;
}

static u8 *json_as_xml(u8 *o, Source *in, const int32_t *shape, int32_t depth);

static u8 *members_as_xml(u8 *o, Source *in, const int32_t *shape, int32_t depth) {
  while (!broken && peek(in) == '"') {
    const u8 *name = in->p + 1;
    const int32_t *m = 0;
    if (shape[0] == MAP) {
      o = word(o, "<entry key=\"");
      o = json_string_as_xml(o, in, 1);
      o = word(o, "\">");
    } else {
      while (in->p + 1 < in->end && *++in->p != '"') {}
      m = member(shape, name, (int32_t)(in->p - name));
      in->p++;
      if (!m) broken = 1;
    }
    if (peek(in) == ':') in->p++;
    int32_t null = peek(in) == 'n';
    if (m && !null) o = tag(o, base + m[2], m[3], 0);
    o = json_as_xml(o, in, m ? (const int32_t *)(base + m[4]) : (const int32_t *)(base + shape[1]),
                    depth + 1);
    if (m && !null) o = tag(o, base + m[2], m[3], 1);
    if (shape[0] == MAP) o = word(o, "</entry>");
    if (peek(in) == ',') in->p++;
  }
  return o;
}

static u8 *json_as_xml(u8 *o, Source *in, const int32_t *shape, int32_t depth) {
  u8 c = peek(in);
  if (broken || depth > 64 || !c) {
    broken = 1;
    return o;
  }
  if (c == '"') return json_string_as_xml(o, in, 0);
  if (c == '[' && shape[0] == LIST) {
    in->p++;
    while (!broken && peek(in) != ']') {
      o = word(o, "<item>");
      o = json_as_xml(o, in, (const int32_t *)(base + shape[1]), depth + 1);
      o = word(o, "</item>");
      if (peek(in) == ',') in->p++;
    }
    in->p++;
    return o;
  }
  if (c == '{' && shape[0] >= MAP) {
    in->p++;
    o = members_as_xml(o, in, shape, depth);
    if (peek(in) != '}') broken = 1;
    in->p++;
    return o;
  }
  if (c == '[' || c == '{') broken = 1;
  const u8 *start = in->p;
  while (in->p < in->end && *in->p != ',' && *in->p != ']' && *in->p != '}') in->p++;
  return *start == 'n' ? o : put(o, start, (int32_t)(in->p - start));
}

// --- rows ---

static u8 *floating(u8 *o, const u8 *p, int32_t n, int32_t format) {
  int32_t odd = p[0] == 'N' || p[0] == 'I' || (p[0] == '-' && p[1] == 'I');
  if (odd && format == SAFE_CSV) return safe_text(o, p, n, 0);
  odd = odd && format == JSON;
  if (odd) *o++ = '"';
  o = put(o, p, n);
  if (odd) *o++ = '"';
  return o;
}

// A cell of a sheet of XLSX; see sheet.c.
static u8 *cell(u8 *o, const Op *op, const u8 *p, int32_t n) {
  u8 *after;
  switch (op->code) {
  case BOOL: return sheet_bool(o, *p);
  case INT4: return sheet_integer(o, be32(p));
  case INT8: return sheet_integer(o, be64(p));
  case NUMERIC: return sheet_numeric(o, p, n);
  case FLOAT: return sheet_float(o, p, n);
  case DATE: return sheet_date(o, be32(p));
  case TIME: return sheet_time(o, be64(p));
  case BYTEA: after = sheet_bytes(o, p, n); break;
  case JSONB: after = sheet_text(o, p + 1, n - 1); break; // the first byte is jsonb's version
  default: after = sheet_text(o, p, n);
  }
  broken = !after;
  return after ? after : o;
}

static u8 *value(u8 *o, const Op *op, const u8 *p, int32_t n, int32_t format) {
  if (format == SHEET) return cell(o, op, p, n);
  switch (op->code) {
  case TEXT: return text(o, p, n, format);
  case BOOL: return word(o, *p ? "true" : "false");
  case INT4: return integer(o, be32(p));
  case INT8: return integer(o, be64(p));
  case NUMERIC: return numeric(o, p, n);
  case FLOAT: return floating(o, p, n, format);
  case BYTEA:
    if (n == 0 && (format == CSV || format == SAFE_CSV)) return word(o, "\"\"");
    if (format == SAFE_CSV && p[0] >> 2 == 62) *o++ = '\''; // its first digit is a plus
    return base64(o, p, n);
  case DATE: return date(o, be32(p));
  case TIME: return timestamp(o, be64(p));
  case JSONB:
    if (format == CSV) return csv_text(o, p + 1, n - 1); // the first byte is jsonb's version
    if (format == SAFE_CSV) return safe_text(o, p + 1, n - 1, 1);
    if (format == JSON) return put(o, p + 1, n - 1);
    Source in = {p + 1, p + n};
    return json_as_xml(o, &in, (const int32_t *)(base + op->shape), 0);
  }
  broken = 1;
  return o;
}

static u8 *row(u8 *o, const Plan *plan, const u8 *p) {
  o = lit(o, plan->open);
  for (int32_t i = 0; i < plan->ops; i++) {
    const Op *op = &plan->op[i];
    if (op->code == GROUP) { // a nested message: absent if all of its columns are NULL
      int32_t k = 0;
      while (k < op->arg && be32(p + 4 * k) < 0) k++;
      if (k == op->arg) {
        o = lit(o, op->null);
        p += 4 * k;
        i += op->shape;
      } else {
        o = lit(o, op->before);
      }
    } else if (op->code == LITERAL) {
      o = lit(o, op->before);
    } else if (op->code == PASSED) {
      p += 4 + (be32(p) > 0 ? be32(p) : 0);
    } else {
      int32_t n = be32(p);
      p += 4;
      if (n < 0) {
        o = lit(o, op->null);
      } else {
        o = lit(o, op->before);
        o = value(o, op, p, n, plan->format);
        o = lit(o, op->after);
        p += n;
        if (broken) {
          result.detail = op->arg;
          return o;
        }
      }
    }
  }
  return lit(o, plan->close);
}

// The size of the row that starts at `p`; 0 if `end` comes first, -1 if it is no such row. Its key
// is left in `key`.
static const u8 *key;
static int32_t measure(const Plan *plan, const u8 *p, const u8 *end) {
  const u8 *start = p;
  if (end - p < 2) return 0;
  if (be16(p) != plan->columns) return -1;
  p += 2;
  for (int32_t i = 0; i < plan->columns; i++) {
    if (end - p < 4) return 0;
    int32_t n = be32(p);
    if (i == plan->key) key = p;
    p += 4;
    if (n > end - p) return 0;
    if (n > 0) p += n;
  }
  return (int32_t)(p - start);
}

EXPORT(encode) int32_t encode(const Plan *plan, const u8 *in, int32_t size, u8 *out, int32_t room) {
  const u8 *p = in, *end = in + size;
  u8 *o = out;
  int32_t status = DONE;
  base = (const u8 *)plan;
  broken = 0;
  result = (Result){0};
  for (;;) {
    if (end - p >= 2 && be16(p) == -1) {
      p += 2;
      status = END;
      break;
    }
    int32_t n = measure(plan, p, end);
    if (n <= 0) {
      status = n < 0 ? MALFORMED : DONE;
      result.detail = n; // of MALFORMED: no column, the row itself
      break;
    }
    if (!keys_room()) {
      status = KEYS;
      break;
    }
    int64_t most = (int64_t)n * PER_BYTE + plan->literals + (int64_t)plan->columns * PER_COLUMN;
    if (most > out + room - o) {
      status = FULL;
      result.detail = most > INT32_MAX ? -1 : (int32_t)most;
      break;
    }
    o = row(o, plan, p + 2);
    if (broken) {
      status = MALFORMED;
      break;
    }
    keep_key(key + 4, be32(key));
    p += n;
    result.rows++;
  }
  result.consumed = (int32_t)(p - in);
  result.produced = (int32_t)(o - out);
  return status;
}

EXPORT(results) Result *results(void) { return &result; }
