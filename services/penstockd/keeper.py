"""The keeper of a node: the work that one of all nodes does at a time, each part under a lease.

Each singleton is an organ of its own, so that nodes may share the work, one that fails restarts no
other, and one whose lease is lost stops alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta

import structlog

from penstockd.audit.checkpoint import CheckpointFile
from penstockd.audit.sealer import Sealer
from penstockd.auth.keys import rotate_by_age
from penstockd.config import SCOPES, Scope, Settings, shared_values
from penstockd.errors import DatabaseUnavailable, Refused
from penstockd.feed.retention import Retention
from penstockd.heartbeat import beat
from penstockd.installation import checkpoint_key, node_id, read_catalog, root_secret
from penstockd.observe import flush, set_up
from penstockd.organs import Organ, Organs, end_tasks, singleton, stop_signal, wait_for_event
from penstockd.policy.snapshot import Policy
from penstockd.store.announcements import Announcements, PostgresAnnouncements
from penstockd.store.database import Database
from penstockd.store.nodes import Agreement
from penstockd.store.partitions import add_partitions
from penstockd.store.replies import forget_replies
from penstockd.store.sequencer import sweep_log
from penstockd.store.singletons import SINGLETONS, FencedDatabase, Leases, Transactions
from penstockd.store.tables import Tables
from penstockd.webhooks import organ as webhooks
from penstockd.webhooks.organ import Retention as WebhookRetention
from penstockd.webhooks.signing import Seal

#: Connections to the database that the singletons share; webhooks have their own.
CONNECTIONS = 8
#: How often the keeper tries a database that it could not open, in seconds.
PULSE = 1.0
#: How often stored replies that are too old are deleted, in seconds.
FORGET_INTERVAL = 600.0
PARTITION_INTERVAL = 3600.0
ROTATION_INTERVAL = 60.0

_log = structlog.get_logger(__name__)


class Singletons:
    """What only one node does at a time; each method is the work of one, behind its fence."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        announcements: Announcements,
        leases: Leases,
    ) -> None:
        self._settings, self._database, self._leases = settings, database, leases
        self._announcements = announcements

    def work(self) -> Mapping[str, Callable[[FencedDatabase], Awaitable[None]]]:
        """All of it; the names are those of the rows of ``hub.singleton``."""
        return {
            "sequencer": sweep_log,
            "partitions": self.add_partitions,
            "stored-replies": self.forget_replies,
            "log-retention": self.prune_log,
            "audit-sealer": self.seal_audit,
            "signing-keys": self.rotate_keys,
            "webhooks": self.deliver_webhooks,
            "webhook-retention": self.prune_deliveries,
        }

    def organs(self) -> list[Organ]:
        """Each under the lease of its name."""
        work = self.work()
        return [singleton(name, self._leases, self._database, work[name]) for name in SINGLETONS]

    async def add_partitions(self, fenced: Transactions) -> None:
        """Make the partitions of the days ahead."""
        while True:
            async with fenced.transaction() as connection:
                await add_partitions(connection)
            await asyncio.sleep(PARTITION_INTERVAL)

    async def forget_replies(self, fenced: Transactions) -> None:
        """Delete stored replies that are too old."""
        while True:
            async with fenced.transaction() as connection:
                await forget_replies(connection)
            await asyncio.sleep(FORGET_INTERVAL)

    async def prune_log(self, fenced: Transactions) -> None:
        """Forget what is older than the log is kept."""
        await Retention(fenced, self._settings.log_retention_hours).run()

    async def seal_audit(self, fenced: Transactions) -> None:
        """Seal the audit, and sign its checkpoints."""
        settings = self._settings
        await Sealer(
            fenced,
            checkpoint_key(settings),
            CheckpointFile(settings.checkpoint_file),
            interval=settings.audit_checkpoint_seconds,
        ).run()

    async def rotate_keys(self, fenced: Transactions) -> None:
        """Replace signing keys that are too old."""
        sealing_key = root_secret(self._settings).derive("signing-key")
        age = timedelta(days=self._settings.key_days)
        while True:
            async with fenced.transaction() as connection:
                new = await rotate_by_age(connection, sealing_key, age)
            if new is not None:
                _log.info("signing_key_rotated", key_id=new)
            await asyncio.sleep(ROTATION_INTERVAL)

    async def deliver_webhooks(self, fenced: FencedDatabase) -> None:
        """Deliver, with connections and a policy of its own."""
        settings = self._settings
        catalog, secret = read_catalog(), root_secret(settings)
        database = Database(self._database.dsn, size=webhooks.CONNECTIONS)
        mask, stale_after = secret.derive("mask"), settings.policy_stale_seconds
        policy = Policy(
            database,
            self._announcements,
            catalog,
            Tables(catalog),
            mask,
            stale_after=stale_after,
        )
        own = fenced.by_way_of(database)
        terms = webhooks.Terms(settings.url, settings.webhook_allow)
        seal = Seal(secret.derive("webhooks"))
        work = webhooks.Webhooks(
            database,
            own,
            self._announcements,
            catalog,
            policy,
            seal,
            terms,
            clock=self._leases.now,
        )
        try:
            await database.open()
            await policy.refresh()
            async with asyncio.TaskGroup() as group:
                group.create_task(policy.follow())
                group.create_task(work.run())
        finally:
            database.abandon()
            policy.close()
            await database.close()

    async def prune_deliveries(self, fenced: Transactions) -> None:
        """Delete deliveries that ended long ago."""
        age = timedelta(days=self._settings.webhook_days)
        await WebhookRetention(fenced, age, self._leases.now).run()


def keeper_organs(settings: Settings, database: Database, leases: Leases) -> Sequence[Organ]:
    """All that a keeper runs."""
    announcements = PostgresAnnouncements(database)
    return [
        Organ("leases", leases.run),
        Organ("announcements", announcements.follow),
        *Singletons(settings, database, announcements, leases).organs(),
    ]


async def keep(settings: Settings) -> None:
    """Run the keeper until SIGTERM or SIGINT."""
    set_up("keeper", settings.log_level, settings.otlp_endpoint)
    stopping = stop_signal()
    beating = asyncio.create_task(beat())
    assert settings.database_url is not None, "the supervisor gives every process the database"
    database = Database(settings.database_url, size=CONNECTIONS)
    if await _opened(database, stopping):
        # Nothing is taken before this node has seen what the others' settings are.
        leases = Leases(database, node_id(settings), socket.gethostname(), stands_by=True)
        agreement = Agreement(database, leases, _shared(settings), _grave(settings))
        organs = Organs(
            [Organ("settings", agreement.run), *keeper_organs(settings, database, leases)]
        )
        running = asyncio.create_task(organs.run())
        _log.info("keeper_started")
        await stopping.wait()
        await end_tasks([running])
        # The others are to take over what is released now, and leave nothing to this node.
        with contextlib.suppress(Refused):
            await agreement.leave()
        await leases.close()
    await database.close()
    await end_tasks([beating])
    flush()


def _shared(settings: Settings) -> Mapping[str, str]:
    """What the nodes compare."""
    return shared_values(settings, root_secret(settings).derive("fingerprint").hex()[:16])


def _grave(settings: Settings) -> Collection[str]:
    """Settings for which a node that differs stands by."""
    if settings.differing_settings == "warn":
        return ()
    return [name for name, scope in SCOPES.items() if scope is Scope.STAND_BY]


async def _opened(database: Database, stopping: asyncio.Event) -> bool:
    """Open the database as soon as it answers; False if the process is stopped before."""
    told = False
    while not stopping.is_set():
        try:
            await database.open()
            return True
        except Refused as exc:
            if not told:
                _log.warning("keeper_waits", error=str(exc))
            told = True
        with contextlib.suppress(DatabaseUnavailable):
            await database.close()
        await wait_for_event(stopping, PULSE)
    return False
