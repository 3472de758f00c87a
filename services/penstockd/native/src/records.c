// Turns serialised records into cells like those of split_csv, following a plan that records.py
// makes.
//
// Cells have the spelling of our own exports, which load.c reads. A value that has no such
// spelling, or one that is too costly to make, becomes a cell that load.c leaves to Python.
#include "abi/cells.h"
#include "abi/records.h"
#include "print.h"

typedef struct {
  const u8 *p; // the bytes of a value that has a length
  int64_t v;   // the length, or the value
  int32_t seen;
} Slot;

static Slot slots[MOST_COLUMNS];
static int32_t here[MOST_SHAPES]; // whether a nested message is present
static const Leaf *of_column[MOST_COLUMNS];
static const u8 *base;
static u8 *list; // free memory for the JSON of repeated strings
static int32_t malformed;

static uint64_t varint(const u8 **p, const u8 *end) {
  uint64_t v = 0;
  for (int32_t shift = 0; *p < end && shift < 70; shift += 7) {
    u8 c = *(*p)++;
    v |= (uint64_t)(c & 0x7f) << shift;
    if (c < 0x80) return v;
  }
  malformed = 1;
  return 0;
}

// Appends a string to the JSON of a list, which must stay contiguous.
static void append(Slot *slot, const u8 *s, int64_t n) {
  u8 *o = list;
  if (!slot->seen) {
    slot->p = o;
    *o++ = '[';
  } else if (slot->p + slot->v != o) {
    slot->v = -1; // another list has written behind it
  } else {
    o[-1] = ',';
  }
  if (slot->v < 0) return;
  *o++ = '"';
  for (int64_t i = 0; i < n; i++) {
    u8 c = s[i];
    if (c == '"' || c == '\\') *o++ = '\\', *o++ = c;
    else if (c == '\n') *o++ = '\\', *o++ = 'n';
    else if (c == '\r') *o++ = '\\', *o++ = 'r';
    else if (c == '\t') *o++ = '\\', *o++ = 't';
    else *o++ = c;
  }
  *o++ = '"';
  *o++ = ']';
  slot->v = o - slot->p;
  list = o;
}

// Reads the fields of a message. If a field is repeated, the last value counts, as in protobuf.
static void read(const Plan *plan, int32_t shape, const u8 *p, const u8 *end) {
  const Leaf *first = (const Leaf *)&plan->shape[plan->shapes] + plan->shape[shape].first;
  const Leaf *last = first + plan->shape[shape].leaves, *leaf = first;
  here[shape] = 1;
  while (p < end && !malformed) {
    uint64_t tag = varint(&p, end), v = 0;
    const u8 *body = p;
    switch (tag & 7) {
    case 0: v = varint(&p, end); break;
    case 1: v = end - p >= 8 ? *(const uint64_t *)p : 0, p += 8; break;
    case 5: v = end - p >= 4 ? *(const uint32_t *)p : 0, p += 4; break;
    case 2:
      v = varint(&p, end);
      body = p;
      if (v > (uint64_t)(end - p)) malformed = 1;
      else p += v;
      break;
    default: malformed = 1;
    }
    if (p > end) malformed = 1;
    if (malformed) return;
    if (tag >> 3 == 0 || tag >> 32) { // not a valid field number
      malformed = 1;
      return;
    }
    int32_t number = (int32_t)(tag >> 3);
    if (leaf == last || leaf->number > number) leaf = first;
    while (leaf < last && leaf->number < number) leaf++;
    if (leaf == last || leaf->number != number) continue;
    // A value of another wire type counts as an unknown field.
    if (!(leaf->wires >> (tag & 7) & 1)) continue;
    if (leaf->kind == GROUP) {
      read(plan, leaf->column, body, body + v);
      continue;
    }
    Slot *slot = &slots[leaf->column];
    if (leaf->kind == STRINGS) append(slot, body, (int64_t)v);
    else if (leaf->kind == TIME && slot->seen) slot->v = -1; // the parts would have to be merged
    else slot->p = body, slot->v = (int64_t)v;
    slot->seen = 1;
  }
}

static u8 *natural(u8 *o, uint64_t v) {
  if (!(v >> 63)) return integer(o, (int64_t)v);
  o = integer(o, (int64_t)(v / 10));
  *o = '0' + (u8)(v % 10);
  return o + 1;
}

static u8 *none(u8 *o) {
  *o = NOT_FOR_US;
  return o + 1;
}

// Prints a number with the fewest digits after the point that read back as the same number; leaves
// it to Python if it needs many.
static u8 *number(u8 *o, double v, int32_t single) {
  double size = v < 0 ? -v : v, power = 1;
  if (!(size < 9e15)) return none(o);
  for (int32_t after = 0; after < 17; after++, power *= 10) {
    double scaled = size * power;
    if (!(scaled < 9e15)) break;
    int64_t near = (int64_t)(scaled + 0.5), unit = (int64_t)power;
    double same = (double)near / power;
    if (single ? (float)same != (float)size : same != size) continue;
    if (v < 0) *o++ = '-';
    o = integer(o, near / unit);
    if (!after) return o;
    *o++ = '.';
    near %= unit;
    for (int32_t i = after - 1; i >= 0; i--, near /= 10) o[i] = '0' + (u8)(near % 10);
    return o + after;
  }
  return none(o);
}

static u8 *moment(u8 *o, const u8 *p, int64_t n) {
  if (n < 0) return none(o);
  const u8 *end = p + n;
  int64_t seconds = 0, nanos = 0;
  while (p < end && !malformed) {
    uint64_t tag = varint(&p, end), v = varint(&p, end);
    if (tag == 0x08) seconds = (int64_t)v;
    else if (tag == 0x10) nanos = (int64_t)v;
    else return none(o);
  }
  // From 0001-01-01 to 9999-12-31, in whole microseconds.
  if (seconds < -62135596800 || seconds > 253402300799 || nanos < 0 || nanos > 999999999 ||
      nanos % 1000)
    return none(o);
  return timestamp(o, (seconds - 946684800) * 1000000 + nanos / 1000);
}

// Copies text, unless it contains a separator of cells.
static u8 *text(u8 *o, const u8 *s, int64_t n) {
  u8 *start = o;
  for (int64_t i = 0; i < n; i++) {
    if (s[i] >= NULL_CELL && s[i] <= CELL) return none(start);
    *o++ = s[i];
  }
  return o;
}

static u8 *name(u8 *o, const Leaf *leaf, int32_t value) {
  const Name *known = (const Name *)(base + leaf->names);
  for (int32_t i = 0; i < leaf->many; i++, known++)
    if (known->value == value) return put(o, base + known->name.at, known->name.size);
  return none(o);
}

static u8 *null(u8 *o) {
  *o = NULL_CELL;
  return o + 1;
}

static u8 *cell(u8 *o, const Leaf *leaf, const Slot *slot) {
  int64_t v = slot->seen ? slot->v : 0;
  union {
    int64_t bits;
    double number;
  } wide = {v};
  union {
    int32_t bits;
    float number;
  } narrow = {(int32_t)v};
  if (!here[leaf->message]) return null(o);
  if (!slot->seen && (leaf->presence || leaf->kind == TIME)) return null(o);
  switch (leaf->kind) {
  case STRING: return v ? text(o, slot->p, v) : o;
  case SCARCE: return v || leaf->presence ? text(o, slot->p, v) : null(o);
  case BOOL:
    return v ? put(o, (const u8 *)"true            ", 4) : put(o, (const u8 *)"false           ", 5);
  case ENUM: return name(o, leaf, (int32_t)v);
  case INT32: return integer(o, (int32_t)v);
  case SFIXED32: return integer(o, (int32_t)v);
  case VARINT: case FIXED64: return integer(o, v);
  case ZIGZAG: return integer(o, (int64_t)((uint64_t)v >> 1) ^ -(v & 1));
  case FIXED32: return integer(o, (uint32_t)v);
  case UNSIGNED: return natural(o, (uint64_t)v);
  case FLOAT: return number(o, (double)narrow.number, 1);
  case DOUBLE: return number(o, wide.number, 0);
  case BYTES: return v || leaf->presence ? none(o) : null(o);
  case TIME: return moment(o, slot->p, v);
  case STRINGS:
    if (!slot->seen) return put(o, (const u8 *)"[]              ", 2);
    return v < 0 ? none(o) : text(o, slot->p, v);
  case LIST: return slot->seen ? none(o) : put(o, (const u8 *)"[]              ", 2);
  case MAP: return slot->seen ? none(o) : put(o, (const u8 *)"{}              ", 2);
  case STRUCT: return none(o);
  }
  return none(o);
}

// Makes a row of cells for each of `count` consecutive records with the given sizes. `scratch` has
// room for the lists of the largest record. Returns FULL if the rows need more than `room` bytes,
// MALFORMED if a record cannot be parsed.
EXPORT(messages) int32_t messages(const Plan *plan, const u8 *in, const int32_t *sizes,
                                  int32_t count, u8 *scratch, u8 *out, int32_t room) {
  const u8 *p = in;
  u8 *o = out;
  const Shape *last = &plan->shape[plan->shapes - 1];
  const Leaf *leaves = (const Leaf *)(last + 1);
  base = (const u8 *)plan;
  malformed = 0;
  result = (Result){0};
  for (int32_t i = 0; i < last->first + last->leaves; i++)
    if (leaves[i].kind != GROUP) of_column[leaves[i].column] = &leaves[i];
  for (int32_t k = 0; k < count; k++) {
    for (int32_t i = 0; i < plan->columns; i++) slots[i] = (Slot){0};
    for (int32_t i = 0; i < plan->shapes; i++) here[i] = 0;
    list = scratch;
    read(plan, 0, p, p + sizes[k]);
    if (2 * (int64_t)sizes[k] + 64 * (int64_t)plan->columns > out + room - o) return FULL;
    for (int32_t i = 0; i < plan->columns; i++) {
      o = cell(o, of_column[i], &slots[i]);
      *o++ = CELL;
    }
    if (malformed) return MALFORMED;
    o[-1] = ROW;
    p += sizes[k];
    result.rows++;
  }
  result.consumed = (int32_t)(p - in);
  result.produced = (int32_t)(o - out);
  return DONE;
}
