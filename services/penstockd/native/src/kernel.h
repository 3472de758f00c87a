// Shared by all parts of the kernel: the result of a call, and the copying of text.
//
// The kernel is compiled to WebAssembly (see build.py). It therefore has no standard library,
// allocates nothing, can reach only its own memory, and runs outside Python's interpreter lock.
#pragma once
#include <stdint.h>
#include <wasm_simd128.h>

typedef uint8_t u8;

#define EXPORT(name) __attribute__((export_name(#name)))

#include "abi/kernel.h"

extern Result result; // of the latest call

// Copies `n` bytes. Reads and writes up to 15 bytes beyond them; every buffer leaves room for that.
static inline u8 *put(u8 *out, const u8 *from, int32_t n) {
  for (int32_t i = 0; i < n; i += 16) wasm_v128_store(out + i, wasm_v128_load(from + i));
  return out + n;
}

// keys.c
int32_t keys_room(void); // how many more keys fit
void keep_key(const u8 *s, int32_t n);
