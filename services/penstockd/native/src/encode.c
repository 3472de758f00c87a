// Prints COPY BINARY rows as CSV, JSON, XML or cells of XLSX, following a plan that print_plan.py
// makes.
#include "abi/encode.h"
#include "print.h"
#include "read.h"

static const int32_t PER_BYTE = 16;    // the most bytes that one byte of a row becomes
static const int32_t PER_COLUMN = 128; // the most bytes that a column adds to those

Result result;
static const u8 *base; // the plan

static inline u8 *lit(u8 *o, Text t) { return put(o, base + t.at, t.size); }

static u8 *xml_text(u8 *o, const u8 *s, int32_t n) {
  while (n > 0) {
    COPY_UNTIL(wasm_v128_or(CONTROL, wasm_v128_or(IS('<'), wasm_v128_or(IS('>'), IS('&')))));
    o = xml_char(o, *s++, 0);
    n--;
  }
  return o;
}

static u8 *text(u8 *o, const u8 *s, int32_t n, int32_t format) {
  switch (format) {
  case JSON: return json_text(o, s, n, 0);
  case XML: return xml_text(o, s, n);
  case SAFE_CSV: return safe_text(o, s, n, 0);
  default: return csv_text(o, s, n);
  }
}

// --- jsonb as XML: walks the JSON text along the shape of its field ---

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

// Returns the member of a message by its JSON name; 0 if there is none.
static const Member *member(const int32_t *shape, const u8 *name, int32_t size) {
  const Member *m = (const Member *)(shape + 2);
  for (int32_t i = 0; i < shape[1]; i++, m++) {
    int32_t k = 0;
    if (m->json_name.size != size) continue;
    while (k < size && base[m->json_name.at + k] == name[k]) k++;
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
    const Member *m = 0;
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
    if (m && !null) o = tag(o, base + m->name.at, m->name.size, 0);
    o = json_as_xml(o, in, m ? (const int32_t *)(base + m->shape) : (const int32_t *)(base + shape[1]),
                    depth + 1);
    if (m && !null) o = tag(o, base + m->name.at, m->name.size, 1);
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

static int32_t losses[MOST_CELLS]; // by column, how many cells do not hold their values exactly

// Prints the value of a cell of an XLSX sheet; see sheet.c.
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
  if (format == SHEET) {
    lossy = 0;
    o = cell(o, op, p, n);
    if (lossy && op->arg < MOST_CELLS) losses[op->arg]++;
    return o;
  }
  switch (op->code) {
  case TEXT: return text(o, p, n, format);
  case BOOL: return word(o, *p ? "true" : "false");
  case INT4: return integer(o, be32(p));
  case INT8: return integer(o, be64(p));
  case NUMERIC: return numeric(o, p, n);
  case FLOAT: return floating(o, p, n, format);
  case BYTEA:
    if (n == 0 && (format == CSV || format == SAFE_CSV)) return word(o, "\"\"");
    if (format == SAFE_CSV && p[0] >> 2 == 62) *o++ = '\''; // its base64 begins with a plus
    return base64(o, p, n);
  case DATE: return date(o, be32(p));
  case TIME: return timestamp(o, be64(p));
  case JSONB:
    if (format == CSV) return csv_text(o, p + 1, n - 1); // the first byte is jsonb's version
    if (format == SAFE_CSV) return safe_text(o, p + 1, n - 1, 1);
    if (format == JSON) return put(o, p + 1, n - 1);
    if (*(const int32_t *)(base + op->shape) == ANY) return xml_text(o, p + 1, n - 1);
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
    const u8 *key = 0;
    int32_t n = row_size(plan->columns, plan->key, p, end, &key);
    if (n <= 0) {
      status = n < 0 ? MALFORMED : DONE;
      result.detail = n; // -1 with MALFORMED: the fault is in the row, not in one of its columns
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

// Returns, for each column of a sheet, how many of its cells do not hold their values exactly.
EXPORT(count_losses) int32_t *count_losses(void) { return losses; }

EXPORT(results) Result *results(void) { return &result; }
