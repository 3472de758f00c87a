// Splits incoming files into rows: CSV into cells, a JSON array into its elements.
#include "abi/cells.h"
#include "abi/split.h"

// Output of split_csv: cells end with CELL, rows with ROW, an empty cell without quotes is
// NULL_CELL.

static int32_t seen; // bits of Suspect for well-formed rows

static inline u8 *keep(u8 *o, u8 c) {
  if (c < 0x20 && c != '\n' && c != '\t' && c != '\r') {
    seen |= CONTROLS;
    if (c >= NULL_CELL) c = REFUSED; // or else it would be read as a separator
  }
  *o = c;
  return o + 1;
}

// Copies bytes sixteen at a time up to one that is not plain; returns how many are plain.
static inline int32_t plain(u8 *o, const u8 *p, const u8 *end, u8 stop) {
  int32_t n = 0;
  while (end - p - n >= 16) {
    v128_t v = wasm_v128_load(p + n);
    wasm_v128_store(o + n, v);
    v128_t special = wasm_v128_or(wasm_u8x16_lt(v, wasm_i8x16_splat(0x20)),
                                  wasm_v128_or(wasm_i8x16_eq(v, wasm_i8x16_splat('"')),
                                               wasm_i8x16_eq(v, wasm_i8x16_splat((int8_t)stop))));
    uint32_t bits = wasm_i8x16_bitmask(special);
    if (bits) return n + __builtin_ctz(bits);
    n += 16;
  }
  return n;
}

// Takes complete rows. `out` must have room for 2 * size + 64 bytes. Returns MALFORMED if the row
// after the first result.rows is malformed. With DONE, result.detail has the bits of Suspect:
// whether cells contain control characters, and whether a row does not have `width` cells.
// `delimiter` is a byte that is neither a quote nor a line end.
EXPORT(split_csv) int32_t split_csv(const u8 *in, int32_t size, u8 *out, int32_t final, int32_t width,
                                    int32_t delimiter) {
  const u8 mark = (u8)delimiter;
  const u8 *p = in, *end = in + size, *row = in;
  u8 *o = out, *row_out = out;
  int32_t reason = 0, cells = 1;
  seen = 0;
  result = (Result){0};
  while (p < end && !reason) {
    // one cell
    if (*p == '"') {
      p++;
      for (;;) {
        int32_t n = plain(o, p, end, '"');
        p += n, o += n;
        if (p == end) break;
        if (*p != '"') o = keep(o, *p++);
        else if (p + 1 < end && p[1] == '"') *o++ = '"', p += 2;
        else break;
      }
      if (p == end || (p + 1 == end && !final)) { // a closing or doubled quote may follow
        if (p == end && final) reason = OPEN_QUOTE;
        break;
      }
      p++;
      if (p < end && *p != mark && *p != '\n' && *p != '\r') {
        reason = AFTER_QUOTE;
        break;
      }
    } else if (*p == mark || *p == '\n' || *p == '\r') {
      *o++ = NULL_CELL;
    } else {
      for (;;) {
        int32_t n = plain(o, p, end, mark);
        p += n, o += n;
        if (p == end || *p == mark || *p == '\n' || *p == '\r') break;
        if (*p == '"') {
          reason = QUOTE_INSIDE;
          break;
        }
        o = keep(o, *p++);
      }
      if (reason) break;
    }
    // the separator after it
    if (p == end && !final) break;
    if (p < end && *p == mark) {
      *o++ = CELL;
      p++;
      cells++;
      if (p < end || !final) continue;
      *o++ = NULL_CELL; // the file ends after a delimiter
    }
    if (p < end && *p == '\r') {
      if (p + 1 == end && !final) break;
      p++;
      if (p < end && *p != '\n') {
        reason = BARE_RETURN;
        break;
      }
    }
    if (p < end) p++;
    *o++ = ROW;
    if (cells != width) seen |= UNEVEN;
    cells = 1;
    row = p, row_out = o;
    result.rows++;
  }
  result.consumed = (int32_t)(row - in);
  result.produced = (int32_t)(row_out - out);
  result.detail = reason ? reason : seen;
  return reason ? MALFORMED : DONE;
}

enum { BEFORE, FIRST, ELEMENT, BETWEEN, AFTER };

static inline int32_t blank(u8 c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Returns the end of the JSON value at `p`; 0 if the value is not complete before `end`. Sets `bad`
// if there is no value.
static const u8 *value_end(const u8 *p, const u8 *end, int32_t *bad) {
  int32_t depth = 0;
  const u8 *start = p;
  while (p < end) {
    u8 c = *p;
    if (c == '"') {
      for (p++; p < end && *p != '"'; p++)
        if (*p == '\\') p++;
      if (p >= end) return 0;
    } else if (c == '{' || c == '[') {
      depth++;
    } else if ((c == '}' || c == ']') && depth > 0) {
      depth--;
    } else if (depth == 0 && (c == ',' || c == ']' || c == '}' || blank(c))) {
      *bad = p == start;
      return p;
    }
    p++;
    if (depth == 0 && (c == '}' || c == ']' || c == '"')) return p;
  }
  return 0;
}

// Splits an array into its elements, one on each line; line ends inside an element become blanks.
// `state` is 0 for the first call, then result.detail of the call before. With MALFORMED,
// result.detail has the reason (JsonFault) instead.
EXPORT(split_json) int32_t split_json(const u8 *in, int32_t size, u8 *out, int32_t final,
                                      int32_t state) {
  const u8 *p = in, *end = in + size, *done = in;
  u8 *o = out;
  int32_t reason = 0, bad = 0;
  result = (Result){0};
  while (!reason) {
    while (p < end && blank(*p)) p++;
    done = p;
    if (p == end) break;
    if (state == BEFORE) {
      if (*p++ != '[') reason = NOT_AN_ARRAY;
      state = FIRST;
    } else if (state == AFTER) {
      reason = AFTER_ARRAY;
    } else if (*p == ']' && state != ELEMENT) {
      p++;
      state = AFTER;
    } else if (state == BETWEEN) {
      if (*p++ != ',') reason = UNBALANCED;
      state = ELEMENT;
    } else {
      const u8 *stop = value_end(p, end, &bad);
      if (!stop || stop == end) break; // a number may continue
      if (bad) {
        reason = NO_ELEMENT;
        break;
      }
      for (; p < stop; p++) *o++ = blank(*p) ? ' ' : *p; // JSON strings have no line ends
      *o++ = '\n';
      result.rows++;
      state = BETWEEN;
    }
  }
  if (!reason && final && state != AFTER) reason = UNFINISHED;
  result.consumed = (int32_t)(done - in);
  result.produced = (int32_t)(o - out);
  result.detail = reason ? reason : state;
  return reason ? MALFORMED : DONE;
}
