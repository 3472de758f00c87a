"""Admits calls within the limits of their consumers, and charges what they use.

A call is asked before its work: for its rates, its place among those under way, and its quotas of
calls. What it shows is charged when it is disclosed, and what it sends when that is known. Charges
of a call's own entry are written with it; those of a stream's further records are spent at once.
"""

from __future__ import annotations

import base64
import hmac
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from penstockd.audit.entry import Entry
from penstockd.errors import OutcomeUnknown, RateLimited
from penstockd.keyring import Keys
from penstockd.metering.call_limits import AskedCall, CallLimits, CallLimitsCache, CountedQuota
from penstockd.metering.exempt import HUB_TO_BLAME
from penstockd.metering.ledger import AllowanceKey, Ledger
from penstockd.metering.purses import PATIENCE, Charge, Over, Purse, Spender, Spent
from penstockd.metering.rate_headers import REQUESTS, LimitState, format_headers
from penstockd.metering.spikes import Spikes
from penstockd.policy.errors import AllowanceLost, QuotaExhausted
from penstockd.policy.plans import Countable, Plan, PlanLimits, PlanQuota, PlanRate, Terms
from penstockd.store.announcements import Announcements
from penstockd.store.database import Database

#: How long a call waits for what another process may return, if it holds rows meanwhile, or has a
#: place among those under way to wait for, in seconds.
BRIEFLY = 0.1
#: After how many seconds a call may try again that found no place.
_SOON = 1.0
#: Outcomes of calls that are not charged: the hub is to blame, or the call was never admitted.
_UNCHARGED = HUB_TO_BLAME | {"RATE_LIMITED", "QUOTA_EXHAUSTED"}
_PARTITION_BYTES = 9
#: The terms of a consumer that has none any more.
_UNLIMITED = Terms(Plan(""), PlanLimits())
#: The limits of so many kinds of calls, and so many hashes of names, are kept.
_KEPT = 8192
_UNITS = {
    Countable.CALLS: REQUESTS,
    Countable.BYTES: "content-bytes",
    Countable.RECORDS: "records",
    Countable.IMPORT_RECORDS: "records",
    Countable.WEBHOOK_ATTEMPTS: "webhook-attempts",
}


class Limiter:
    """The limits of all consumers, as this process enforces them."""

    def __init__(self, database: Database, announcements: Announcements, keys: Keys) -> None:
        """``keys`` hash the names of consumers in headers."""
        self._keys = keys
        self._limits = CallLimitsCache(_KEPT)
        self.ledger = Ledger(database)
        self.spender = Spender(self.ledger, announcements)
        self.spikes = Spikes(self.ledger)

    def hash_consumer(self, consumer_id: str) -> str:
        """A keyed hash of a consumer: it tells nothing, and is the same for all its calls."""
        return _hash_name(self._keys.sealing().key, consumer_id)

    def find_limits(self, terms: Terms, asked: AskedCall) -> CallLimits:
        """The limits that count a call."""
        return self._limits.find(terms, asked)

    async def follow(self) -> None:
        """Renew what this process holds until cancelled. Raises DatabaseUnavailable."""
        await self.spender.follow(self.spikes.forget_idle)

    async def close(self) -> None:
        """Return everything that this process holds."""
        await self.spender.close()


@dataclass(slots=True)
class Admission:
    """One call, what limits it, and what it has been charged."""

    limiter: Limiter
    terms: Terms
    asked: AskedCall
    #: The rate that would have refused the call, if the plan only counts that.
    over_rate: str = ""
    #: How long the call waits for what other processes hold of quotas before its work, in seconds.
    patience: float = PATIENCE
    #: Charges that the call's entry spends, and the place that the call holds.
    _charges: list[tuple[Countable, Charge]] = field(default_factory=list)
    _place: Charge | None = None
    #: The account of each quota when it was first charged.
    _charged_to: dict[str, AllowanceKey] = field(default_factory=dict)
    #: Records and bytes that a stream has sent, and that were charged at once for it.
    _sent: tuple[int, int] = (0, 0)
    _charged: tuple[int, int] = (0, 0)
    _limits: CallLimits = field(init=False)

    def __post_init__(self) -> None:
        self.renew(self.terms)

    def renew(self, terms: Terms | None) -> None:
        """Charge by other terms from now on."""
        self.terms = terms or _UNLIMITED
        self._limits = self.limiter.find_limits(self.terms, self.asked)

    def begin_at(self, rows: int, size: int) -> None:
        """Leave uncharged what a stream had sent before it was limited."""
        self._sent = self._charged = rows, size

    async def enter(self, entry: Entry) -> None:
        """Take what a call takes before its work.

        Raises RateLimited, QuotaExhausted and DatabaseUnavailable.
        """
        await self.limiter.spender.identify()
        for rate in self._limits.rates:
            await self._take_rate(rate)
        await self._take_place()
        await self.charge(Countable.CALLS, 1, entry)
        for counted in self._limits.told:
            await self._look_at(counted)

    async def charge(self, what: Countable, amount: int, entry: Entry | None) -> None:
        """Charge an amount to all quotas of its kind: to the call's entry, or at once without it.

        Raises QuotaExhausted before anything is charged, and AllowanceLost.
        """
        taken = await self.take(what, amount)
        if entry is None:
            return await self._spend(taken)
        self._charges += [(what, charge) for charge in taken]
        self._put_spends(entry)

    async def take(self, what: Countable, amount: int, over: Over = Over.NO) -> list[Charge]:
        """Take an amount of all quotas of its kind, or nothing. Raises QuotaExhausted."""
        taken: list[Charge] = []
        try:
            for counted in self._limits.charged(what):
                taken.append(await self._take_quota(counted, amount, over))
        except BaseException:
            for charge in taken:
                charge.give_back()
            raise
        return taken

    async def charge_records(self, count: int, entry: Entry | None) -> None:
        """See ``charge``."""
        await self.charge(Countable.RECORDS, count, entry)
        self._charged = self._charged[0] + count, self._charged[1]

    async def charge_import(self, count: int, entry: Entry) -> None:
        """See ``charge``; records that are written otherwise are not imported."""
        self.patience = BRIEFLY  # from here on, a transaction holds rows
        if self.asked.imports:
            await self.charge(Countable.IMPORT_RECORDS, count, entry)

    def note_sent(self, rows: int, size: int) -> None:
        """Note the records and bytes that a stream has sent so far, in all."""
        self._sent = rows, size

    async def charge_sent(self, *, ends: bool = False) -> None:
        """Charge what a stream has sent since the last time. Raises QuotaExhausted if the quota is
        used up, unless the stream ends anyway: then records that did not leave return."""
        if ends:
            await self._return_unsent()
        rest = self._sent[1] - self._charged[1]
        if rest <= 0:
            return
        over = Over.ALWAYS if ends else Over.FROM_SOME
        taken = await self.take(Countable.BYTES, rest, over)
        self._charged = self._charged[0], self._charged[1] + rest
        try:
            await self._spend(taken)
        except AllowanceLost:
            if not ends:
                raise

    async def charge_reply(self, entry: Entry) -> None:
        """Charge the bytes of a reply to the call's entry, if there is any of the quota left.

        Raises QuotaExhausted.
        """
        if not entry.byte_count:
            return
        taken = await self.take(Countable.BYTES, entry.byte_count, Over.FROM_SOME)
        self._charges += [(Countable.BYTES, charge) for charge in taken]
        self._put_spends(entry)

    def charge_failure(self, entry: Entry) -> None:
        """Charge a call that failed as a call and for nothing else; and for nothing at all if the
        hub is to blame, or refused it for its limits."""
        keeps = entry.outcome not in _UNCHARGED
        for what, charge in self._charges:
            if not (keeps and what is Countable.CALLS):
                # The database alone knows whether a write of unknown outcome was charged.
                _undo_charge(charge, entry.outcome)
        self._charges = [(what, charge) for what, charge in self._charges if charge.open]
        self._put_spends(entry)

    def settle(self) -> None:
        """Note that the call's entry is written, with what it spends."""
        for _, charge in self._charges:
            charge.settle()

    def end(self, error: BaseException | None) -> None:
        """Give the call's place back. Charges that are open after an error may be spent or not."""
        if self._place is not None:
            self._place.give_back()
        for _, charge in self._charges:
            if error is None:
                charge.settle()
            elif isinstance(error, AllowanceLost):
                charge.doubt()
            else:
                charge.lose()

    @property
    def headers(self) -> Mapping[str, str]:
        """What is left, for the caller."""
        partition = self.limiter.hash_consumer(self.asked.consumer_id)
        return format_headers(self._list_states(), partition)

    async def _look_at(self, counted: CountedQuota) -> None:
        """Find out what is left of a quota. Raises QuotaExhausted if it is one of bytes, of which
        nothing is left: then no work begins."""
        purse = self._purse(counted)
        if counted.quota.what is Countable.BYTES and not self.asked.exempt:
            if not purse.has_some(counted.cap):
                (await self._take_quota(counted, 1)).give_back()
        elif not purse.knows and (counted.quota.what is not Countable.CALLS or self.asked.exempt):
            await purse.look(counted.cap)

    async def _take_rate(self, rate: PlanRate) -> None:
        pause = await self.limiter.spikes.take(self.asked.consumer_id, rate)
        if not pause:
            return
        if self.terms.plan.shadow:
            self.over_rate = rate.key
            return
        raise RateLimited(
            f"too many calls in a short time: your plan allows {rate.per_second:g} a second"
            f" ({rate.key})",
            metadata={"limit": rate.key},
            retry_after=pause,
        )

    async def _take_place(self) -> None:
        limits = self._limits
        if limits.most <= 0:
            return
        purse = self.limiter.spender.purse(limits.under_way, hoards=False)
        try:
            self._place = await purse.take(1, limits.most, patience=BRIEFLY)
        except Spent:
            raise RateLimited(
                f"{limits.most} of your {self.asked.kind} are under way already; wait for one to"
                " end",
                metadata={"limit": limits.under_way.name},
                retry_after=_SOON,
            ) from None

    def _purse(self, counted: CountedQuota) -> Purse:
        spender = self.limiter.spender
        return spender.purse(counted.account(spender))

    async def _take_quota(self, counted: CountedQuota, amount: int, over: Over = Over.NO) -> Charge:
        purse = self._purse(counted)
        self._charged_to.setdefault(counted.quota.key, purse.account)
        try:
            return await purse.take(amount, counted.cap, over, self.patience)
        except Spent:
            partial = over is Over.NO and amount > 1
            raise self._exhausted(counted.quota, purse.account, partial=partial) from None

    async def _return_unsent(self) -> None:
        """Return records that were charged to the stream, and did not leave."""
        unsent = self._charged[0] - self._sent[0]
        if unsent <= 0:
            return
        self._charged = self._sent[0], self._charged[1]
        for counted in self._limits.charged(Countable.RECORDS):
            if counted.quota.key not in self._charged_to:
                continue  # it is newer than the charge
            charge = await self._take_quota(counted, 1, Over.ALWAYS)
            try:
                # In a new period nothing is returned: the old one is over.
                if charge.purse.account == self._charged_to.get(counted.quota.key):
                    await self.limiter.ledger.spend({charge.portion_id: -unsent})
            except AllowanceLost:
                charge.doubt()  # what was spent stays spent
            finally:
                charge.give_back()

    def _put_spends(self, entry: Entry) -> None:
        """Make the entry spend the call's charges."""
        entry.spends = {}
        for _, charge in self._charges:
            if charge.open:
                entry.spends[charge.portion_id] = charge.amount + entry.spends.get(
                    charge.portion_id, 0
                )

    async def _spend(self, charges: Iterable[Charge]) -> None:
        spends: dict[int, int] = {}
        for charge in charges:
            spends[charge.portion_id] = spends.get(charge.portion_id, 0) + charge.amount
        if not spends:
            return
        try:
            await self.limiter.ledger.spend(spends)
        except AllowanceLost:
            for charge in charges:
                charge.doubt()
            raise
        except BaseException:
            for charge in charges:
                charge.lose()
            raise
        for charge in charges:
            charge.settle()

    def _exhausted(
        self, quota: PlanQuota, account: AllowanceKey, *, partial: bool
    ) -> QuotaExhausted:
        now = self.limiter.spender.now
        refused = QuotaExhausted(
            f"the quota {quota.key} ({quota.limit}) is used up until"
            f" {account.end:%Y-%m-%dT%H:%M:%SZ}",
            metadata={"limit": quota.key},
            retry_after=max(1.0, (account.end - now).total_seconds()),
        )
        refused.partial = partial or bool(quota.method or quota.dataset)
        return refused

    def _list_states(self) -> Iterator[LimitState]:
        limits, spender = self._limits, self.limiter.spender
        for rate in limits.rates:
            spike = self.limiter.spikes.find(self.asked.consumer_id, rate)
            window = max(1, math.ceil(rate.burst / rate.per_second))
            reset = max(0, math.ceil(spike.ready_at - time.monotonic()))
            yield LimitState(rate.key, rate.burst, window, REQUESTS, spike.remaining, reset)
        if limits.most > 0:
            name, left = limits.under_way.name, spender.tell_left(limits.under_way, limits.most)
            yield LimitState(name, limits.most, 0, "concurrent-requests", left, 0)
        for counted in limits.told:
            quota = counted.quota
            left = spender.tell_left(counted.account(spender), quota.limit)
            yield LimitState(
                quota.key,
                quota.limit,
                counted.window,
                _UNITS[quota.what],
                left,
                counted.rest(spender),
                quota.soft,
            )


def _undo_charge(charge: Charge, outcome: str) -> None:
    """Put back what a call took that failed, as far as its outcome tells that it was not spent."""
    if outcome == OutcomeUnknown.reason:
        charge.lose()
    elif outcome == AllowanceLost.reason:
        charge.doubt()
    else:
        charge.give_back()


@lru_cache(maxsize=_KEPT)
def _hash_name(key: bytes, consumer_id: str) -> str:
    digest = hmac.digest(key, consumer_id.encode(), "sha256")[:_PARTITION_BYTES]
    return base64.b64encode(digest).decode()
