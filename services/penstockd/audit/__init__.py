"""Every call leaves an entry: in a write's transaction, or durable before a read is answered."""
