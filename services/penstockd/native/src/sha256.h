// SHA-256 of many short texts, four at a time.
#pragma once
#include "kernel.h"

// A text with its padding: whole blocks of 64 bytes, and where its digest goes.
typedef struct {
  const u8 *text;
  int32_t blocks;
  u8 *digest;
} Job;

// Appends the padding to a text that ends at `end`; returns its blocks. Takes up to 72 bytes.
int32_t pad(u8 *text, u8 *end);
void hash(const Job *jobs, int32_t count);
