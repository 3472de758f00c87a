"""What the hub does for its callers, one use case a file; nothing here knows the transport."""
