"""Periods of reports: minutes, hours, days and months of a time zone, and the rollups that make
them up."""

from __future__ import annotations

import datetime as dt
import enum
import zoneinfo
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from penstockd.errors import ValueInvalid
from penstockd.metering.rollups import UsageLevel

#: The most periods of one report.
MAX_PERIODS = 5000
_HOUR, _DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


class Period(enum.StrEnum):
    """What a report can be grouped by in time."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"

    def start(self, time: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
        """The start, in UTC, of the period of the zone that holds a time."""
        local = time.astimezone(zone)
        within = dt.timedelta(minutes=local.minute, seconds=local.second)
        within += dt.timedelta(microseconds=local.microsecond)
        match self:
            case Period.MINUTE:
                return time - within % dt.timedelta(minutes=1)
            case Period.HOUR:
                return time - within
            case Period.DAY:
                return _find_midnight(local.date(), zone)
            case Period.MONTH:
                return _find_midnight(local.date().replace(day=1), zone)

    def next(self, start: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
        """The start of the next period."""
        match self:
            case Period.MINUTE:
                return start + dt.timedelta(minutes=1)
            case Period.HOUR:
                # The next whole hour of the zone, also where its offset changes by half an hour.
                local = (start + dt.timedelta(minutes=1)).astimezone(zone)
                return start + dt.timedelta(minutes=61 - local.minute)
            case Period.DAY:
                return _find_midnight(start.astimezone(zone).date() + _DAY, zone)
            case Period.MONTH:
                later = start.astimezone(zone).date().replace(day=1) + dt.timedelta(days=32)
                return _find_midnight(later.replace(day=1), zone)


class RollupSpan(NamedTuple):
    """Rollups of a level from ``low`` to before ``high``; they belong to the period ``label``."""

    level: UsageLevel
    label: dt.datetime
    low: dt.datetime
    high: dt.datetime


def find_zone(name: str) -> dt.tzinfo:
    """The time zone with a name, UTC if it is empty. Raises ValueInvalid."""
    if not name or name == "UTC":
        return dt.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueInvalid.of("time_zone", "is not a time zone such as Europe/Berlin") from None


def list_rollup_spans(
    start: dt.datetime,
    end: dt.datetime,
    period: Period | None,
    zone: dt.tzinfo,
    oldest: Mapping[UsageLevel, dt.date],
) -> list[RollupSpan]:
    """The rollups, as coarse as possible, that make up the whole minutes from ``start`` to
    ``end``. ``oldest`` is the first day of which each level is whole.

    Raises ValueInvalid for too many periods, and for times whose rollups are dropped.
    """
    found: list[RollupSpan] = []
    for count, (label, low, high) in enumerate(_cut_periods(start, end, period, zone), 1):
        if count > MAX_PERIODS:
            raise ValueInvalid.of(
                "group_by", f"the report has more than {MAX_PERIODS:,} periods; ask for longer ones"
            )
        found += [RollupSpan(level, label, *span) for level, *span in _cut_levels(low, high)]
    for stretch in found:
        if stretch.low.date() < oldest[stretch.level]:
            raise ValueInvalid.of(
                "start_time",
                f"usage by the {stretch.level} is kept from {oldest[stretch.level]} on; a report of"
                f" {stretch.low:%Y-%m-%dT%H:%MZ} needs it",
            )
    return found


def _cut_periods(
    start: dt.datetime, end: dt.datetime, period: Period | None, zone: dt.tzinfo
) -> Iterator[tuple[dt.datetime, dt.datetime, dt.datetime]]:
    """The periods of a range: the start of each, and its part within the range."""
    if period is None:
        if start < end:
            yield start, start, end
        return
    label = period.start(start, zone)
    while label < end:
        following = period.next(label, zone)
        yield label, max(label, start), min(following, end)
        label = following


def _cut_levels(
    low: dt.datetime, high: dt.datetime, level: UsageLevel = UsageLevel.DAY
) -> Iterator[tuple[UsageLevel, dt.datetime, dt.datetime]]:
    """Cut a span into whole days of UTC, whole hours before and after them, and minutes."""
    if level is UsageLevel.MINUTE:
        if low < high:
            yield level, low, high
        return
    length, finer = (
        (_DAY, UsageLevel.HOUR) if level is UsageLevel.DAY else (_HOUR, UsageLevel.MINUTE)
    )
    first, last = level.truncate(low), level.truncate(high)
    if first < low:
        first += length
    if first >= last:
        yield from _cut_levels(low, high, finer)
        return
    yield from _cut_levels(low, first, finer)
    yield level, first, last
    yield from _cut_levels(last, high, finer)


def _find_midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """The first instant of a day. Where a change of the clock skips midnight, it is that change."""
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)
