// PostgreSQL's messages as they come from its socket -> the COPY stream that they carry.
#include "kernel.h"

enum { HEAD = 5 }; // a message's kind and its size, which counts all but the kind

// Takes what the messages CopyData at the start of `in` carry; `left` bytes of a message that began
// earlier come first. Stops before any other message (END), or behind the last that is there (DONE).
// `detail` is `left` for the next call.
EXPORT(unframe) int32_t unframe(const u8 *in, int32_t size, u8 *out, int32_t left) {
  const u8 *p = in, *end = in + size;
  u8 *o = out;
  int32_t status = DONE;
  for (;;) {
    int32_t n = left;
    if (n > end - p) n = (int32_t)(end - p);
    o = put(o, p, n);
    p += n;
    left -= n;
    if (left || end - p < HEAD) break;
    if (*p != 'd') {
      status = END;
      break;
    }
    left = (int32_t)__builtin_bswap32(*(const uint32_t *)(p + 1)) - 4;
    if (left < 0) {
      left = 0;
      status = MALFORMED;
      break;
    }
    p += HEAD;
  }
  result = (Result){.consumed = (int32_t)(p - in), .produced = (int32_t)(o - out), .detail = left};
  return status;
}
