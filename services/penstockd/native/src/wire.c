// Extracts the COPY stream from the messages that PostgreSQL sends.
#include "kernel.h"

enum { HEAD = 5 }; // a message's kind (one byte) and its size, which includes all but the kind

// Copies the data of the CopyData messages at the start of `in`; first come `left` bytes of a
// message that began in an earlier call. Returns END before a message of another kind, DONE when
// the input is used up. result.detail is `left` for the next call.
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
