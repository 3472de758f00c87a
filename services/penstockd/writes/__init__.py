"""Writes: records are checked, written once, and reported as far as the caller may read."""
