"""Brings the database to the model: the hub's own tables by Alembic, datasets' by difference.

Additive differences (a new dataset, a new field) are applied at start. Anything else would lose or
reinterpret data: the hub refuses to start and says which command shows and applies it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from penstockd.catalog import Catalog, Dataset, Field
from penstockd.store.database import CONNECT_TIMEOUT, plain_dsn, translated
from penstockd.store.script import run_script
from penstockd.store.sockets import open_session
from penstockd.store.tables import DATA_SCHEMA, HUB_SCHEMA, Tables, column_default, column_type
from penstockd.store.triggers import missing_triggers

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it bare


class MigrationNeeded(Exception):
    """The model changed in a way that is not additive; the message names the command."""


class ServerTooOld(Exception):
    """The database server is older than PostgreSQL 15."""


class MigrationFailed(Exception):
    """The database refuses what the hub needs to do in it; the message says what."""


@dataclass(frozen=True, slots=True)
class Step:
    """One difference between the database and the model, and the SQL that ends it."""

    description: str
    sql: str
    additive: bool


async def migrate(url: str, catalog: Catalog, *, destructive: bool = False) -> list[Step]:
    """Apply all differences in one transaction and return them.

    Raises MigrationNeeded if a difference is not additive and ``destructive`` is not set; nothing
    is changed then. Raises MigrationFailed if the database refuses, as for want of privileges, and
    DatabaseUnavailable. Only one process migrates at a time; the others wait and find nothing to
    do.
    """
    engine = make_engine(url)
    try:
        with _explained():
            async with engine.begin() as connection:
                return await connection.run_sync(_migrate, catalog, destructive)
    finally:
        await engine.dispose()


async def plan(url: str, catalog: Catalog) -> list[Step]:
    """The differences, without applying any. Raises as ``migrate`` does."""
    engine = make_engine(url)
    try:
        with _explained():
            async with engine.connect() as connection:
                return await connection.run_sync(lambda c: list(difference(c, catalog)))
    finally:
        await engine.dispose()


@contextmanager
def _explained() -> Iterator[None]:
    """Errors as ``translated`` gives them, out of SQLAlchemy's wrapping; others say the reason."""
    try:
        with translated():
            try:
                yield
            except DBAPIError as exc:
                cause = exc.orig.__cause__ if exc.orig is not None else None
                raise (cause or exc) from exc
    except (asyncpg.PostgresError, DBAPIError) as exc:
        raise MigrationFailed(f"the database refuses what the hub needs: {exc}") from exc


def make_engine(url: str) -> AsyncEngine:
    """An engine over asyncpg, which reads the URL itself: SQLAlchemy reads fewer forms of it."""
    dsn = plain_dsn(url)

    async def connect() -> object:
        return await open_session(dsn, timeout=CONNECT_TIMEOUT)

    return create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)


def _migrate(connection: Connection, catalog: Catalog, destructive: bool) -> list[Step]:
    version = connection.execute(text("SHOW server_version_num")).scalar_one()
    if int(version) < 150000:
        raise ServerTooOld(f"PostgreSQL 15 or newer is needed; the server is {version}")
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('penstock.migrate'))"))
    for schema in (DATA_SCHEMA, HUB_SCHEMA):
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    steps = list(difference(connection, catalog))
    refused = [s for s in steps if not s.additive]
    if refused and not destructive:
        raise MigrationNeeded(
            "the model changed in ways that are not additive:\n"
            + "\n".join(f"  - {s.description}" for s in refused)
            + "\nSee them with `penstock migrate`, apply them with `penstock migrate --apply`."
        )
    for step in steps:
        run_script(connection, step.sql)
    for sql in list(missing_triggers(connection, catalog)):
        run_script(connection, sql)
    return steps


def difference(connection: Connection, catalog: Catalog) -> Iterator[Step]:
    """What must change so that the database holds exactly the catalog's tables."""
    tables = Tables(catalog)
    present = _present_columns(connection)
    for dataset in catalog:
        if dataset.name not in present:
            yield Step(
                f"new dataset {dataset.name}", table_ddl(dataset, tables[dataset.name]), True
            )
        else:
            yield from _column_steps(dataset, present[dataset.name])
    for name in present.keys() - {d.name for d in catalog}:
        yield Step(
            f"dataset {name} is no longer in the model: its table would be dropped",
            f'DROP TABLE {DATA_SCHEMA}."{name}"',
            False,
        )


def _column_steps(dataset: Dataset, present: Mapping[str, tuple[str, bool]]) -> Iterator[Step]:
    table = f'{DATA_SCHEMA}."{dataset.name}"'
    for field in dataset.fields:
        where = f"{dataset.name}.{field.path}"
        column = f'"{field.path}"'
        if field.path not in present:
            yield Step(f"new field {where}", f"ALTER TABLE {table} ADD {_column_ddl(field)}", True)
            continue
        type_name, nullable = present[field.path]
        wanted = _type_name(field)
        if type_name != wanted:
            yield Step(
                f"{where} changes from {type_name} to {wanted}",
                f"ALTER TABLE {table} ALTER {column} DROP DEFAULT, ALTER {column} TYPE {wanted}"
                f"{_collation(field)} USING {column}::text::{wanted}"
                + _default_clause(table, field),
                False,
            )
        if nullable and not field.nullable:
            default = column_default(field) or "now()"
            yield Step(
                f"{where} may no longer be unset: unset values become {default}",
                f"UPDATE {table} SET {column} = {default} WHERE {column} IS NULL; "
                f"ALTER TABLE {table} ALTER {column} SET NOT NULL",
                False,
            )
        elif field.nullable and not nullable:
            yield Step(
                f"{where} may now be unset",
                f"ALTER TABLE {table} ALTER {column} DROP NOT NULL, ALTER {column} DROP DEFAULT",
                True,
            )
    for name in present.keys() - dataset.by_path.keys():
        yield Step(
            f"{dataset.name}.{name} is no longer in the model: its values would be dropped",
            f'ALTER TABLE {table} DROP COLUMN "{name}"',
            False,
        )


def table_ddl(dataset: Dataset, table: Table) -> str:
    """CREATE TABLE and its indexes: the key, and every reference."""
    sql = [
        f"CREATE TABLE {table.fullname} (\n\t"
        + ",\n\t".join([*map(_column_ddl, dataset.fields), f'PRIMARY KEY ("{dataset.key.path}")'])
        + "\n)"
    ]
    for field in dataset.references.values():
        sql.append(f'CREATE INDEX ON {table.fullname} ("{field.path}")')
    return ";\n".join(sql)


def _column_ddl(field: Field) -> str:
    null = "" if field.nullable else " NOT NULL"
    default = column_default(field)
    if default is None and not field.nullable and not field.key:
        default = "now()"  # create_time and update_time of rows older than the column
    return f'"{field.path}" {_type_name(field)}{_collation(field)}{null}' + (
        f" DEFAULT {default}" if default else ""
    )


def _collation(field: Field) -> str:
    return ' COLLATE "C"' if _type_name(field) == "text" else ""


def _default_clause(table: str, field: Field) -> str:
    default = column_default(field)
    return f'; ALTER TABLE {table} ALTER "{field.path}" SET DEFAULT {default}' if default else ""


def _type_name(field: Field) -> str:
    """The type as information_schema and DDL both spell it."""
    name = column_type(field).compile(dialect=_DIALECT).split(" COLLATE")[0].lower()
    return {"numeric(20, 0)": "numeric(20,0)", "double precision": "double precision"}.get(
        name, name
    )


def _present_columns(connection: Connection) -> dict[str, dict[str, tuple[str, bool]]]:
    """Table -> column -> (type, nullable), as the database has them."""
    rows = connection.execute(
        text(
            "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
            " AND NOT a.attisdropped"
            " WHERE n.nspname = :schema AND c.relkind IN ('r', 'p')"
        ),
        {"schema": DATA_SCHEMA},
    )
    present: dict[str, dict[str, tuple[str, bool]]] = {}
    for table, column, type_name, nullable in rows:
        columns = present.setdefault(table, {})
        if column is not None:
            columns[column] = (type_name, nullable)
    return present
