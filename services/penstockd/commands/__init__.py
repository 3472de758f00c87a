"""The hub's use cases, one a file; nothing here knows the transport."""
