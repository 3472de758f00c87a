"""Limits tried on usage: what is certain holds, and what happens is possible, for any calls."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

import pytest

from chance import SEED
from penstockd.metering.rollups import UsageLevel
from penstockd.metering.trials import Bucket, LimitFinding, QuotaTrial, RateTrial, Verdict
from penstockd.policy.plans import (
    Countable,
    Plan,
    PlanLimits,
    PlanQuota,
    PlanRate,
    QuotaPeriod,
    Terms,
)

UTC = dt.UTC
START = dt.datetime(2026, 3, 1, tzinfo=UTC)
SECOND = dt.timedelta(seconds=1)
LEVELS = list(UsageLevel)


def bucket(at: dt.datetime, amount: int, level: UsageLevel = UsageLevel.MINUTE) -> Bucket:
    return Bucket(level, at, amount, amount, amount)


def gather(calls: Iterable[tuple[dt.datetime, int]], level: UsageLevel) -> list[Bucket]:
    """The rollups of calls, each with what it uses."""
    sums: dict[dt.datetime, tuple[int, int]] = {}
    for time, amount in calls:
        start = level.truncate(time)
        used, count = sums.get(start, (0, 0))
        sums[start] = used + amount, count + 1
    return [Bucket(level, t, used, n, n) for t, (used, n) in sorted(sums.items())]


def rate_calls(per_second: float, burst: int, calls: Sequence[dt.datetime]) -> int:
    """How many calls a bucket of tokens refuses."""
    level, last, refused = float(burst), START, 0
    for time in calls:
        level = min(burst, level + per_second * (time - last).total_seconds())
        last = time
        if level >= 1 - 1e-9:
            level -= 1
        else:
            refused += 1
    return refused


def try_rate(rate: PlanRate, buckets: Iterable[Bucket], *, soft: bool = False) -> LimitFinding:
    trial = RateTrial(rate, LimitFinding("crm", rate.key, soft), START)
    for each in buckets:
        trial.add(each)
    return trial.finish()


def try_quota(
    quota: PlanQuota, buckets: Iterable[Bucket], zone: str = "", since: dt.datetime = START
) -> LimitFinding:
    terms = Terms(Plan("gold", time_zone=zone), PlanLimits(quotas=(quota,)))
    trial = QuotaTrial(quota, terms, LimitFinding("crm", quota.key, quota.soft), since)
    for each in buckets:
        trial.add(each)
    return trial.finish()


@pytest.mark.parametrize("level", LEVELS)
def test_a_rate_refuses_between_the_bounds(level: UsageLevel) -> None:
    chance = random.Random(SEED)
    certain = 0
    for _ in range(60):
        rate = PlanRate(chance.choice([0.01, 0.2, 1.0, 2.5]), chance.choice([1, 3, 20, 100]))
        times: list[dt.datetime] = []
        for _ in range(chance.randrange(1, 8)):
            begin = START + SECOND * chance.randrange(6 * 3600)
            spread = chance.choice([1, 30, 600])
            times += [
                begin + SECOND * chance.randrange(spread) for _ in range(chance.randrange(400))
            ]
        times.sort()
        true = rate_calls(rate.per_second, rate.burst, times)
        found = try_rate(rate, gather(((t, 1) for t in times), level))
        assert found.refused <= true <= found.refused_at_most
        certain += found.refused
        if found.verdict in (Verdict.FITS, Verdict.NEAR):
            assert true == 0
    assert certain or level is UsageLevel.DAY


def test_what_a_minute_tells_of_a_rate() -> None:
    rate = PlanRate(2, 10)  # 130 calls in a minute that begins with the burst, 120 on average
    minute = dt.timedelta(minutes=1)
    found = try_rate(rate, [bucket(START, 130), bucket(START + minute, 121)])
    assert (found.refused, found.occurrences, found.first) == (1, 1, START + minute)
    assert (found.peak, found.allowed, found.verdict) == (130, 130, Verdict.REFUSES)
    assert [(s.start, s.end, s.used, s.refused) for s in found.stretches] == [
        (START + minute, START + 2 * minute, 121, 1)
    ]
    # Ten calls fit whenever they come; eleven do not if all come at once.
    assert try_rate(rate, [bucket(START, 10)]).verdict is Verdict.FITS
    maybe = try_rate(rate, [bucket(START, 11)])
    assert (maybe.verdict, maybe.refused, maybe.refused_at_most) == (Verdict.MAY_REFUSE, 0, 1)
    # The burst has come back after an hour.
    assert try_rate(rate, [bucket(START, 130), bucket(START + 60 * minute, 130)]).refused == 0
    # Refusals in a row are one stretch.
    row = try_rate(rate, [bucket(START + i * minute, 200) for i in (0, 1, 5)])
    assert [(s.start, s.end) for s in row.stretches] == [
        (START, START + 2 * minute),
        (START + 5 * minute, START + 6 * minute),
    ]
    assert row.occurrences == 3 and row.last == START + 5 * minute


def test_a_rate_in_shadow_refuses_nothing() -> None:
    found = try_rate(PlanRate(1, 1), [bucket(START, 100)], soft=True)
    assert (found.verdict, found.refused, found.refused_at_most) == (Verdict.COUNTS, 0, 0)
    assert found.occurrences == 1 and found.stretches[0].refused == 0


def test_hours_near_a_rate() -> None:
    hour = dt.timedelta(hours=1)
    rate = PlanRate(1, 40)  # 100 calls in the first minute
    near = [bucket(START, 80), bucket(START + hour, 79), bucket(START + 2 * hour, 101)]
    found = try_rate(rate, near)
    assert found.near_hours == 1 and found.occurrences == 1
    assert try_rate(rate, near[:1]).verdict is Verdict.MAY_REFUSE  # 80 calls at once: 40 refused
    assert try_rate(PlanRate(1, 80), [bucket(START, 80)]).verdict is Verdict.FITS


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("zone", ["", "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("per", list(QuotaPeriod))
def test_a_quota_of_calls_refuses_between_the_bounds(
    per: QuotaPeriod, zone: str, level: UsageLevel
) -> None:
    chance = random.Random(SEED)
    local = ZoneInfo(zone or "UTC")
    names = {"minute": 5, "hour": 4, "day": 3, "month": 2}
    for _ in range(8):
        limit = chance.choice([0, 5, 40, 300])
        begin = dt.datetime(2026, 3, 28, tzinfo=UTC)  # a month ends, and the clock changes
        times = sorted(begin + SECOND * chance.randrange(5 * 86_400) for _ in range(400))
        used: dict[tuple[int, ...], int] = {}
        for time in times:
            at = time.astimezone(local)
            name = (at.year, at.month, at.day, at.hour, at.minute)[: names[per]]
            used[name] = used.get(name, 0) + 1
        true = sum(max(0, n - limit) for n in used.values())
        found = try_quota(
            PlanQuota(Countable.CALLS, per, limit), gather(((t, 1) for t in times), level), zone
        )
        assert found.refused <= true <= found.refused_at_most
        if level is UsageLevel.MINUTE or (not zone and per in ("day", "month")):
            assert found.refused == true == found.refused_at_most  # nothing is left open
        assert found.resolution is level


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_months_follow_the_zone_over_changes_of_the_clock(zone: str) -> None:
    """One call a minute: a month has as many as it has minutes."""
    minute, local = dt.timedelta(minutes=1), ZoneInfo(zone)
    for month in (3, 4, 10, 11):
        start = dt.datetime(2026, month, 1, tzinfo=local).astimezone(UTC)
        year, following = divmod(month, 12)
        end = dt.datetime(2026 + year, following + 1, 1, tzinfo=local).astimezone(UTC)
        minutes = int((end - start) / minute)
        limit = minutes - 3
        buckets = [bucket(start + i * minute, 1) for i in range(minutes + 10)]
        quota = PlanQuota(Countable.CALLS, QuotaPeriod.MONTH, limit)
        found = try_quota(quota, buckets, zone, start)
        assert (found.refused, found.refused_at_most, found.occurrences) == (3, 3, 1)
        assert found.first == end - 3 * minute and found.stretches[0].end == end
        assert found.peak == minutes


def test_a_quota_counts_its_period_from_the_beginning() -> None:
    """What was used before the range counts, and what was refused then is not told."""
    day = dt.timedelta(days=1)
    quota = PlanQuota(Countable.CALLS, QuotaPeriod.MONTH, 100)
    buckets = [bucket(START, 60), bucket(START + day, 60), bucket(START + 2 * day, 7)]
    found = try_quota(quota, buckets, since=START + 2 * day)
    assert (found.refused, found.peak, found.first) == (7, 127, START + 2 * day)


def test_quotas_of_records_and_bytes() -> None:
    minute = dt.timedelta(minutes=1)
    buckets = [
        Bucket(UsageLevel.MINUTE, START, 90, 3, 5),
        Bucket(UsageLevel.MINUTE, START + minute, 20, 2, 4),
        Bucket(UsageLevel.MINUTE, START + 2 * minute, 30, 1, 9),
        Bucket(UsageLevel.MINUTE, START + 3 * minute, 0, 0, 2),
    ]
    records = try_quota(PlanQuota(Countable.RECORDS, QuotaPeriod.DAY, 100), buckets)
    # One call in the second minute, that of the third; any of those since may have been refused.
    assert (records.refused, records.refused_at_most) == (2, 15)
    size = try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 100), buckets)
    # The reply that exceeds it is sent; afterwards no call begins.
    assert (size.refused, size.refused_at_most) == (11, 15)
    assert size.first == START + minute and size.near_hours == 0
    soft = try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 100, soft=True), buckets)
    assert (soft.verdict, soft.refused, soft.peak, soft.allowed) == (Verdict.COUNTS, 0, 140, 100)
    near = try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 170), buckets)
    assert (near.verdict, near.near_hours) == (Verdict.NEAR, 1)
    assert try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 200), []).verdict is Verdict.UNUSED


def test_the_answer_names_the_coarsest_usage_that_it_rests_on() -> None:
    quota = PlanQuota(Countable.CALLS, QuotaPeriod.DAY, 100)
    day = dt.timedelta(days=1)
    buckets = [bucket(START, 50, UsageLevel.HOUR), bucket(START + day, 50)]
    assert try_quota(quota, buckets).resolution is UsageLevel.HOUR


def test_the_list_of_times_is_bounded() -> None:
    minute = dt.timedelta(minutes=1)
    buckets = [bucket(START + 2 * i * minute, 100) for i in range(50)]
    found = try_rate(PlanRate(0.1, 1), buckets)
    assert (found.occurrences, len(found.stretches)) == (50, 20)
