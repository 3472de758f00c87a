"""Notices of failed sign-ins: to the consumer whose id or credential was tried, and to operators.

A few failures are typing errors. Somebody who guesses, or a program that still sends a credential
that has expired, fails again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from penstockd.audit.refusals import network_of
from penstockd.notes import Notes
from penstockd.policy.snapshot import Policy
from penstockd.store.announcements import Announcements
from penstockd.store.database import Database
from penstockd.webhooks.endpoints import announce_due
from penstockd.webhooks.model import Clock, read_clock
from penstockd.webhooks.operators import tell_consumers, tell_operators

#: The notice to the consumer, and the one to operators.
FAILED, CONSUMER_FAILED = "credentials.failing", "hub.credentials_failing"
#: From this number of failures within PERIOD seconds on, in one process, there is a notice.
FAILURES, PERIOD = 10, 3600.0
#: The shortest time between two notices about one consumer.
QUIET = timedelta(days=1)
#: The most consumers that are counted at one time, and the most addresses that a notice names.
MAX_CONSUMERS, MAX_ADDRESSES = 10_000, 5

#: The row lock lets one process after the other look for an earlier notice.
_LOCK = "SELECT true FROM hub.consumer WHERE consumer_id = $1 FOR NO KEY UPDATE"
_TOLD = """
SELECT EXISTS (
    SELECT FROM hub.webhook_notice WHERE consumer_id = $1 AND type = $2 AND create_time > $3)
"""


@dataclass(slots=True)
class _Failures:
    """The failures for one consumer since the first of them."""

    began: float
    since: datetime
    count: int = 0
    addresses: set[str] = field(default_factory=set)
    told: bool = False

    @property
    def due(self) -> bool:
        """Whether a notice of them waits to be written."""
        return self.count >= FAILURES and not self.told


class FailedSignIns(Notes):
    """The failed sign-ins for known consumers in one process, in the PERIOD of each."""

    lost = "failed_sign_ins_not_told"

    def __init__(
        self,
        database: Database,
        policy: Policy,
        announcements: Announcements,
        clock: Clock = read_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._database, self._policy, self._announcements = database, policy, announcements
        self._clock, self._monotonic = clock, monotonic
        self._failures: dict[str, _Failures] = {}

    def note(self, consumer_id: str, address: str) -> None:
        """Note that a sign-in for an existing consumer failed, from an address."""
        now = self._monotonic()
        found = self._failures.get(consumer_id)
        if found is None or (now - found.began > PERIOD and not found.due):
            if found is None and len(self._failures) >= MAX_CONSUMERS:
                self._forget(now)
            if found is None and len(self._failures) >= MAX_CONSUMERS:
                return
            found = self._failures[consumer_id] = _Failures(now, datetime.now(UTC))
        found.count += 1
        if len(found.addresses) < MAX_ADDRESSES:
            found.addresses.add(network_of(address))
        if found.due:
            self._note_any()

    async def _write(self) -> None:
        due = {name: failures for name, failures in self._failures.items() if failures.due}
        for name, failures in due.items():
            failures.told = True
            try:
                await self._tell(name, failures)
            except BaseException:
                # If it was stored all the same, the next try finds it.
                failures.told = False
                self._note_any()
                raise

    async def _tell(self, consumer_id: str, failures: _Failures) -> None:
        content = {
            "consumerId": consumer_id,
            "failures": failures.count,
            "since": failures.since.isoformat(),
            "addresses": sorted(failures.addresses),
        }
        async with self._database.transaction() as connection:
            at = self._clock()
            if not await connection.fetchval(_LOCK, consumer_id):
                return  # it has been deleted
            if await connection.fetchval(_TOLD, consumer_id, FAILED, at - QUIET):
                return
            queued = await tell_consumers(connection, [consumer_id], FAILED, content, at)
            policy = self._policy.newest
            queued += await tell_operators(connection, policy, CONSUMER_FAILED, content, at)
            if queued:
                await announce_due(self._announcements, connection)

    def _forget(self, now: float) -> None:
        """Forget the consumers whose PERIOD is over."""
        over = [
            name
            for name, found in self._failures.items()
            if now - found.began > PERIOD and not found.due
        ]
        for name in over:
            del self._failures[name]
