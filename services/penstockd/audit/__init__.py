"""Every call leaves an entry: in the write's transaction, or durable before a read is answered."""
