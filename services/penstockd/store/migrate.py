"""Brings the database to the model: the hub's own tables by Alembic, datasets' by difference.

Differences that affect no stored value are applied at start. For all others the hub refuses to
start and names the command that shows and applies them; no command applies a difference that a
stored value rules out (see ``steps``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from penstockd.catalog import Catalog
from penstockd.catalog.scalars import ValueRefused
from penstockd.store.database import CONNECT_TIMEOUT, plain_dsn, translate_errors
from penstockd.store.indexes import make_indexes
from penstockd.store.script import run_script
from penstockd.store.sockets import open_session
from penstockd.store.step import Consent, Step
from penstockd.store.steps import keep_manifest, model_steps
from penstockd.store.tables import DATA_SCHEMA, HUB_SCHEMA
from penstockd.store.triggers import missing_triggers, stale_triggers


class MigrationNeeded(Exception):
    """The model changed in a way that is not additive; the message names the command."""


class ServerTooOld(Exception):
    """The database server is older than PostgreSQL 15."""


class MigrationFailed(Exception):
    """The database refuses something that the hub needs; the message states what."""


async def apply_migration(url: str, catalog: Catalog, *, destructive: bool = False) -> list[Step]:
    """Apply all differences in one transaction and return them.

    Raises MigrationNeeded, changing nothing, if a difference is not additive and ``destructive`` is
    not set. Raises MigrationFailed if stored values rule out a difference or the database refuses,
    for example for lack of privileges, and DatabaseUnavailable. Only one process migrates at a
    time; the others wait and find nothing to do.
    """
    engine = make_engine(url)
    try:
        with _explain_errors():
            async with engine.begin() as connection:
                steps = await connection.run_sync(_migrate_within, catalog, destructive)
        await _make_indexes(url, catalog)
        return steps
    finally:
        await engine.dispose()


async def _make_indexes(url: str, catalog: Catalog) -> None:
    """Make the declared indexes, outside any transaction."""
    with translate_errors():
        driver = await open_session(plain_dsn(url), timeout=CONNECT_TIMEOUT)
        try:
            await make_indexes(driver, catalog)
        except asyncpg.PostgresError as exc:  # a value was written since all were checked
            raise MigrationFailed(f"an index cannot be made: {exc}; {exc.detail or ''}") from exc
        finally:
            await driver.close()


async def plan_migration(url: str, catalog: Catalog) -> list[Step]:
    """The differences, without applying any. Raises as ``apply_migration`` does."""
    engine = make_engine(url)
    try:
        with _explain_errors():
            async with engine.connect() as connection:
                return await connection.run_sync(_plan_within, catalog)
    finally:
        await engine.dispose()


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Unwrap and translate SQLAlchemy's errors; others become MigrationFailed with the reason."""
    try:
        with translate_errors():
            try:
                yield
            except DBAPIError as exc:
                cause = exc.orig.__cause__ if exc.orig is not None else None
                raise (cause or exc) from exc
    except (asyncpg.PostgresError, DBAPIError) as exc:
        raise MigrationFailed(f"the database refuses what the hub needs: {exc}") from exc


def make_engine(url: str) -> AsyncEngine:
    """An engine whose URL asyncpg parses: SQLAlchemy accepts fewer forms of it."""
    dsn = plain_dsn(url)

    async def connect() -> object:
        return await open_session(dsn, timeout=CONNECT_TIMEOUT)

    return create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)


def _read_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@contextmanager
def _explain_version() -> Iterator[None]:
    """Raise MigrationFailed for a revision that only a newer version of the hub has."""
    try:
        yield
    except CommandError as exc:
        if isinstance(exc.__cause__, ResolutionError):
            raise MigrationFailed(
                "the database was set up by a newer version of the hub: start that version"
            ) from exc
        raise


def _plan_within(connection: Connection, catalog: Catalog) -> list[Step]:
    table = f"{HUB_SCHEMA}.schema_version"
    if connection.execute(text("SELECT to_regclass(:name)"), {"name": table}).scalar_one():
        known = ScriptDirectory.from_config(_read_config())
        for version in connection.execute(text(f"SELECT version_num FROM {table}")).scalars():
            with _explain_version():
                known.get_revision(version)
    return list(model_steps(connection, catalog))


def _migrate_within(connection: Connection, catalog: Catalog, destructive: bool) -> list[Step]:
    version = connection.execute(text("SHOW server_version_num")).scalar_one()
    if int(version) < 150000:
        raise ServerTooOld(f"PostgreSQL 15 or newer is needed; the server is {version}")
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('penstock.migrate'))"))
    for schema in (DATA_SCHEMA, HUB_SCHEMA):
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
    config = _read_config()
    config.attributes["connection"] = connection
    with _explain_version():
        command.upgrade(config, "head")
    steps = list(model_steps(connection, catalog))
    _refuse_steps(steps, destructive)
    for sql in list(stale_triggers(connection, catalog)):
        run_script(connection, sql)
    for step in steps:
        try:
            step.apply(connection)
        except ValueRefused as exc:  # written since the values were checked
            raise MigrationFailed(f"{step.description}: the value {exc.reason}") from exc
    for sql in list(missing_triggers(connection, catalog)):
        run_script(connection, sql)
    keep_manifest(connection, catalog)
    return steps


def _refuse_steps(steps: list[Step], destructive: bool) -> None:
    """Raise MigrationFailed or MigrationNeeded unless all steps may be applied."""
    impossible = [s for s in steps if s.consent is Consent.NEVER]
    if impossible:
        raise MigrationFailed(
            "the model changed in ways that stored values do not allow:\n"
            + _format_steps(impossible)
            + "\nCorrect these values with the previous model, or give the field of the new model "
            "another number and name. Nothing was changed."
        )
    refused = [s for s in steps if not s.additive]
    if refused and not destructive:
        raise MigrationNeeded(
            "the model changed in ways that are not additive:\n"
            + _format_steps(refused)
            + "\nSee them with `penstock migrate`, apply them with `penstock migrate --apply`."
        )


def _format_steps(steps: list[Step]) -> str:
    return "\n".join(f"  - {s.description}" for s in steps)
