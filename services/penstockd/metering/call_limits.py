"""The limits that count one kind of call of one consumer: found once, and used by all its calls."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.metering.exempt import IMPORTING
from penstockd.metering.ledger import ALWAYS, ENDLESS, AllowanceKey
from penstockd.metering.periods import Period, find_zone
from penstockd.metering.purses import Spender
from penstockd.policy.plans import Countable, PlanQuota, PlanRate, Terms


@dataclass(frozen=True, slots=True)
class AskedCall:
    """What admission must know about a call. ``kind``: calls, streams or exports. No quota counts
    one that is ``exempt``."""

    consumer_id: str
    method: str
    dataset: str
    kind: str
    exempt: bool = False

    @property
    def imports(self) -> bool:
        """Whether its records count as imported."""
        return self.method.rpartition("/")[2].startswith(IMPORTING)


class CountedQuota:
    """A quota that counts calls of one consumer, and its account in the current period."""

    __slots__ = ("_end", "_found", "_start", "_terms", "consumer_id", "quota")

    def __init__(self, consumer_id: str, quota: PlanQuota, terms: Terms) -> None:
        self.consumer_id, self.quota, self._terms = consumer_id, quota, terms
        self._found = AllowanceKey(consumer_id, quota.key, *ALWAYS)
        self._start = self._end = 0.0  # none was found yet

    @property
    def cap(self) -> int:
        """The most that may be taken."""
        return ENDLESS if self.quota.soft else self.quota.limit

    @property
    def window(self) -> int:
        """The length of the period that was found last, in seconds."""
        return int(self._end - self._start)

    def account(self, spender: Spender) -> AllowanceKey:
        """The account now (see ``account_of``)."""
        if not self._start <= spender.seconds < self._end:
            self._found = account_of(self.consumer_id, self.quota, self._terms, spender.now)
            self._start, self._end = self._found.start.timestamp(), self._found.end.timestamp()
        return self._found

    def rest(self, spender: Spender) -> int:
        """The whole seconds until the period that was found last ends: one at least."""
        return max(1, math.ceil(self._end - spender.seconds))


class CallLimits:
    """The limits of some terms that count a call."""

    def __init__(self, terms: Terms, asked: AskedCall) -> None:
        self.terms = terms
        self.rates = [rate for rate in terms.limits.rates if _counts_call(rate, asked)]
        self.most: int = getattr(terms.limits.concurrent, asked.kind)
        #: The account of what is under way, of which there may be ``most``; 0 limits nothing.
        self.under_way = AllowanceKey(asked.consumer_id, f"concurrent-{asked.kind}", *ALWAYS)
        counting = [
            CountedQuota(asked.consumer_id, quota, terms)
            for quota in terms.limits.quotas
            if _counts_call(quota, asked)
        ]
        charged = () if asked.exempt else counting
        self._charged = {
            what: [each for each in charged if each.quota.what is what] for what in Countable
        }
        others = {Countable.WEBHOOK_ATTEMPTS}
        if not asked.imports:
            others.add(Countable.IMPORT_RECORDS)
        #: The quotas that the call may use, of which its caller is told.
        self.told = [each for each in counting if each.quota.what not in others]

    def charged(self, what: Countable) -> Sequence[CountedQuota]:
        """The quotas that are charged for what the call uses."""
        return self._charged[what]


class CallLimitsCache:
    """The limits of the kinds of calls that came lately. The oldest are found anew."""

    def __init__(self, most: int) -> None:
        """``most``: how many are kept."""
        self._most = most
        self._found: dict[AskedCall, CallLimits] = {}

    def find(self, terms: Terms, asked: AskedCall) -> CallLimits:
        """The limits of a call. Terms are the same object as long as nothing has changed them."""
        found = self._found.get(asked)
        if found is None or found.terms is not terms:
            self._found.pop(asked, None)
            if len(self._found) >= self._most:
                self._found.pop(next(iter(self._found)))
            found = self._found[asked] = CallLimits(terms, asked)
        return found


def _counts_call(limit: PlanRate | PlanQuota, asked: AskedCall) -> bool:
    """Whether a limit counts a call."""
    if limit.method:
        return limit.method == asked.method
    return not limit.dataset or limit.dataset == asked.dataset


def account_of(consumer_id: str, quota: PlanQuota, terms: Terms, now: dt.datetime) -> AllowanceKey:
    """The account of a quota in the period of the plan's zone that holds a time."""
    zone, period = find_zone(terms.plan.time_zone), Period(quota.per)
    start = period.start(now, zone)
    end = period.next(start, zone)
    if end <= now:  # the clock there repeats a part of an hour, which is a period of its own
        start, end = end, period.next(end, zone)
    return AllowanceKey(consumer_id, quota.key, start, end)
