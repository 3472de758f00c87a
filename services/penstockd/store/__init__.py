"""PostgreSQL: tables derived from the catalog, the change log, and the hub's own tables."""
