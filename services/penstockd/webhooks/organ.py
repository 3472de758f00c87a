"""The background work of webhooks, which the keeper runs: intake, dispatch, and retention."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from penstockd.calls import Allowance
from penstockd.catalog import Catalog
from penstockd.egress import EgressGuard, Network
from penstockd.errors import CursorExpired
from penstockd.keyring import Seal
from penstockd.metering.admission import Limiter
from penstockd.policy.snapshot import Policy
from penstockd.store.announcements import LOG_CHANNEL, WEBHOOK_CHANNEL, Announcements
from penstockd.store.database import Database
from penstockd.store.fences import FencedDatabase, Transactions
from penstockd.store.places import Places
from penstockd.webhooks.dispatcher import Dispatcher
from penstockd.webhooks.events import FeedLog
from penstockd.webhooks.intake import Intake
from penstockd.webhooks.messages import Composer, Payloads
from penstockd.webhooks.model import Chance, Clock, read_clock
from penstockd.webhooks.owners import Roster
from penstockd.webhooks.sender import Sender

#: How often to read the log without an announcement, in seconds.
POLL_SECONDS = 1.0

#: How often old rows are deleted, in seconds; and how many at a time.
INTERVAL = 600.0
CHUNK = 5000
_DELIVERIES = """
WITH old AS (
    DELETE FROM hub.webhook_delivery WHERE delivery_id IN (
        SELECT delivery_id FROM hub.webhook_delivery
        WHERE state IN ('DELIVERED', 'DEAD') AND delivery_id < $1 AND finish_time < $2 LIMIT $3)
    RETURNING delivery_id
), attempts AS (
    DELETE FROM hub.webhook_attempt AS a USING old WHERE a.delivery_id = old.delivery_id
)
SELECT count(*) FROM old
"""
#: Events older than all that deliveries still refer to.
_EVENTS = """
DELETE FROM hub.webhook_event WHERE commit_time < $1 AND event_id < coalesce(
    (SELECT min(e) FROM hub.webhook_delivery, unnest(event_ids) AS e), 9223372036854775807)
"""
_LISTENERS = "DELETE FROM hub.webhook WHERE kind = 'LISTEN' AND expire_time < $1"
_NOTICES = "DELETE FROM hub.webhook_notice WHERE create_time < $1"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryTerms:
    """The operator's settings: the hub's URL, and networks that deliveries may reach."""

    url: str
    allowed: Sequence[Network] = ()


class Webhooks:
    """All background work of webhooks: reads through ``database``, writes through ``fenced``."""

    def __init__(
        self,
        database: Database,
        fenced: FencedDatabase,
        announcements: Announcements,
        catalog: Catalog,
        policy: Policy,
        seal: Seal,
        terms: DeliveryTerms,
        places: Places,
        *,
        clock: Clock = read_clock,
        chance: Chance = random.random,
        allowance: Allowance | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self._database, self._fenced = database, fenced
        self._allowance, self._limiter = allowance, limiter
        self._announcements = announcements
        self._catalog, self._policy = catalog, policy
        self._places = places
        self._seal, self._terms, self._clock, self._chance = seal, terms, clock, chance

    async def run(self) -> None:
        """Deliver until cancelled. Raises DatabaseUnavailable, LeaseOver, PolicyStale."""
        async with self._database.connection() as connection:
            epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
        log = FeedLog(self._database, self._catalog)
        roster = Roster(self._catalog, self._seal)
        payloads = Payloads(self._catalog, self._terms.url, epoch, self._places)
        intake = Intake(
            self._fenced,
            self._announcements,
            self._catalog,
            self._policy,
            roster,
            log,
            self._places,
            clock=self._clock,
        )
        async with Sender(EgressGuard(self._terms.allowed)) as sender:
            dispatcher = Dispatcher(
                self._fenced,
                self._policy,
                self._seal,
                roster,
                sender,
                Composer(payloads, roster, log),
                clock=self._clock,
                chance=self._chance,
                lease=self._fenced.lease,
                allowance=self._allowance,
                limiter=self._limiter,
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(dispatcher.run())
                group.create_task(self._wake(dispatcher))
                group.create_task(self._take_in(intake, dispatcher))

    async def _wake(self, dispatcher: Dispatcher) -> None:
        """Wake the dispatcher when deliveries are due, even while the intake is busy."""
        with self._announcements.subscribe(WEBHOOK_CHANNEL) as mailbox:
            while True:
                if await mailbox.take(POLL_SECONDS):
                    dispatcher.wake()

    async def _take_in(self, intake: Intake, dispatcher: Dispatcher) -> None:
        with self._announcements.subscribe(LOG_CHANNEL, WEBHOOK_CHANNEL) as mailbox:
            while True:
                await self._take_all(intake, dispatcher)
                await mailbox.take(POLL_SECONDS)

    async def _take_all(self, intake: Intake, dispatcher: Dispatcher) -> None:
        """Take in the log up to its end."""
        more = True
        while more:
            try:
                made, more = await intake.step()
            except CursorExpired as exc:
                # The log was closed, or the keeper was away for longer than it is kept.
                _log.error("webhook_log_expired", error=exc.message)
                await intake.skip_expired(exc.places["oldest"])
                continue
            if made:
                dispatcher.wake()


class Retention:
    """Deletes deliveries that ended more than ``age`` ago, and expired LISTEN endpoints."""

    def __init__(self, database: Transactions, age: timedelta, clock: Clock) -> None:
        self._database, self._age, self._clock = database, age, clock

    async def run(self) -> None:
        """Delete every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            await self.prune()
            await asyncio.sleep(INTERVAL)

    async def prune(self) -> int:
        """Delete what is too old; returns how many deliveries."""
        cutoff, count = self._clock() - self._age, 0
        while True:
            async with self._database.transaction() as connection:
                found = await connection.fetchval(_DELIVERIES, _first_id(cutoff), cutoff, CHUNK)
            count += found
            if found < CHUNK:
                break
        async with self._database.transaction() as connection:
            await connection.execute(_LISTENERS, self._clock())
            await connection.execute(_NOTICES, cutoff)
            await connection.execute(_EVENTS, cutoff)
        return int(count)


def _first_id(moment: datetime) -> str:
    """An id above those of all deliveries made before a moment."""
    return f"msg_{int(moment.timestamp() * 1_000_000):014x}"
