"""The composition root: settings in, the organs of a worker or keeper wired and run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import structlog

from penstockd import formats
from penstockd.audit.checkpoint import CheckpointFile, CheckpointKey
from penstockd.audit.journal import Journal
from penstockd.audit.sealer import Sealer
from penstockd.auth.credentials import Credentials
from penstockd.auth.issuers import Issuers
from penstockd.auth.keys import SigningKeys, rotate_by_age
from penstockd.auth.secret import RootSecret, load_secret
from penstockd.auth.tokens import Tokens
from penstockd.auth.trust import Trust
from penstockd.auth.uses import CredentialUses
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.commands.context import ExportLimits, Hub, Outbound, Streams
from penstockd.config import Settings
from penstockd.errors import DatabaseUnavailable, Refused
from penstockd.feed.broadcast import Broadcast
from penstockd.feed.retention import Retention
from penstockd.observe import flush, set_up
from penstockd.policy.snapshot import Policy
from penstockd.query import PageTokens
from penstockd.resources import descriptors
from penstockd.rpc.server import Server
from penstockd.store.database import Connection, Database, Division
from penstockd.store.replies import forget_replies
from penstockd.store.sequencer import Sequencer
from penstockd.store.snapshots import Snapshots
from penstockd.store.states import States
from penstockd.store.tables import Tables
from penstockd.store.writer import Writer
from penstockd.webhooks import organ as webhooks
from penstockd.webhooks.guard import Guard
from penstockd.webhooks.signing import Seal

#: What calls under way get to end when a worker is stopped, in seconds.
STOP_GRACE = 10.0
#: How often a worker looks whether the database answers, and the keeper whether it is still needed.
PULSE = 1.0
#: How often a worker tries a database that did not answer: each second counts for its callers.
RETRY = 0.2
#: Pings in a row without an answer after which calls under way are given up.
SILENT_PINGS = 2
#: Days for which the change log and the audit have partitions ahead.
PARTITION_DAYS = 3
#: How often stored replies that are too old are deleted, in seconds.
FORGET_INTERVAL = 600.0
ADD_PARTITIONS = "SELECT hub.add_change_partitions($1), hub.add_audit_partitions($1)"

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
    database = Database(settings.database_url, division=_division(settings))
    await database.open()
    sequencer, journal = Sequencer(database), Journal(database)
    snapshots = Snapshots(database, seconds=settings.export_resume_seconds)
    tokens, uses = _tokens(settings), CredentialUses(database)
    issuers = Issuers(loopback=settings.loopback_issuers)
    trust = Trust(secret.derive("signing-key"), tokens, issuers)
    stale_after, mask = settings.policy_stale_seconds, secret.derive("mask")
    policy = Policy(database, catalog, tables, mask, companion=trust, stale_after=stale_after)
    try:
        await policy.refresh()
        hub = Hub(
            catalog=catalog,
            database=database,
            policy=policy,
            writer=Writer(database, sequencer),
            journal=journal,
            tokens=tokens,
            issuers=issuers,
            trust=trust,
            credentials=Credentials(secret.derive("credentials")),
            uses=uses,
            page_tokens=PageTokens(secret.derive("page-tokens")),
            snapshots=snapshots,
            states=States(snapshots),
            exports=ExportLimits(settings.export_connections, settings.export_stall_seconds),
            feed=Broadcast(database, catalog, hours=settings.log_retention_hours),
            streams=Streams(most=settings.max_streams, stall_seconds=settings.stream_stall_seconds),
            webhooks=Outbound(Seal(secret.derive("webhooks")), Guard(settings.webhook_allow)),
            audit_key=checkpoint_key(settings).public,
            audit_file=CheckpointFile(settings.checkpoint_file),
            public_url=settings.url,
        )
        yield hub
        await hub.tasks.drain()
    finally:
        await uses.close()
        policy.close()
        issuers.close()
        for organ in (snapshots, journal, sequencer, database):
            await organ.close()


def _division(settings: Settings) -> Division:
    """How a worker's connections are shared, and how long what is done on them may take."""
    return Division(
        connections=settings.connections,
        wait=settings.wait_seconds,
        lock=settings.lock_seconds,
        statement=settings.statement_seconds,
        commit=settings.commit_seconds,
    )


def _tokens(settings: Settings) -> Tokens:
    """What makes and judges the hub's own tokens; its keys come with the policy."""
    return Tokens(
        SigningKeys([]),
        issuer=settings.issuer,
        audience=settings.audience,
        lifetime=settings.token_minutes * 60,
    )


async def serve(settings: Settings, socket: Path) -> None:
    """Run a worker on a Unix socket until SIGTERM or SIGINT, then end its calls in peace."""
    set_up(f"worker {socket.stem}", settings.log_level, settings.otlp_endpoint)
    stopping = _stop_signal()
    formats.warm()
    async with _hub_when_possible(settings, stopping) as hub:
        if hub is None:
            return
        server = Server(hub, f"unix:{socket}")
        # What is there now stays: not to be gone through while a call waits.
        gc.collect()
        gc.freeze()
        await server.start()
        followers = [
            asyncio.create_task(hub.policy.follow()),
            asyncio.create_task(hub.uses.follow()),
            asyncio.create_task(hub.feed.tail.follow()),
            asyncio.create_task(_report_health(hub, server)),
        ]
        _log.info("worker_started", socket=str(socket))
        await stopping.wait()
        hub.feed.stop()
        await server.stop(STOP_GRACE)
        await _end(followers)
    flush()


async def keep(settings: Settings) -> None:
    """Run the keeper: the singletons of all nodes, behind one lock, until SIGTERM or SIGINT."""
    set_up("keeper", settings.log_level, settings.otlp_endpoint)
    stopping = _stop_signal()
    assert settings.database_url is not None, "the supervisor gives every process the database"
    database = Database(settings.database_url, size=5)
    while not stopping.is_set():
        try:
            await database.open()
            await _keep_while_locked(settings, database, stopping)
        except (DatabaseUnavailable, Refused) as exc:
            _log.warning("keeper_waits", error=str(exc))
        await database.close()
        await _wait(stopping, PULSE)
    flush()


async def _keep_while_locked(
    settings: Settings, database: Database, stopping: asyncio.Event
) -> None:
    """Hold the keeper's lock and do its work; another node's keeper stands by meanwhile."""
    lock = await database.connect()
    try:
        while not await lock.fetchval("SELECT pg_try_advisory_lock(hashtext('penstock.keeper'))"):
            if await _wait(stopping, PULSE):
                return
        _log.info("keeper_started")
        work = [
            asyncio.create_task(Sequencer(database).sweep()),
            asyncio.create_task(_add_partitions(database)),
            asyncio.create_task(_forget_replies(database)),
            asyncio.create_task(Retention(database, settings.log_retention_hours).run()),
            asyncio.create_task(_sealer(settings, database).run()),
            asyncio.create_task(_rotate_keys(settings, database)),
            asyncio.create_task(_deliver(settings)),
        ]
        try:
            await _until_over(work, lock, stopping)
        finally:
            await _end(work)
    except* (DatabaseUnavailable, Refused) as group_error:
        raise DatabaseUnavailable("the database went away") from group_error.exceptions[0]
    finally:
        lock.terminate()


async def _until_over(
    work: Sequence[asyncio.Task[None]], lock: Connection, stopping: asyncio.Event
) -> None:
    """Until the keeper is stopped or has lost its lock. Raises what one of its tasks raises."""
    stop = asyncio.create_task(stopping.wait())
    try:
        while not stopping.is_set() and not lock.is_closed():
            done, _ = await asyncio.wait(
                {stop, *work}, timeout=PULSE, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
    finally:
        stop.cancel()


async def _deliver(settings: Settings) -> None:
    """Webhooks, with connections and a policy of their own."""
    assert settings.database_url is not None, "the supervisor gives every process the database"
    catalog, secret = read_catalog(), root_secret(settings)
    database = Database(settings.database_url, size=webhooks.CONNECTIONS)
    policy = Policy(
        database,
        catalog,
        Tables(catalog),
        secret.derive("mask"),
        stale_after=settings.policy_stale_seconds,
    )
    seal = Seal(secret.derive("webhooks"))
    terms = webhooks.Terms(settings.url, settings.webhook_allow, settings.webhook_days)
    try:
        await database.open()
        await policy.refresh()
        async with asyncio.TaskGroup() as group:
            group.create_task(policy.follow())
            group.create_task(webhooks.Webhooks(database, catalog, policy, seal, terms).run())
    finally:
        policy.close()
        await database.close()


def checkpoint_key(settings: Settings) -> CheckpointKey:
    """The key that signs the audit's checkpoints."""
    return CheckpointKey(root_secret(settings).derive("audit-checkpoint"))


def _sealer(settings: Settings, database: Database) -> Sealer:
    file = CheckpointFile(settings.checkpoint_file)
    interval = settings.audit_checkpoint_seconds
    return Sealer(database, checkpoint_key(settings), file, interval=interval)


async def _forget_replies(database: Database) -> None:
    while True:
        async with database.connection() as connection:
            await forget_replies(connection)
        await asyncio.sleep(FORGET_INTERVAL)


async def _add_partitions(database: Database) -> None:
    while True:
        async with database.connection() as connection:
            await connection.execute(ADD_PARTITIONS, PARTITION_DAYS)
        await asyncio.sleep(3600)


async def _rotate_keys(settings: Settings, database: Database) -> None:
    sealing_key = root_secret(settings).derive("signing-key")
    while True:
        async with database.transaction() as connection:
            new = await rotate_by_age(connection, sealing_key, timedelta(days=settings.key_days))
        if new is not None:
            _log.info("signing_key_rotated", key_id=new)
        await asyncio.sleep(60)


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
    """Wait for an event; whether it came before the time was over.

    As everywhere in work that is cancelled, not by ``wait_for``: in Python 3.11 it loses a
    cancellation that comes together with what it waits for.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: one that fails as it is cancelled may go on."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=PULSE)
    await asyncio.gather(*tasks, return_exceptions=True)


def _stop_signal() -> asyncio.Event:
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, event.set)
    return event
