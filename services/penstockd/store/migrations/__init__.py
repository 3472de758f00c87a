"""The history of the hub's own tables, run by Alembic."""
