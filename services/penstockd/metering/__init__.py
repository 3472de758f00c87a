"""Usage: folded from the audit into rollups, proved against it, and reported."""
