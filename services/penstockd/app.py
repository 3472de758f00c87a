"""The composition root: settings in, the organs of a worker or keeper wired and run."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from penstockd import formats
from penstockd.audit.journal import Journal
from penstockd.auth.credentials import Credentials
from penstockd.auth.keys import load_signing_keys
from penstockd.auth.secret import RootSecret, load_secret
from penstockd.auth.tokens import Tokens
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.commands.context import Hub
from penstockd.config import Settings
from penstockd.errors import DatabaseUnavailable, Refused
from penstockd.observe import flush, set_up
from penstockd.policy.snapshot import Policy
from penstockd.query import PageTokens
from penstockd.resources import descriptors
from penstockd.rpc.server import Server
from penstockd.store.database import Database
from penstockd.store.sequencer import Sequencer
from penstockd.store.tables import Tables
from penstockd.store.writer import Writer

#: What calls under way get to end when a worker is stopped, in seconds.
STOP_GRACE = 10.0
#: How often a worker looks whether the database answers, and the keeper whether it is still needed.
PULSE = 1.0
#: How often a worker tries a database that did not answer: each second counts for its callers.
RETRY = 0.2
#: Pings in a row without an answer after which calls under way are given up.
SILENT_PINGS = 2
#: Days for which the change log has partitions ahead.
PARTITION_DAYS = 3

_log = structlog.get_logger(__name__)


def read_catalog() -> Catalog:
    """The catalog of this installation."""
    return load_catalog(descriptors())


def root_secret(settings: Settings) -> RootSecret:
    """The root secret of this installation, made if there is none."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return load_secret(settings.secret, settings.data_dir)


@contextlib.asynccontextmanager
async def open_hub(settings: Settings) -> AsyncIterator[Hub]:
    """The organs of one process, opened, and closed at the end. Raises DatabaseUnavailable."""
    assert settings.database_url is not None, "the supervisor gives every process the database"
    catalog, secret = read_catalog(), root_secret(settings)
    tables = Tables(catalog)
    database = Database(settings.database_url)
    await database.open()
    sequencer, journal = Sequencer(database), Journal(database)
    policy = Policy(database, catalog, tables, secret.derive("mask"))
    try:
        await policy.refresh()
        async with database.connection() as connection:
            keys = await load_signing_keys(connection, secret.derive("signing-key"))
        hub = Hub(
            catalog=catalog,
            database=database,
            policy=policy,
            writer=Writer(database, sequencer),
            journal=journal,
            tokens=Tokens(
                keys,
                issuer=settings.issuer,
                audience=settings.audience,
                lifetime=settings.token_minutes * 60,
            ),
            credentials=Credentials(secret.derive("credentials")),
            page_tokens=PageTokens(secret.derive("page-tokens")),
            public_url=settings.url,
        )
        yield hub
        await hub.tasks.drain()
    finally:
        await journal.close()
        await sequencer.close()
        await database.close()


async def serve(settings: Settings, socket: Path) -> None:
    """Run a worker on a Unix socket until SIGTERM or SIGINT, then end its calls in peace."""
    set_up(f"worker {socket.stem}", settings.log_level, settings.otlp_endpoint)
    stopping = _stop_signal()
    formats.warm()
    async with _hub_when_possible(settings, stopping) as hub:
        if hub is None:
            return
        server = Server(hub, f"unix:{socket}")
        await server.start()
        followers = [
            asyncio.create_task(hub.policy.follow()),
            asyncio.create_task(_report_health(hub, server)),
        ]
        _log.info("worker_started", socket=str(socket))
        await stopping.wait()
        await server.stop(STOP_GRACE)
        await _end(followers)
    flush()


async def keep(settings: Settings) -> None:
    """Run the keeper: the singletons of all nodes, behind one lock, until SIGTERM or SIGINT."""
    set_up("keeper", settings.log_level, settings.otlp_endpoint)
    stopping = _stop_signal()
    assert settings.database_url is not None, "the supervisor gives every process the database"
    database = Database(settings.database_url, size=3)
    while not stopping.is_set():
        try:
            await database.open()
            await _keep_while_locked(database, stopping)
        except (DatabaseUnavailable, Refused) as exc:
            _log.warning("keeper_waits", error=str(exc))
        await database.close()
        await _wait(stopping, PULSE)
    flush()


async def _keep_while_locked(database: Database, stopping: asyncio.Event) -> None:
    """Hold the keeper's lock and do its work; another node's keeper stands by meanwhile."""
    lock = await database.connect()
    try:
        while not await lock.fetchval("SELECT pg_try_advisory_lock(hashtext('penstock.keeper'))"):
            if await _wait(stopping, PULSE):
                return
        _log.info("keeper_started")
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(Sequencer(database).sweep()),
                group.create_task(_add_partitions(database)),
            ]
            while not await _wait(stopping, PULSE) and not lock.is_closed():
                pass
            for task in work:
                task.cancel()
    except* (DatabaseUnavailable, Refused) as group_error:
        raise DatabaseUnavailable("the database went away") from group_error.exceptions[0]
    finally:
        lock.terminate()


async def _add_partitions(database: Database) -> None:
    while True:
        async with database.connection() as connection:
            await connection.execute("SELECT hub.add_change_partitions($1)", PARTITION_DAYS)
        await asyncio.sleep(3600)


@contextlib.asynccontextmanager
async def _hub_when_possible(
    settings: Settings, stopping: asyncio.Event
) -> AsyncIterator[Hub | None]:
    """The hub as soon as the database answers; None if the process is stopped before."""
    while not stopping.is_set():
        try:
            async with open_hub(settings) as hub:
                yield hub
                return
        except (DatabaseUnavailable, Refused) as exc:
            _log.warning("worker_waits", error=str(exc))
            await _wait(stopping, PULSE)
    yield None


async def _report_health(hub: Hub, server: Server) -> None:
    """Healthy while the database answers; calls do not wait for one that has gone silent."""
    silent = 0
    while True:
        try:
            await hub.database.ping()
            silent = 0
            await server.set_serving(True)
            await asyncio.sleep(PULSE)
        except (DatabaseUnavailable, Refused) as exc:
            _log.warning("unhealthy", error=str(exc))
            await server.set_serving(False)
            silent += 1
            if silent >= SILENT_PINGS:
                hub.database.abandon()
            await asyncio.sleep(RETRY)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event; whether it came before the time was over."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _stop_signal() -> asyncio.Event:
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, event.set)
    return event
