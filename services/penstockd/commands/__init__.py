"""The hub's use cases, one in each file; nothing here knows the transport."""
