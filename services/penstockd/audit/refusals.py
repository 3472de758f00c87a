"""Bounds what callers without valid credentials leave in the audit, and counts the rest.

Anybody can send calls that the hub must refuse, and each would cost a write to the database. So
only the first calls of an address, those for one consumer, and of all together get entries and
answers of their own. The others are answered without the database, and one entry a minute for each
address counts them. A call with a valid credential is never counted here, whatever others at its
address do.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from penstockd.audit.entry import REFUSALS, Entry
from penstockd.audit.journal import Journal
from penstockd.notes import Notes

#: The allowance of all callers together, in multiples of that of one address. The owner of an IPv6
#: /48 has 65,536 networks that count as different callers.
TOGETHER = 10
#: The most addresses and consumers that are distinguished; further callers share one allowance.
MAX_CALLERS = 10_000
#: The most addresses whose refused calls are counted separately; the others are counted together.
MAX_COUNTED = 100
#: The name of all callers beyond a bound.
OTHERS = "(others)"

_MINUTE = 60.0
#: The rounding error that sums of floats may have.
_ROUNDING = 1e-6


@dataclass(slots=True)
class _RefusedCalls:
    """Refused calls without entries of their own, and when the first of them came."""

    calls: int
    since: datetime


class UnknownCallers(Notes):
    """What callers without valid credentials have done recently, in one process."""

    lost = "refused_calls_not_counted"

    def __init__(
        self, journal: Journal, per_minute: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``per_minute`` refused calls of one address, or for one consumer, get entries: this many
        at once, and then as many in each minute. All callers together get TOGETHER times as
        many."""
        super().__init__()
        self._journal, self._clock = journal, clock
        self._each = _MINUTE / per_minute
        # The time at which the allowance is complete again: an entry moves it by ``_each``, and it
        # can be at most a minute ahead. The callers are in the order of their latest entries.
        self._whole: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._whole_together = -math.inf
        self._counts: dict[str, _RefusedCalls] = {}

    def allow(self, address: str, consumer: str | None = None) -> bool:
        """Whether a refused call gets an entry of its own. If not, it is counted.

        ``consumer`` is the consumer that the caller claims to be, if it exists.
        """
        now, network = self._clock(), network_of(address)
        self._forget(now)
        callers = [self._distinguish("address", network)]
        if consumer is not None:
            callers.append(self._distinguish("consumer", consumer))
        due = [max(self._whole.get(caller, now), now) + self._each for caller in callers]
        together = max(self._whole_together, now) + self._each / TOGETHER
        if max(*due, together) > now + _MINUTE + _ROUNDING:
            self._count(network)
            return False
        self._whole_together = together
        for caller, whole in zip(callers, due, strict=True):
            self._whole[caller] = whole
            self._whole.move_to_end(caller)
        return True

    async def _write(self) -> None:
        counts, self._counts = self._counts, {}
        while counts:
            network, count = next(iter(counts.items()))
            try:
                await self._journal.record(_make_entry(network, count))
            except BaseException as exc:
                if isinstance(exc, asyncio.CancelledError):
                    del counts[network]  # the journal writes it in any case
                for name, kept in counts.items():
                    self._add(name, kept)
                raise
            del counts[network]

    def _distinguish(self, kind: str, name: str) -> tuple[str, str]:
        """The caller, or all callers of its kind if too many are distinguished already."""
        caller = (kind, name)
        if caller in self._whole or len(self._whole) < MAX_CALLERS:
            return caller
        return kind, OTHERS

    def _forget(self, now: float) -> None:
        """Forget callers whose allowance is complete: each of them within two minutes, since the
        first in the order had its latest entry before the others."""
        while self._whole:
            caller, whole = next(iter(self._whole.items()))
            if whole > now:
                return
            del self._whole[caller]

    def _count(self, network: str) -> None:
        self._add(network, _RefusedCalls(1, datetime.now(UTC)))

    def _add(self, network: str, count: _RefusedCalls) -> None:
        if network not in self._counts and len(self._counts) >= MAX_COUNTED:
            network = OTHERS
        known = self._counts.setdefault(network, _RefusedCalls(0, count.since))
        known.calls += count.calls
        known.since = min(known.since, count.since)
        self._note_any()


def network_of(address: str) -> str:
    """The address by which callers are distinguished, as in the sidecar: of IPv6 the first 64
    bits."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a caller on this machine that bypasses the sidecar
        return "(local)"
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found)


def _make_entry(network: str, count: _RefusedCalls) -> Entry:
    said = {"calls": count.calls, "since": count.since.isoformat()}
    return Entry(
        request_id=str(uuid.uuid4()),
        method=REFUSALS,
        outcome="RATE_LIMITED",
        peer=network,
        query=orjson.dumps(said).decode(),
    )
