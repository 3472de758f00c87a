"""What digests and repairs are made of: what is compared, of which state, range by range."""
