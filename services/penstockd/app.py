"""The composition root: settings in, the organs of a worker wired and run; see also ``keeper``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog

from penstockd import formats
from penstockd.audit.checkpoint import CheckpointFile
from penstockd.audit.journal import Journal
from penstockd.auth.credentials import Credentials
from penstockd.auth.issuers import Issuers
from penstockd.auth.jwks import Origins
from penstockd.auth.keys import SigningKeys
from penstockd.auth.tokens import Tokens
from penstockd.auth.trust import Trust
from penstockd.auth.uses import CredentialUses
from penstockd.budget import share_interpreter
from penstockd.config import Settings
from penstockd.egress import Guard
from penstockd.errors import Refused
from penstockd.exports.limits import ExportLimits
from penstockd.feed.broadcast import Broadcast
from penstockd.feed.limits import Streams
from penstockd.heartbeat import beat
from penstockd.hub import Hub
from penstockd.installation import checkpoint_key, node_id, read_catalog, root_secret
from penstockd.observe import flush, set_up
from penstockd.organs import Organ, Organs, end_tasks, stop_signal, wait_for_event
from penstockd.policy.snapshot import Policy
from penstockd.query import PageTokens
from penstockd.rpc.server import Server
from penstockd.store.announcements import PostgresAnnouncements
from penstockd.store.database import Database, Division
from penstockd.store.epochs import Undeclared
from penstockd.store.nodes import STANDS_BY
from penstockd.store.sequencer import Sequencer
from penstockd.store.singletons import SINGLETONS, read_singletons
from penstockd.store.snapshots import Snapshots
from penstockd.store.states import States
from penstockd.store.tables import Tables
from penstockd.store.vacancies import Vacancies
from penstockd.store.writer import Writer
from penstockd.webhooks.desk import WebhookDesk
from penstockd.webhooks.signing import Seal

#: What calls under way get to end when a worker is stopped, in seconds.
STOP_GRACE = 10.0
#: How often a worker looks whether the database answers, in seconds.
PULSE = 1.0
#: How often a worker looks whether each singleton has a holder, in seconds.
NODE_PULSE = 2.0
#: How often a worker tries a database that did not answer: each second counts for its callers.
RETRY = 0.2
#: Pings in a row without an answer after which calls under way are given up.
SILENT_PINGS = 2

_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def open_hub(settings: Settings) -> AsyncIterator[Hub]:
    """The organs of one process, opened, and closed at the end. Raises DatabaseUnavailable."""
    assert settings.database_url is not None, "the supervisor gives every process the database"
    catalog, secret = read_catalog(), root_secret(settings)
    tables = Tables(catalog)
    database = Database(settings.database_url, division=_division(settings))
    await database.open()
    sequencer, journal = Sequencer(database), Journal(database)
    announcements = PostgresAnnouncements(database)
    snapshots = Snapshots(database, seconds=settings.export_resume_seconds)
    tokens, uses = _tokens(settings), CredentialUses(database)
    issuers = Issuers(Origins(settings.issuer_allow, loopback=settings.loopback_issuers))
    trust = Trust(secret.derive("signing-key"), tokens, issuers)
    stale_after, mask = settings.policy_stale_seconds, secret.derive("mask")
    policy = Policy(
        database,
        announcements,
        catalog,
        tables,
        mask,
        companion=trust,
        stale_after=stale_after,
    )
    try:
        await policy.refresh()
        hub = Hub(
            catalog=catalog,
            database=database,
            announcements=announcements,
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
            import_stall_seconds=settings.import_stall_seconds,
            feed=Broadcast(database, announcements, catalog, hours=settings.log_retention_hours),
            streams=Streams(most=settings.max_streams, stall_seconds=settings.stream_stall_seconds),
            webhooks=WebhookDesk(
                database,
                catalog,
                announcements,
                Seal(secret.derive("webhooks")),
                Guard(settings.webhook_allow),
                settings.url,
            ),
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
    stopping = stop_signal()
    beating = asyncio.create_task(beat())
    share_interpreter()
    formats.warm()
    async with _hub_when_possible(settings, stopping) as hub:
        if hub is None:
            beating.cancel()
            return
        server, node = Server(hub, f"unix:{socket}"), node_id(settings)
        # What is there now stays: not to be gone through while a call waits.
        gc.collect()
        gc.freeze()
        await server.start()
        running = asyncio.create_task(Organs(worker_organs(hub, server, node)).run())
        _log.info("worker_started", socket=str(socket))
        await stopping.wait()
        hub.feed.stop()
        await server.stop(STOP_GRACE)
        await end_tasks([running])
    await end_tasks([beating])
    flush()


def worker_organs(hub: Hub, server: Server, node: str) -> Sequence[Organ]:
    """All that a worker runs besides its calls."""
    return [
        Organ("announcements", hub.announcements.follow),
        Organ("policy", hub.policy.follow),
        Organ("credential-uses", hub.uses.follow),
        Organ("feed-tail", hub.feed.tail.follow),
        Organ("health", lambda: _report_health(hub, server)),
        Organ("node-health", lambda: _report_node_health(hub, server, node)),
    ]


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
        except Refused as exc:
            _log.warning("worker_waits", error=str(exc))
            await wait_for_event(stopping, PULSE)
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
        except Refused as exc:
            _log.warning("unhealthy", error=str(exc))
            await server.set_serving(False)
            silent += 1
            if silent >= SILENT_PINGS:
                hub.database.abandon()
            await asyncio.sleep(RETRY)


async def _report_node_health(hub: Hub, server: Server, node: str) -> None:
    """What is not about this worker's calls: whether each singleton has a holder, whether the
    node's settings are those of the others, and whether somebody has declared each return of the
    database to an earlier state."""
    vacancies, undeclared = Vacancies(SINGLETONS), Undeclared()
    while True:
        async with hub.database.connection() as connection:
            rows = await read_singletons(connection)
            stands_by = await connection.fetchval(STANDS_BY, node)
            declared = await undeclared.look(connection, hub.database.memory)
        held = vacancies.look(rows)
        for name, well in held.items():
            await server.set_health(f"singletons/{name}", well)
        await server.set_health("singletons", all(held.values()))
        await server.set_health("settings", not stands_by)
        await server.set_health("epochs", declared)
        await asyncio.sleep(NODE_PULSE)
