// Computes SHA-256 of many short texts, four at a time.
#pragma once
#include "kernel.h"

// A padded text, in whole blocks of 64 bytes, and the place for its digest.
typedef struct {
  const u8 *text;
  int32_t blocks;
  u8 *digest;
} Job;

// Pads a text that ends at `end`, by up to 72 bytes; returns its number of blocks.
int32_t pad(u8 *text, u8 *end);
void hash(const Job *jobs, int32_t count);
