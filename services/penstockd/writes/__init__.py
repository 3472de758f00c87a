"""Writes: what callers send, checked; done once; told as far as they may read."""
