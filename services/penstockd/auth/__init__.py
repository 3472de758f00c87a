"""Who calls: credentials, the hub's own tokens, and the keys that sign them."""
