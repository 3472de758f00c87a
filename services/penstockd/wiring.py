"""Turns settings into organs: the one place where the parts of a process are put together.

Worker and keeper have the same hub, and differ in their database connections and their organs: see
``app`` and ``keeper``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta

import structlog
from prometheus_client.registry import Collector

from penstockd.audit.checkpoint import CheckpointFile, RingSigners
from penstockd.audit.journal import Journal
from penstockd.audit.lost_streams import LostStreams
from penstockd.audit.open_streams import OpenStreams
from penstockd.audit.refusals import UnknownCallers
from penstockd.audit.retention import ArchivePlace, AuditRetention
from penstockd.audit.sealer import Sealer
from penstockd.audit.witness import CheckpointWitness
from penstockd.auth.credentials import Credentials
from penstockd.auth.issuers import Issuers
from penstockd.auth.jwks import Origins
from penstockd.auth.keys import SigningKeys, rotate_keys
from penstockd.auth.tickets import Tickets
from penstockd.auth.tokens import Tokens
from penstockd.auth.trust import Trust
from penstockd.auth.uses import CredentialUses
from penstockd.catalog import Catalog
from penstockd.config import Settings
from penstockd.egress import EgressGuard
from penstockd.errors import Refused
from penstockd.exports.limits import ExportLimits
from penstockd.feed.broadcast import Broadcast
from penstockd.feed.limits import Streams
from penstockd.feed.retention import LogRetention
from penstockd.heartbeat import send_heartbeats
from penstockd.hub import Hub
from penstockd.installation import node_id, open_ring, read_catalog
from penstockd.keyring import (
    CREDENTIALS,
    MASKS,
    PAGE_TOKENS,
    PARTITIONS,
    SIGNING,
    STREAM_TICKETS,
    WEBHOOKS,
    KeyRing,
    Seal,
)
from penstockd.metering.admission import Limiter
from penstockd.metering.days import UsageDays
from penstockd.metering.fold import UsageFold
from penstockd.metering.lost_portions import LostPortions
from penstockd.metering.rollups import UsageLevel
from penstockd.node.sockets import sockets_folder
from penstockd.observe import flush_spans, set_up
from penstockd.observe.monitor import NodeMonitor
from penstockd.organs import Organ, end_tasks, make_singleton, stop_signal, wait_for_event
from penstockd.policy.snapshot import Policy
from penstockd.query import PageTokens
from penstockd.spools import SpoolPlace
from penstockd.store.announcements import PostgresAnnouncements
from penstockd.store.capacity import KEEPER_CONNECTIONS, WEBHOOK_CONNECTIONS
from penstockd.store.database import ORDINARY, Database, Division, Limits
from penstockd.store.fences import FencedDatabase
from penstockd.store.former_fields import find_former_fields
from penstockd.store.nodes import Agreement
from penstockd.store.partitions import keep_partitions
from penstockd.store.places import Places
from penstockd.store.replies import prune_replies
from penstockd.store.sequencer import Sequencer, sweep_log
from penstockd.store.singleton_rows import SINGLETONS
from penstockd.store.singletons import Leases
from penstockd.store.snapshots import Snapshots
from penstockd.store.states import States
from penstockd.store.tables import Tables
from penstockd.store.writer import Writer
from penstockd.webhooks.desk import WebhookDesk
from penstockd.webhooks.operators import DiskWatch
from penstockd.webhooks.sign_ins import FailedSignIns
from penstockd.writes.arrival import ImportLimits

#: The time for one statement of a singleton, in seconds: after a long pause the sealer and
#: retention have much to do.
KEEPER_STATEMENT = 600.0
#: Seconds between attempts to open a database.
RETRY = 1.0

#: The work of a singleton while its process holds the lease of its name.
Work = Callable[[FencedDatabase], Awaitable[None]]

_log = structlog.get_logger(__name__)


def worker_database(settings: Settings) -> Database:
    """The connections of a worker, divided between the kinds of work."""
    division = Division(
        connections=settings.connections,
        wait=settings.wait_seconds,
        lock=settings.lock_seconds,
        statement=settings.statement_seconds,
        commit=settings.commit_seconds,
        snapshot=settings.snapshot_seconds,
    )
    return Database(_database_url(settings), division=division)


def keeper_database(settings: Settings) -> Database:
    """The connections of a keeper, which all singletons share."""
    limits = Limits(settings.lock_seconds, KEEPER_STATEMENT, settings.commit_seconds)
    return Database(_database_url(settings), size=KEEPER_CONNECTIONS, limits=limits)


def _database_url(settings: Settings) -> str:
    assert settings.database_url is not None, "the supervisor gives every process the database"
    return settings.database_url


@contextlib.asynccontextmanager
async def open_hub(settings: Settings, database: Database) -> AsyncIterator[Hub]:
    """Open the parts of one process, and close them at the end. Raises DatabaseUnavailable."""
    hub = _make_hub(settings, database)
    try:
        await database.open()
        async with database.connection() as connection:
            former = await find_former_fields(connection, hub.catalog)
        hub.catalog.with_former_fields = former
        await hub.policy.refresh()
        yield hub
        await hub.tasks.drain()
    finally:
        await hub.uses.close()
        await hub.limiter.close()
        await hub.refusals.close()
        await hub.failed_sign_ins.close()
        hub.policy.close()
        hub.issuers.close()
        hub.open_streams.close()
        for part in (hub.snapshots, hub.journal, hub.writer, database):
            await part.close()


def _make_hub(settings: Settings, database: Database) -> Hub:
    catalog, ring = read_catalog(settings.resources), open_ring(settings)
    announcements = PostgresAnnouncements(database)
    snapshots = Snapshots(
        database,
        seconds=settings.export_resume_seconds,
        most_seconds=settings.snapshot_seconds,
    )
    issuers = Issuers(Origins(settings.issuer_allow, loopback=settings.loopback_issuers))
    tokens = _make_tokens(settings)
    places = Places(ring, settings.log_retention_hours)
    journal = Journal(database)
    credentials = Credentials(ring.keys(CREDENTIALS))
    trust = Trust(ring, tokens, issuers, places)
    policy = _make_policy(settings, database, announcements, catalog, ring, trust)
    return Hub(
        ring=ring,
        catalog=catalog,
        database=database,
        announcements=announcements,
        policy=policy,
        limiter=Limiter(database, announcements, ring.keys(PARTITIONS)),
        writer=Writer(database, Sequencer(database)),
        journal=journal,
        open_streams=OpenStreams(database, journal),
        refusals=UnknownCallers(journal, settings.refused_calls),
        failed_sign_ins=FailedSignIns(database, policy, announcements),
        tokens=tokens,
        issuers=issuers,
        trust=trust,
        credentials=credentials,
        uses=CredentialUses(database, credentials),
        page_tokens=PageTokens(ring.keys(PAGE_TOKENS)),
        tickets=Tickets(ring.keys(STREAM_TICKETS)),
        places=places,
        snapshots=snapshots,
        states=States(snapshots),
        exports=ExportLimits(settings.export_connections, settings.export_stall_seconds),
        imports=ImportLimits(
            settings.import_stall_seconds,
            settings.import_seconds,
            SpoolPlace(settings.data_dir, settings.disk_reserve_mb << 20),
        ),
        feed=Broadcast(database, announcements, catalog, hours=settings.log_retention_hours),
        streams=Streams(most=settings.max_streams, stall_seconds=settings.stream_stall_seconds),
        webhooks=_make_desk(settings, database, catalog, announcements, ring, places),
        audit_file=CheckpointFile(settings.checkpoint_file),
        public_url=settings.url,
        monitor=NodeMonitor(lambda: find_node(settings)),
    )


def find_node(settings: Settings) -> tuple[str, Collector]:
    """The name of this node, and the metrics of its processes, its keeper's over a socket too.

    Raises FolderUnusable.
    """
    # It loads what a keeper, and a worker that nobody asks, need not have.
    from penstockd.observe.joining import NodeMetrics

    sockets = sockets_folder(settings.data_dir)
    workers = [f"worker-{i}" for i in range(settings.workers)]
    metrics = NodeMetrics(sockets, workers, sockets / "admin.sock", own=None)
    return node_id(settings), metrics


def _make_policy(
    settings: Settings,
    database: Database,
    announcements: PostgresAnnouncements,
    catalog: Catalog,
    ring: KeyRing,
    trust: Trust,
) -> Policy:
    """The policy as this process knows it; the keys and issuers of tokens are loaded with it."""
    return Policy(
        database,
        announcements,
        catalog,
        Tables(catalog),
        lambda: ring.lasting(MASKS),
        companion=trust,
        stale_after=settings.policy_stale_seconds,
    )


def _make_desk(
    settings: Settings,
    database: Database,
    catalog: Catalog,
    announcements: PostgresAnnouncements,
    ring: KeyRing,
    places: Places,
) -> WebhookDesk:
    """The object that calls about webhooks use."""
    return WebhookDesk(
        database,
        catalog,
        announcements,
        Seal(ring.keys(WEBHOOKS)),
        EgressGuard(settings.webhook_allow),
        settings.url,
        places,
    )


def _make_tokens(settings: Settings) -> Tokens:
    """The issuer and verifier of the hub's own tokens; its keys are loaded with the policy."""
    return Tokens(
        SigningKeys([]),
        issuer=settings.token_issuer,
        audience=settings.audience,
        lifetime=settings.token_minutes * 60,
    )


async def run_process(
    settings: Settings,
    name: str,
    make_database: Callable[[Settings], Database],
    work: Callable[[Hub, asyncio.Event], Awaitable[None]],
) -> None:
    """Run a process until SIGTERM or SIGINT: ``work`` starts as soon as the database answers.

    It is called with the hub and an event that is set when the work must end.
    """
    set_up(name, settings.log_level, settings.otlp_endpoint)
    stopping = stop_signal()
    beating = asyncio.create_task(send_heartbeats())
    waits = False
    while not stopping.is_set():
        try:
            async with open_hub(settings, make_database(settings)) as hub:
                await work(hub, stopping)
        except Refused as exc:
            if not waits:
                _log.warning("process_waits", error=str(exc))
            waits = True
            await wait_for_event(stopping, RETRY)
    await end_tasks([beating])
    flush_spans()


def worker_organs(hub: Hub) -> list[Organ]:
    """The organs that a worker runs besides its calls and their server."""
    return [
        Organ("database-server", hub.database.follow_server),
        Organ("announcements", hub.announcements.follow),
        Organ("policy", hub.policy.follow),
        Organ("open-streams", hub.open_streams.follow),
        Organ("allowances", hub.limiter.follow),
        Organ("credential-uses", hub.uses.follow),
        Organ("refused-calls", hub.refusals.follow),
        Organ("failed-sign-ins", hub.failed_sign_ins.follow),
        Organ("feed-tail", hub.feed.tail.follow),
    ]


def keeper_organs(
    settings: Settings, hub: Hub, leases: Leases, agreement: Agreement
) -> list[Organ]:
    """The organs of a keeper: each singleton under the lease of its name. Every keeper copies the
    audit's checkpoints to its file, whichever node signs them."""
    work = list_singletons(settings, hub, leases)
    return [
        Organ("settings", agreement.run),
        Organ("leases", leases.run),
        Organ("database-server", hub.database.follow_server),
        Organ("announcements", hub.announcements.follow),
        Organ("policy", hub.policy.follow),
        Organ("allowances", hub.limiter.follow),
        Organ("checkpoint-file", CheckpointWitness(hub.database, hub.audit_file).run),
        Organ("disk", _watch_disk(settings, hub, leases).run),
        *(make_singleton(name, leases, hub.database, work[name]) for name in SINGLETONS),
    ]


def _watch_disk(settings: Settings, hub: Hub, leases: Leases) -> DiskWatch:
    """What tells operators that the disk of this node runs low."""
    return DiskWatch(
        hub.database,
        hub.policy,
        hub.announcements,
        settings.data_dir,
        settings.disk_reserve_mb << 20,
        {"nodeId": leases.holder.node_id, "host": leases.host},
        leases.now,
    )


def list_singletons(settings: Settings, hub: Hub, leases: Leases) -> Mapping[str, Work]:
    """The work that only one node does at a time, by the names of the rows of ``hub.singleton``."""
    seal = Seal(hub.ring.keys(SIGNING))
    signers, seconds = RingSigners(hub.ring), settings.audit_checkpoint_seconds
    key_age = timedelta(days=settings.key_days)
    delivery_age = timedelta(days=settings.webhook_days)
    kept = {
        UsageLevel.MINUTE: settings.usage_minute_days,
        UsageLevel.HOUR: settings.usage_hour_days,
        UsageLevel.DAY: settings.usage_day_days,
    }
    place = ArchivePlace(settings.archive_folder, leases.holder.node_id, leases.host)
    archiving = AuditRetention(hub.database, signers, place, settings.audit_days)
    return {
        "sequencer": sweep_log,
        "partitions": keep_partitions,
        "stored-replies": prune_replies,
        "log-retention": lambda fenced: LogRetention(fenced, settings.log_retention_hours).run(),
        "audit-sealer": lambda fenced: Sealer(fenced, signers, None, interval=seconds).run(),
        "audit-retention": archiving.run,
        "signing-keys": lambda fenced: rotate_keys(fenced, seal, key_age),
        "webhooks": lambda fenced: _deliver_webhooks(settings, hub, fenced, leases),
        "webhook-retention": lambda fenced: _forget_deliveries(fenced, delivery_age, leases),
        "lost-streams": lambda fenced: LostStreams(fenced).run(),
        "lost-portions": lambda fenced: LostPortions(fenced).run(),
        "usage": lambda fenced: UsageFold(fenced).run(),
        "usage-days": lambda fenced: UsageDays(fenced, kept).run(),
    }


async def _forget_deliveries(fenced: FencedDatabase, age: timedelta, leases: Leases) -> None:
    """Delete old deliveries."""
    from penstockd.webhooks import organ  # it loads the HTTP client, which only keepers need

    await organ.Retention(fenced, age, leases.now).run()


async def _deliver_webhooks(
    settings: Settings, hub: Hub, fenced: FencedDatabase, leases: Leases
) -> None:
    """Deliver over separate connections, so that waiting for receivers delays nothing else."""
    from penstockd.webhooks import organ  # it loads the HTTP client, which only keepers need

    database = Database(
        hub.database.dsn, size=WEBHOOK_CONNECTIONS, limits=ORDINARY, memory=hub.database.memory
    )
    work = organ.Webhooks(
        database,
        fenced.by_way_of(database),
        hub.announcements,
        hub.catalog,
        hub.policy,
        hub.webhooks.seal,
        organ.DeliveryTerms(settings.url, settings.webhook_allow),
        hub.places,
        clock=leases.now,
        allowance=hub.allowance,
        limiter=hub.limiter,
    )
    try:
        await database.open()
        await work.run()
    finally:
        database.abandon()
        await database.close()
