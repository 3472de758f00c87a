// Computes the SHA-256 of the canonical form of each record in COPY BINARY rows, following a plan
// that digest.py makes. penstock/hub/v1/digests.proto defines the canonical form.
#include "abi/digest.h"
#include "print.h"
#include "read.h"
#include "sha256.h"

enum { MOST_JOBS = 256, DEPTH = 64 };
static const int32_t PER_BYTE = 8;     // the most bytes that one byte of a row becomes
static const int32_t PER_COLUMN = 256; // the most bytes that a column adds to those

static const u8 *base;       // the plan
static int32_t empty;        // the value printed last is its field's default
static u8 *scratch, *scratch_end;

static inline u8 *lit(u8 *o, Text t) { return put(o, base + t.at, t.size); }
static int32_t same(const u8 *s, int32_t n, const u8 *t, int32_t size) {
  if (n != size) return 0;
  for (int32_t i = 0; i < n; i++)
    if (s[i] != t[i]) return 0;
  return 1;
}

static u8 *text(u8 *o, const u8 *s, int32_t n) {
  *o++ = '"';
  o = json_text(o, s, n, 1);
  *o++ = '"';
  return o;
}

// Drops the zeros at the end of a fraction.
static u8 *stripped(u8 *start, u8 *o) {
  u8 *point = start;
  while (point < o && *point != '.') point++;
  if (point == o) return o;
  while (o[-1] == '0') o--;
  return o[-1] == '.' ? o - 1 : o;
}

// Shortens digits that PostgreSQL prints with one digit more than ECMAScript does. That happens to
// whole numbers only, if the shorter text lies exactly half way to a neighbouring number; it reads
// back as the same number, whose mantissa is even. The value is digits * 10^power; `bits` is the
// width of the mantissa.
static void shorten(u8 *digits, int32_t *count, int32_t *power, int32_t bits) {
  if (*count < 2 || *count > 17 || *power < 0 || *power > 22) return;
  uint64_t whole = 0;
  for (int32_t i = 0; i < *count; i++) whole = whole * 10 + digits[i] - '0';
  uint64_t last = whole % 10, up = last >= 5, shorter = whole / 10 + up;
  uint64_t odd = shorter, distance = up ? 10 - last : last;
  int32_t twos = *power + 1; // shorter * 10^(power + 1) = odd * 2^twos
  while (!(odd & 1)) odd >>= 1, twos++;
  for (int32_t i = 0; i <= *power; i++, odd *= 5)
    if (odd >> (bits + 1)) return;
  if (odd >> bits != 1) return; // not half way between two numbers
  for (int32_t i = 0; i < *power; i++) distance *= 5;
  int32_t room = twos + 1 - *power; // the numbers are 2^(twos + 1) apart
  if (room < 0 || (room < 60 && distance >> room)) return;
  if (((up ? odd - 1 : odd + 1) / 2) & 1) return;
  *power += 1;
  u8 text[20];
  int32_t n = (int32_t)(integer(text, (int64_t)shorter) - text);
  while (text[n - 1] == '0') n--, *power += 1;
  for (int32_t i = 0; i < n; i++) digits[i] = text[i];
  *count = n;
}

// Prints a number as ECMAScript does, from the decimal text of its shortest digits. `bits` is
// passed to `shorten`; 0 if PostgreSQL did not print the text from a float.
static u8 *number(u8 *o, const u8 *s, int32_t n, int32_t bits) {
  u8 digits[400];
  int32_t count = 0, point = 0, seen = 0, exponent = 0, i = 0, minus = n > 0 && s[0] == '-';
  for (i = minus; i < n && s[i] != 'e' && s[i] != 'E'; i++) {
    if (s[i] == '.') {
      seen = 1;
      continue;
    }
    if (s[i] < '0' || s[i] > '9' || count == (int32_t)sizeof digits) {
      broken = 1;
      return o;
    }
    if (count || s[i] != '0') digits[count++] = s[i];
    if (!seen && count) point++;
    if (seen && !count) point--;
  }
  if (i < n) {
    int32_t down = s[++i] == '-';
    for (i += s[i] == '-' || s[i] == '+'; i < n; i++) exponent = exponent * 10 + s[i] - '0';
    point += down ? -exponent : exponent;
  }
  while (count && digits[count - 1] == '0') count--;
  empty = !count;
  if (!count) {
    *o++ = '0';
    return o;
  }
  if (bits) {
    int32_t power = point - count;
    shorten(digits, &count, &power, bits);
    point = power + count;
  }
  if (minus) *o++ = '-';
  if (point > 21 || point <= -6) {
    *o++ = digits[0];
    if (count > 1) *o++ = '.';
    for (i = 1; i < count; i++) *o++ = digits[i];
    *o++ = 'e';
    *o++ = point > 0 ? '+' : '-';
    return integer(o, point > 0 ? point - 1 : 1 - point);
  }
  if (point <= 0) o = word(o, "0.");
  for (i = point; i < 0; i++) *o++ = '0';
  for (i = 0; i < count; i++) {
    if (i == point && i) *o++ = '.';
    *o++ = digits[i];
  }
  for (; i < point; i++) *o++ = '0';
  return o;
}

static u8 *floating(u8 *o, const u8 *s, int32_t n, int32_t bits) {
  int32_t odd = s[0] == 'N' || s[0] == 'I' || (s[0] == '-' && s[1] == 'I');
  if (odd) return text(o, s, n);
  o = number(o, s, n, bits);
  empty = n == 1 && s[0] == '0';
  return o;
}

// --- jsonb: walks its text along the shape of its field ---

typedef struct {
  const u8 *p, *end;
} Source;

typedef struct {
  const u8 *key, *key_end, *value;
} Entry;

static u8 *canonical(u8 *o, Source *in, const int32_t *shape, int32_t depth);

static void *room_for(int32_t bytes) {
  u8 *found = scratch;
  if (bytes > scratch_end - scratch) {
    broken = 1;
    return 0;
  }
  scratch += bytes;
  return found;
}

static u8 peek(Source *in) {
  while (in->p < in->end && *in->p == ' ') in->p++;
  return in->p < in->end ? *in->p : 0;
}

static void comma(Source *in) {
  if (peek(in) == ',') in->p++;
}

// Moves from an opening quote past the closing one.
static void skip_string(Source *in) {
  for (in->p++; in->p < in->end && *in->p != '"'; in->p++)
    if (*in->p == '\\') in->p++;
  in->p++;
}

static void skip(Source *in) {
  int32_t depth = 0;
  do {
    u8 c = peek(in);
    if (!c) return;
    if (c == '"') {
      skip_string(in);
      continue;
    }
    if (c == '[' || c == '{') depth++;
    if (c == ']' || c == '}') depth--;
    in->p++;
    if (c == '[' || c == '{' || c == ']' || c == '}' || c == ',' || c == ':') continue;
    while (in->p < in->end && *in->p != ',' && *in->p != ']' && *in->p != '}') in->p++;
  } while (depth > 0);
}

// Returns the next byte of a JSON string, mapped so that UTF-8 sorts in the order of UTF-16.
static int32_t next_unit(const u8 **p) {
  u8 c = *(*p)++;
  if (c == '\\') {
    c = *(*p)++;
    if (c != 'u') return c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? 8
                       : c == 'f' ? 12 : c;
    u8 high = (*p)[2], low = (*p)[3]; // a control character
    *p += 4;
    return (high - '0') << 4 | (low <= '9' ? low - '0' : (low | 32) - 'a' + 10);
  }
  return c < 0xEE ? c : c < 0xF0 ? c + 0x10 : c - 2;
}

static int32_t below(const Entry *a, const Entry *b) {
  const u8 *p = a->key, *q = b->key;
  while (p < a->key_end && q < b->key_end) {
    int32_t difference = next_unit(&p) - next_unit(&q);
    if (difference) return difference < 0;
  }
  return p >= a->key_end && q < b->key_end;
}

static void sift(Entry *heap, int32_t at, int32_t count) {
  for (;;) {
    int32_t child = 2 * at + 1;
    if (child >= count) return;
    if (child + 1 < count && below(&heap[child], &heap[child + 1])) child++;
    if (!below(&heap[at], &heap[child])) return;
    Entry kept = heap[at];
    heap[at] = heap[child];
    heap[child] = kept;
    at = child;
  }
}

static void sort(Entry *entries, int32_t count) {
  for (int32_t i = count / 2 - 1; i >= 0; i--) sift(entries, i, count);
  for (int32_t last = count - 1; last > 0; last--) {
    Entry kept = entries[0];
    entries[0] = entries[last];
    entries[last] = kept;
    sift(entries, 0, last);
  }
}

static u8 *map(u8 *o, Source *in, const int32_t *value, int32_t depth) {
  u8 *kept = scratch;
  Entry *entries = (Entry *)scratch;
  int32_t count = 0;
  in->p++;
  while (peek(in) == '"') {
    Entry *entry = room_for((int32_t)sizeof(Entry));
    if (!entry) return o;
    entry->key = in->p + 1;
    skip_string(in);
    entry->key_end = in->p - 1;
    if (peek(in) == ':') in->p++;
    peek(in);
    entry->value = in->p;
    skip(in);
    comma(in);
    count++;
  }
  in->p++;
  sort(entries, count);
  *o++ = '{';
  for (int32_t i = 0; i < count && !broken; i++) {
    Source at = {entries[i].value, in->end};
    if (i) *o++ = ',';
    *o++ = '"';
    o = put(o, entries[i].key, (int32_t)(entries[i].key_end - entries[i].key));
    o = word(o, "\":");
    o = canonical(o, &at, value, depth + 1);
  }
  *o++ = '}';
  scratch = kept;
  empty = !count;
  return o;
}

static u8 *message(u8 *o, Source *in, const int32_t *shape, int32_t depth) {
  u8 *kept = scratch;
  int32_t count = shape[1];
  const Member *members = (const Member *)(shape + 2);
  const u8 **found = room_for(count * (int32_t)sizeof *found);
  if (!found) return o;
  for (int32_t i = 0; i < count; i++) found[i] = 0;
  in->p++;
  while (peek(in) == '"') {
    const u8 *name = in->p + 1;
    int32_t i = 0;
    skip_string(in);
    int32_t size = (int32_t)(in->p - 1 - name);
    while (i < count && !same(name, size, base + members[i].bare.at, members[i].bare.size)) i++;
    if (peek(in) == ':') in->p++;
    peek(in);
    if (i < count) found[i] = in->p;
    else broken = 1;
    skip(in);
    comma(in);
  }
  in->p++;
  *o++ = '{';
  u8 *start = o;
  for (int32_t i = 0; i < count && !broken; i++) {
    if (!found[i] || *found[i] == 'n') continue;
    Source at = {found[i], in->end};
    u8 *mark = o;
    if (o != start) *o++ = ',';
    o = canonical(lit(o, members[i].name), &at, (const int32_t *)(base + members[i].shape),
                  depth + 1);
    if (empty && !members[i].presence) o = mark;
  }
  *o++ = '}';
  scratch = kept;
  empty = 0;
  return o;
}

static u8 *list(u8 *o, Source *in, const int32_t *item, int32_t depth) {
  u8 *start = o;
  in->p++;
  *o++ = '[';
  while (!broken && peek(in) != ']' && in->p < in->end) {
    if (o != start + 1) *o++ = ',';
    o = canonical(o, in, item, depth + 1);
    comma(in);
  }
  in->p++;
  *o++ = ']';
  empty = o == start + 2;
  return o;
}

static u8 *quoted(u8 *o, Source *in, const int32_t *shape) {
  const u8 *s = in->p;
  skip_string(in);
  int32_t n = (int32_t)(in->p - s);
  u8 *start = o;
  o = put(o, s, n);
  empty = n == 2;
  if (shape[0] == S_ENUM) empty = same(s + 1, n - 2, base + shape[1], shape[2]);
  if (shape[0] == S_WHOLE) empty = n == 3 && s[1] == '0';
  if (shape[0] == S_DECIMAL) {
    o = stripped(start + 1, o - 1);
    *o++ = '"';
  }
  return o;
}

static u8 *canonical(u8 *o, Source *in, const int32_t *shape, int32_t depth) {
  u8 c = peek(in);
  empty = 0;
  if (broken || depth > DEPTH || !c) {
    broken = 1;
    return o;
  }
  if (shape[0] == S_MAP && c == '{') return map(o, in, (const int32_t *)(base + shape[1]), depth);
  if (shape[0] == S_LIST && c == '[') return list(o, in, (const int32_t *)(base + shape[1]), depth);
  if (shape[0] == S_MESSAGE && c == '{') return message(o, in, shape, depth);
  if (shape[0] == S_ANY) { // what is in it is of any shape, too
    if (c == '{') return map(o, in, shape, depth);
    if (c == '[') return list(o, in, shape, depth);
    if (c == 'n') {
      in->p += 4;
      return word(o, "null");
    }
  } else if (shape[0] < S_STRING || c == '{' || c == '[') {
    broken = 1;
    return o;
  }
  if (c == '"') return quoted(o, in, shape);
  const u8 *s = in->p;
  while (in->p < in->end && *in->p != ',' && *in->p != ']' && *in->p != '}') in->p++;
  int32_t n = (int32_t)(in->p - s);
  if (c == 't' || c == 'f') {
    empty = c == 'f';
    return put(o, s, n);
  }
  return number(o, s, n, 0);
}

// --- rows ---

static u8 *decimal(u8 *o, const u8 *p, int32_t n) {
  *o++ = '"';
  u8 *start = o;
  o = stripped(start, numeric(start, p, n));
  *o++ = '"';
  return o;
}

static u8 *value(u8 *o, const Op *op, const u8 *p, int32_t n) {
  empty = 0;
  switch (op->code) {
  case STRING: empty = !n; return text(o, p, n);
  case ENUM: empty = same(p, n, base + op->absent.at, op->absent.size); return text(o, p, n);
  case BOOL: empty = !*p; return word(o, *p ? "true" : "false");
  case INT4: empty = !be32(p); return integer(o, be32(p));
  case INT8_BARE: empty = !be64(p); return integer(o, be64(p));
  case DECIMAL: return decimal(o, p, n);
  case NUMERIC: empty = n == 8; return decimal(o, p, n);
  case FLOAT: return floating(o, p, n, 53);
  case SINGLE: return floating(o, p, n, 24);
  case JSONB: {
    Source in = {p + 1, p + n}; // the first byte is jsonb's version
    return canonical(o, &in, (const int32_t *)(base + op->shape), 0);
  }
  }
  *o++ = '"';
  switch (op->code) {
  case INT8: empty = !be64(p); o = integer(o, be64(p)); break;
  case BYTEA: empty = !n; o = base64(o, p, n); break;
  case DATE: o = date(o, be32(p)); break;
  case TIME: o = timestamp(o, be64(p)); break;
  default: broken = 1;
  }
  *o++ = '"';
  return o;
}

static const u8 *at_column; // the next column of the row
static int32_t column;

static u8 *object(u8 *o, const Op *op, int32_t count) {
  *o++ = '{';
  u8 *start = o;
  for (int32_t i = 0; i < count; i++, op++) {
    u8 *mark = o;
    if (o != start) *o++ = ',';
    o = lit(o, op->name);
    if (op->code == GROUP) { // absent if all of its columns are NULL
      int32_t k = 0;
      while (k < op->columns && be32(at_column + 4 * k) < 0) k++;
      if (k == op->columns) {
        at_column += 4 * k;
        column += k;
        o = mark;
      } else {
        o = object(o, op + 1, op->ops);
      }
      i += op->ops;
      op += op->ops;
      continue;
    }
    int32_t n = be32(at_column);
    const u8 *p = at_column + 4;
    at_column = n > 0 ? p + n : p;
    if (n < 0 || op->code == PASSED) {
      o = mark;
    } else {
      o = value(o, op, p, n);
      if (empty && !op->presence) o = mark;
    }
    if (broken) return o;
    column++;
  }
  *o++ = '}';
  return o;
}

static Job jobs[MOST_JOBS];

EXPORT(digest) int32_t digest(const Plan *plan, const u8 *in, int32_t size, const Target *target) {
  const u8 *p = in, *end = in + size;
  u8 *o = target->text, *keys = target->keys;
  int32_t status = DONE, waiting = 0;
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
    int64_t most = (int64_t)n * PER_BYTE + plan->literals + (int64_t)plan->columns * PER_COLUMN;
    if (waiting == MOST_JOBS || (waiting && most > target->text + target->room - o)) {
      hash(jobs, waiting);
      waiting = 0;
      o = target->text;
    }
    if (result.rows == MOST_ROWS || most > target->room) {
      status = FULL;
      result.detail = most > INT32_MAX ? -1 : (int32_t)most;
      break;
    }
    scratch = target->scratch;
    scratch_end = scratch + target->scratch_room;
    at_column = p + 2;
    column = 0;
    u8 *after = object(o, plan->op, plan->ops);
    if (broken) {
      status = MALFORMED;
      result.detail = column;
      break;
    }
    jobs[waiting] = (Job){o, pad(o, after), target->digests + 32 * result.rows};
    o += 64 * jobs[waiting++].blocks;
    keys = put(keys, key + 4, be32(key));
    target->ends[result.rows++] = (int32_t)(keys - target->keys);
    p += n;
  }
  hash(jobs, waiting);
  result.consumed = (int32_t)(p - in);
  result.produced = (int32_t)(keys - target->keys);
  return status;
}
