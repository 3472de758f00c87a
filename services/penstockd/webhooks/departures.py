"""Lets messages leave: as far as the quotas of their owners go, and once the audit has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.shown import KnownDigests, Shown, insert_shown
from penstockd.calls import Allowance
from penstockd.errors import Refused
from penstockd.metering.admission import Limiter
from penstockd.metering.deliveries import DeliveryCharges
from penstockd.policy.errors import QuotaExhausted
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import Endpoint
from penstockd.webhooks.messages import Composed, make_entries
from penstockd.webhooks.model import Clock, DeliveryState
from penstockd.webhooks.owners import Roster
from penstockd.webhooks.queue import SendResult

#: How long deliveries wait at most before the next look whether their owner may receive more, in
#: seconds.
ALLOWANCE_SECONDS = 60.0


@dataclass(slots=True)
class Cleared:
    """What may leave, and the results of what may not leave yet."""

    leaving: list[Composed] = field(default_factory=list)
    kept_in: list[SendResult] = field(default_factory=list)
    #: For how long nothing more can leave to endpoints, in seconds.
    rests: dict[str, float] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    #: Rules that are not known to be stored.
    rules: dict[bytes, Shown] = field(default_factory=dict)


class Departures:
    """Decides what may leave."""

    def __init__(
        self,
        roster: Roster,
        clock: Clock,
        *,
        allowance: Allowance | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        """``limiter`` has the quotas; without it nothing is charged."""
        self._roster, self._clock = roster, clock
        self._allowance, self._limiter = allowance, limiter
        self._known = KnownDigests()

    def forget(self) -> None:
        """Forget which rules are stored: that may be undone."""
        self._known.clear()

    def confirm(self, cleared: Cleared) -> None:
        """Note that the transaction of what was cleared is committed."""
        for digest in cleared.rules:
            self._known.add(digest)

    def charging(self) -> DeliveryCharges:
        """What a transaction will charge; see ``DeliveryCharges``."""
        return DeliveryCharges(self._limiter)

    async def clear(
        self,
        connection: Connection,
        policy: PolicySnapshot,
        groups: Sequence[tuple[Endpoint, Sequence[Composed]]],
        charges: DeliveryCharges,
    ) -> Cleared:
        """Record the messages that may leave, by endpoint, under the policy that they were made
        with.

        Raises DatabaseUnavailable and AllowanceLost.
        """
        cleared = Cleared()
        for endpoint, group in groups:
            admitted = await self._charge(policy, endpoint, group, charges, cleared)
            if admitted:
                self._enter(policy, endpoint, admitted, charges, cleared)
        if cleared.rules:
            await insert_shown(connection, list(cleared.rules.values()))
        if cleared.entries:
            await insert_entries(connection, cleared.entries)
        return cleared

    async def _charge(
        self,
        policy: PolicySnapshot,
        endpoint: Endpoint,
        group: Sequence[Composed],
        charges: DeliveryCharges,
        cleared: Cleared,
    ) -> list[Composed]:
        """Those of a group that the owner's quotas admit; the others wait."""
        consumer_id = endpoint.webhook.consumer_id
        terms = policy.terms(consumer_id)
        admitted: list[Composed] = []
        for each in group:
            records = {name: len(keys) for name, keys in each.message.disclosed.items()}
            try:
                await charges.take(terms, consumer_id, records, len(each.message.body))
                admitted.append(each)
            except QuotaExhausted as spent:
                self._keep_in(each, spent, cleared)
        return admitted

    def _keep_in(self, composed: Composed, spent: QuotaExhausted, cleared: Cleared) -> None:
        """Let a message wait, alone or, if nothing else could leave either, with its endpoint."""
        seconds = min(ALLOWANCE_SECONDS, spent.retry_after or ALLOWANCE_SECONDS)
        if not spent.partial:
            cleared.rests[composed.delivery.webhook_id] = seconds
            seconds = 0.0
        self._wait(composed, seconds, cleared)

    def _wait(self, composed: Composed, seconds: float, cleared: Cleared) -> None:
        later = self._clock() + timedelta(seconds=seconds)
        cleared.kept_in.append(
            SendResult(composed.delivery, DeliveryState.PENDING, next_time=later)
        )

    def _enter(
        self,
        policy: PolicySnapshot,
        endpoint: Endpoint,
        admitted: Sequence[Composed],
        charges: DeliveryCharges,
        cleared: Cleared,
    ) -> None:
        """Make the entries of messages to one endpoint, unless their owner may receive no more."""
        told, rules = make_entries(
            endpoint, self._roster.sights(policy, endpoint.webhook), admitted
        )
        if not self._allows(told):
            charges.give_back()
            for each in admitted:
                self._wait(each, ALLOWANCE_SECONDS, cleared)
            return
        charges.enter(told[0])
        cleared.leaving += admitted
        cleared.entries += told
        cleared.rules |= {r.digest: r for r in rules if r.digest not in self._known}

    def _allows(self, entries: Sequence[Entry]) -> bool:
        """Whether the owner of an endpoint may receive the records of these entries."""
        if self._allowance is not None:
            try:
                self._allowance.take(entries[0], sum(e.row_count or 0 for e in entries))
            except Refused:
                return False
        return True
