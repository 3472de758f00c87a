"""One machine's processes: embedded PostgreSQL, Envoy, workers, keeper, and their supervisor."""
