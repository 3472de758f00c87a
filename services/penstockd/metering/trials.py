"""Limits tried on recorded usage: what each would have refused, if it alone did.

Usage is known by the minute, hour or day. What follows from that for certain is told apart from
what could have been: of the calls of a minute nobody knows in which of its seconds they came.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from penstockd.metering.call_limits import account_of
from penstockd.metering.rollups import UsageLevel
from penstockd.policy.plans import Countable, PlanQuota, PlanRate, QuotaPeriod, Terms

#: The most stretches that are listed of one limit.
MAX_STRETCHES = 20
#: From this share of a limit on, use is near it.
NEAR = 0.8
_HOUR = dt.timedelta(hours=1)
LENGTHS = {
    UsageLevel.MINUTE: dt.timedelta(minutes=1),
    UsageLevel.HOUR: _HOUR,
    UsageLevel.DAY: dt.timedelta(days=1),
}
#: The periods of which an hour or a day holds so many that they are not listed.
_SHORT = {QuotaPeriod.MINUTE: dt.timedelta(minutes=1), QuotaPeriod.HOUR: _HOUR}


class Verdict(enum.StrEnum):
    """What a limit would have done to a consumer (see ``RehearsedLimit`` in the API)."""

    REFUSES = "REFUSES"
    MAY_REFUSE = "MAY_REFUSE"
    COUNTS = "COUNTS"
    NEAR = "NEAR"
    FITS = "FITS"
    UNUSED = "UNUSED"
    NOT_JUDGED = "NOT_JUDGED"


class Bucket(NamedTuple):
    """What a limit counts in one minute, hour or day: the ``amount`` of what it limits, and all
    calls that it reaches."""

    level: UsageLevel
    start: dt.datetime
    amount: int
    calls: int

    @property
    def end(self) -> dt.datetime:
        """When the next one begins."""
        return self.start + LENGTHS[self.level]


@dataclass(slots=True)
class RefusedTime:
    """A time in which calls would have been refused for certain."""

    start: dt.datetime
    end: dt.datetime
    used: int
    refused: int


@dataclass(slots=True)
class LimitFinding:
    """What one limit would have done to one consumer; ``soft`` limits only count."""

    consumer_id: str
    limit: str
    soft: bool = False
    reason: str = ""
    resolution: UsageLevel | None = None
    refused: int = 0
    refused_at_most: int = 0
    occurrences: int = 0
    first: dt.datetime | None = None
    last: dt.datetime | None = None
    near_hours: int = 0
    peak: int = 0
    allowed: int = 0
    stretches: list[RefusedTime] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The sum of it."""
        if self.reason:
            return Verdict.NOT_JUDGED
        if self.resolution is None:
            return Verdict.UNUSED
        if self.soft and self.occurrences:
            return Verdict.COUNTS
        if self.occurrences:
            return Verdict.REFUSES
        if self.refused_at_most:
            return Verdict.MAY_REFUSE
        return Verdict.NEAR if self.near_hours else Verdict.FITS

    def note(self, bucket: Bucket) -> None:
        """Note that the answer also rests on a bucket."""
        if self.resolution is None or LENGTHS[bucket.level] > LENGTHS[self.resolution]:
            self.resolution = bucket.level

    def refuse(self, time: dt.datetime, least: int, most: int) -> None:
        """Count calls that would have been refused; ``least`` of them for certain."""
        if not self.soft:
            self.refused += least
            self.refused_at_most += most
        if least:
            self.first, self.last = self.first or time, time

    def list_stretch(self, stretch: RefusedTime) -> None:
        """List a stretch, if there is room."""
        if self.soft:
            stretch.refused = 0
        if len(self.stretches) < MAX_STRETCHES:
            self.stretches.append(stretch)


class _NearHours:
    """Counts the hours with use near a limit and without a refusal, of buckets in order."""

    def __init__(self) -> None:
        self._hour: dt.datetime | None = None
        self._near = self._refused = False
        self._count = 0

    def add(self, bucket: Bucket, *, near: bool, refused: bool) -> None:
        """Note a bucket."""
        if bucket.level is UsageLevel.DAY:
            self._count += 24 * (near and not refused)
            return
        hour = UsageLevel.HOUR.truncate(bucket.start)
        if hour != self._hour:
            self._close()
            self._hour = hour
        self._near |= near
        self._refused |= refused

    def finish(self) -> int:
        """The number of hours."""
        self._close()
        return self._count

    def _close(self) -> None:
        self._count += self._near and not self._refused
        self._near = self._refused = False


class RateTrial:
    """A rate, tried on the calls of each bucket from ``since`` on.

    The bucket of the rate has a ``level`` at most, if calls came as evenly as its refusals allow,
    and a ``floor`` at least, however they came. What exceeds the first is refused for certain, and
    nothing is refused that the second allows.
    """

    def __init__(self, rate: PlanRate, finding: LimitFinding, since: dt.datetime) -> None:
        self._rate, self.finding, self._since = rate, finding, since
        self._level = self._floor = float(rate.burst)
        self._end = since
        self._near = _NearHours()
        self._row: RefusedTime | None = None

    def add(self, bucket: Bucket) -> None:
        """Try the calls of a bucket; buckets come in order."""
        if bucket.end <= self._since or not bucket.amount:
            return
        finding, calls = self.finding, bucket.amount
        self._recover((bucket.start - self._end).total_seconds())
        gain = self._rate.per_second * LENGTHS[bucket.level].total_seconds()
        room = self._level + gain
        refused = max(0, calls - _round_down(room))
        finding.note(bucket)
        finding.refuse(bucket.start, refused, max(refused, calls - _round_down(self._floor)))
        self._near.add(bucket, near=calls >= NEAR * room, refused=refused > 0)
        if calls > finding.peak:
            finding.peak, finding.allowed = calls, _round_down(self._rate.burst + gain)
        if refused:
            finding.occurrences += 1
            self._extend(bucket, refused)
        self._level = min(self._rate.burst, room - (calls - refused))
        self._floor = max(0.0, min(self._rate.burst, self._floor + gain) - calls)
        self._end = bucket.end

    def finish(self) -> LimitFinding:
        """What was found."""
        self._list_row()
        self.finding.near_hours = self._near.finish()
        return self.finding

    def _recover(self, seconds: float) -> None:
        gain = self._rate.per_second * max(0.0, seconds)
        self._level = min(self._rate.burst, self._level + gain)
        self._floor = min(self._rate.burst, self._floor + gain)

    def _extend(self, bucket: Bucket, refused: int) -> None:
        if self._row is None or self._row.end != bucket.start:
            self._list_row()
            self._row = RefusedTime(bucket.start, bucket.end, 0, 0)
        self._row.end = bucket.end
        self._row.used += bucket.amount
        self._row.refused += refused

    def _list_row(self) -> None:
        if self._row is not None:
            self.finding.list_stretch(self._row)
        self._row = None


@dataclass(slots=True)
class _Use:
    """What was used in one period of a quota: at least, and with what may belong to its neighbours
    at most."""

    start: dt.datetime
    end: dt.datetime
    least: int = 0
    most: int = 0
    stretch: RefusedTime | None = None


class QuotaTrial:
    """A quota, tried on the use of each bucket; what it refused before ``since`` is not told."""

    def __init__(
        self, quota: PlanQuota, terms: Terms, finding: LimitFinding, since: dt.datetime
    ) -> None:
        self._quota, self._terms, self.finding, self._since = quota, terms, finding, since
        self._use: _Use | None = None
        self._near = _NearHours()
        finding.allowed = quota.limit

    def add(self, bucket: Bucket) -> None:
        """Try the use of a bucket; buckets come in order."""
        if not (bucket.amount or bucket.calls):
            return
        use = self._use
        if use is not None and use.start <= bucket.start and bucket.end <= use.end:
            return self._add_whole(use, bucket)
        length, short = LENGTHS[bucket.level], _SHORT.get(self._quota.per)
        if short is not None and length > 2 * short:
            return self._add_many(bucket, length // short + (not self._is_aligned(bucket)))
        periods = list(self._list_periods(bucket))
        if len(periods) == 1:
            self._add_whole(self._open(*periods[0]), bucket)
        elif len(periods) == 2:
            self._add_split(bucket, periods)
        else:
            self._add_many(bucket, len(periods))

    def finish(self) -> LimitFinding:
        """What was found."""
        self._close()
        self.finding.near_hours = self._near.finish()
        return self.finding

    def _add_whole(self, use: _Use, bucket: Bucket) -> None:
        before, limit = use.least, self._quota.limit
        use.least += bucket.amount
        use.most += bucket.amount
        told = bucket.end > self._since
        if not told:
            return
        least, over = self._count_refused(bucket, before), use.least > limit
        self._note(bucket, least, self._count_possible(bucket, use))
        self._near.add(bucket, near=bool(bucket.amount) and use.least >= NEAR * limit, refused=over)
        self.finding.peak = max(self.finding.peak, use.least)
        if self._tells(least, over=over):
            self._extend(use, bucket, least)

    def _tells(self, least: int, *, over: bool) -> bool:
        """Whether a bucket is told of: a soft quota is over, or another refuses for certain."""
        return over if self._quota.soft else least > 0

    def _extend(self, use: _Use, bucket: Bucket, least: int) -> None:
        """Tell of a bucket in its period's stretch."""
        if use.stretch is None:
            use.stretch = RefusedTime(bucket.start, use.end, 0, 0)
            self.finding.occurrences += 1
        self.finding.first = self.finding.first or use.stretch.start
        self.finding.last = bucket.start
        use.stretch.refused += least

    def _add_split(
        self, bucket: Bucket, periods: Iterable[tuple[dt.datetime, dt.datetime]]
    ) -> None:
        """Add a bucket in which a period ends: all of it may belong to either, but not to both."""
        possible = 0
        for period in periods:
            use = self._open(*period)
            use.most += bucket.amount
            possible = max(possible, self._count_possible(bucket, use))
        if bucket.end > self._since:
            self._note(bucket, 0, possible)

    def _add_many(self, bucket: Bucket, periods: int) -> None:
        """Add a bucket that holds several periods: it exceeds them for certain only together."""
        self._close()
        if bucket.end <= self._since:
            return
        limit, counted = self._quota.limit, self._counts_calls
        over = max(0, bucket.amount - periods * limit)
        # The call that exceeds a quota of bytes still gets its reply.
        least = over if counted else int(over > 0 and self._quota.what is not Countable.BYTES)
        most = max(0, bucket.amount - limit)
        self._note(bucket, least, most if counted or not most else bucket.calls)
        self._near.add(bucket, near=bucket.amount >= NEAR * periods * limit, refused=over > 0)
        if self._tells(least, over=over > 0):
            self.finding.occurrences += 1
            self.finding.list_stretch(RefusedTime(bucket.start, bucket.end, bucket.amount, least))

    @property
    def _counts_calls(self) -> bool:
        """Whether each call, or message, uses one of the quota."""
        return self._quota.what in (Countable.CALLS, Countable.WEBHOOK_ATTEMPTS)

    def _count_refused(self, bucket: Bucket, before: int) -> int:
        """Calls that are refused for certain, after ``before`` was used of the period."""
        limit = self._quota.limit
        if self._counts_calls:
            return max(0, bucket.amount - max(0, limit - before))
        if self._quota.what is Countable.BYTES:
            # The call that exceeds it still gets its reply; without a byte left, no call begins.
            return bucket.calls if before >= limit else 0
        # A call whose records do not fit uses none: smaller ones may fit after it.
        return int(bucket.amount > (limit - before if before <= limit else limit))

    def _count_possible(self, bucket: Bucket, use: _Use) -> int:
        """Calls that are refused at most, with all that may belong to the period."""
        over = max(0, use.most - self._quota.limit)
        if self._counts_calls:
            return min(bucket.amount, over)
        return bucket.calls if over else 0

    def _note(self, bucket: Bucket, least: int, most: int) -> None:
        self.finding.note(bucket)
        self.finding.refuse(bucket.start, least, max(least, most))

    def _open(self, start: dt.datetime, end: dt.datetime) -> _Use:
        if self._use is None or self._use.start != start:
            self._close()
            self._use = _Use(start, end)
        return self._use

    def _close(self) -> None:
        """List what the period refused."""
        if self._use is not None and self._use.stretch is not None:
            self._use.stretch.used = self._use.least
            self.finding.list_stretch(self._use.stretch)
        self._use = None

    def _is_aligned(self, bucket: Bucket) -> bool:
        """Whether periods begin where a bucket begins and ends; if not, it touches one more."""
        times = (bucket.start, bucket.end)
        return all(account_of("", self._quota, self._terms, t).start == t for t in times)

    def _list_periods(self, bucket: Bucket) -> Iterator[tuple[dt.datetime, dt.datetime]]:
        """The periods that a bucket touches."""
        time = bucket.start
        while time < bucket.end:
            account = account_of("", self._quota, self._terms, time)
            yield account.start, account.end
            time = account.end


def _round_down(calls: float) -> int:
    """Whole calls; sums of fractions err by less than a millionth."""
    return math.floor(calls + 1e-6)


def find_first_use(terms: Terms, since: dt.datetime) -> dt.datetime:
    """When the earliest period of a quota began that holds a time; the time, without quotas."""
    starts = [account_of("", quota, terms, since).start for quota in terms.limits.quotas]
    return min([since, *starts])
