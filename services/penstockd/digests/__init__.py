"""Digests of ranges of keys, and repairs of copies by them."""
