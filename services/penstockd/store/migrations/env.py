"""Alembic's entry: migrates the hub's own tables on the connection of ``store.migrate``."""

from alembic import context

from penstockd.store.tables import HUB_SCHEMA

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=HUB_SCHEMA,
    version_table="schema_version",
)
with context.begin_transaction():
    context.run_migrations()
