"""The organ as the keeper runs it: intake and dispatch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from penstockd.catalog import Catalog
from penstockd.egress import EgressGuard, Network
from penstockd.errors import CursorExpired
from penstockd.policy.snapshot import Policy
from penstockd.store.announcements import LOG_CHANNEL, WEBHOOK_CHANNEL, Announcements
from penstockd.store.cursor import Cursor
from penstockd.store.database import Database
from penstockd.store.places import Places
from penstockd.store.singletons import FencedDatabase
from penstockd.webhooks.composer import Composer
from penstockd.webhooks.dispatcher import Dispatcher
from penstockd.webhooks.intake import Intake
from penstockd.webhooks.log import FeedLog
from penstockd.webhooks.owners import Owners
from penstockd.webhooks.payload import Payloads
from penstockd.webhooks.schedule import Chance, Clock, now
from penstockd.webhooks.sender import Sender
from penstockd.webhooks.signing import Seal

#: Connections to the database for all of it.
CONNECTIONS = 8
#: How often the log is looked at if no announcement comes, in seconds.
POLL_SECONDS = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator says: the hub's URL, and networks that are open to deliveries."""

    url: str
    allowed: Sequence[Network] = ()


class Webhooks:
    """Everything that webhooks do by themselves: reads ``database``, writes by ``fenced``."""

    def __init__(
        self,
        database: Database,
        fenced: FencedDatabase,
        announcements: Announcements,
        catalog: Catalog,
        policy: Policy,
        seal: Seal,
        terms: Terms,
        places: Places,
        *,
        clock: Clock = now,
        chance: Chance = random.random,
    ) -> None:
        self._database, self._fenced = database, fenced
        self._announcements = announcements
        self._catalog, self._policy = catalog, policy
        self._places = places
        self._seal, self._terms, self._clock, self._chance = seal, terms, clock, chance

    async def run(self) -> None:
        """Deliver until cancelled. Raises DatabaseUnavailable, LeaseOver, PolicyStale."""
        async with self._database.connection() as connection:
            epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
        log = FeedLog(self._database, self._catalog)
        look = Owners(self._catalog).sights
        payloads = Payloads(self._catalog, self._terms.url, epoch, self._places)
        intake = Intake(
            self._fenced,
            self._announcements,
            self._catalog,
            self._policy,
            self._seal,
            log,
            self._places,
            clock=self._clock,
        )
        async with Sender(EgressGuard(self._terms.allowed)) as sender:
            dispatcher = Dispatcher(
                self._fenced,
                self._policy,
                self._seal,
                sender,
                Composer(payloads, look, log.reread),
                look,
                clock=self._clock,
                chance=self._chance,
                lease=self._fenced.lease,
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(dispatcher.run())
                group.create_task(self._wake(dispatcher))
                group.create_task(self._take_in(intake, dispatcher))

    async def _wake(self, dispatcher: Dispatcher) -> None:
        """Wake the dispatcher when deliveries are due, also while the intake is busy."""
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
        """Take in all of the log."""
        more = True
        while more:
            try:
                made, more = await intake.step()
            except CursorExpired as exc:
                # The keeper was away for longer than the log is kept: receivers see the gap.
                _log.error("webhook_log_expired", error=exc.message)
                await self._skip_to(exc.places["oldest"])
                continue
            if made:
                dispatcher.wake()

    async def _skip_to(self, cursor: Cursor) -> None:
        async with self._fenced.transaction() as connection:
            await connection.execute("UPDATE hub.webhook_head SET cursor = $1", cursor.stored)
            await connection.execute(
                "UPDATE hub.webhook SET replay_number = NULL, replay_end = NULL"
                " WHERE replay_number < $1",
                cursor.number,
            )
