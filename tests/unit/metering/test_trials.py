"""Limits tried on usage: what is certain holds, and what happens is possible, for any calls."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterable, Sequence
from zoneinfo import ZoneInfo

import pytest

from chance import SEED
from penstockd.metering import call_limits, trials
from penstockd.metering.ledger import AllowanceKey
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
    return Bucket(level, at, amount, amount)


def gather(calls: Iterable[tuple[dt.datetime, int]], level: UsageLevel) -> list[Bucket]:
    """The rollups of calls, each with what it uses."""
    sums: dict[dt.datetime, tuple[int, int]] = {}
    for time, amount in calls:
        start = level.truncate(time)
        used, count = sums.get(start, (0, 0))
        sums[start] = used + amount, count + 1
    return [Bucket(level, t, used, n) for t, (used, n) in sorted(sums.items())]


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
        Bucket(UsageLevel.MINUTE, START, 90, 5),
        Bucket(UsageLevel.MINUTE, START + minute, 20, 4),
        Bucket(UsageLevel.MINUTE, START + 2 * minute, 30, 9),
        Bucket(UsageLevel.MINUTE, START + 3 * minute, 0, 2),
    ]
    records = try_quota(PlanQuota(Countable.RECORDS, QuotaPeriod.DAY, 100), buckets)
    # One call in the second minute; any of those since may have been refused.
    assert (records.refused, records.refused_at_most) == (1, 15)
    assert records.first == records.last == START + minute
    size = try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 100), buckets)
    # The reply that exceeds it is sent; afterwards no call begins.
    assert (size.refused, size.refused_at_most) == (11, 15)
    assert size.first == START + 2 * minute and size.near_hours == 0
    sent = try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 100), buckets[:2])
    assert (sent.verdict, sent.refused, sent.refused_at_most) == (Verdict.MAY_REFUSE, 0, 4)
    soft = try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 100, soft=True), buckets)
    assert (soft.verdict, soft.refused, soft.peak, soft.allowed) == (Verdict.COUNTS, 0, 140, 100)
    near = try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 170), buckets)
    assert (near.verdict, near.near_hours) == (Verdict.NEAR, 1)
    assert try_quota(PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 200), []).verdict is Verdict.UNUSED


def keep_whole(limit: int, calls: Sequence[tuple[dt.datetime, int]]) -> int:
    """How many calls do not fit into a quota that takes each whole or not at all."""
    left, refused = limit, 0
    for _, amount in calls:
        fits = amount <= left
        left -= amount * fits
        refused += not fits
    return refused


@pytest.mark.parametrize("what", [Countable.RECORDS, Countable.IMPORT_RECORDS])
def test_records_that_do_not_fit_use_nothing(what: Countable) -> None:
    minute = dt.timedelta(minutes=1)
    quota = PlanQuota(what, QuotaPeriod.MONTH, 1000)
    calls = [(START, 5000), *((START + i * minute, 1) for i in range(1, 21))]
    found = try_quota(quota, gather(calls, UsageLevel.MINUTE))
    assert found.refused == keep_whole(1000, calls) == 1
    assert (found.refused_at_most, found.occurrences) == (21, 1)
    assert found.first == found.last == START and found.stretches[0].refused == 1
    # A minute that exceeds the quota by itself has a call that does not fit, whatever came before.
    calls.append((START + 21 * minute, 1001))
    again = try_quota(quota, gather(calls, UsageLevel.MINUTE))
    assert again.refused == keep_whole(1000, calls) == 2
    assert again.last == START + 21 * minute
    # What was refused before the range is not told, and leaves the quota to the calls within it.
    later = try_quota(quota, gather(calls[:21], UsageLevel.MINUTE), since=START + minute)
    assert (later.refused, later.occurrences, later.verdict) == (0, 0, Verdict.MAY_REFUSE)
    assert not later.stretches and later.first is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("zone", ["", "Europe/Berlin"])
def test_a_quota_of_records_refuses_between_the_bounds(zone: str, level: UsageLevel) -> None:
    chance = random.Random(SEED)
    begin, end = dt.datetime(2026, 3, 2, tzinfo=UTC), 20 * 86_400
    certain = 0
    for _ in range(60):
        limit = chance.choice([0, 10, 100, 1000])
        largest = chance.choice([1, 20, 3000])
        count = chance.randrange(1, 80)
        times = sorted(begin + SECOND * chance.randrange(end) for _ in range(count))
        calls = [(time, chance.randrange(1, largest + 1)) for time in times]
        true = keep_whole(limit, calls)
        quota = PlanQuota(Countable.RECORDS, QuotaPeriod.MONTH, limit)
        found = try_quota(quota, gather(calls, level), zone)
        assert found.refused <= true <= found.refused_at_most
        certain += found.refused
    assert certain


def test_a_bucket_in_which_a_period_ends_counts_once() -> None:
    """Days of UTC hold the ends of days in Berlin: a call belongs to one of the two."""
    day = dt.timedelta(days=1)
    days = [bucket(START + i * day, 10, UsageLevel.DAY) for i in range(3)]
    quota = PlanQuota(Countable.CALLS, QuotaPeriod.DAY, 0)
    assert try_quota(quota, days, "Europe/Berlin").refused_at_most == 30
    sizes = [Bucket(UsageLevel.DAY, START + i * day, 500, 10) for i in range(3)]
    for what in (Countable.BYTES, Countable.RECORDS):
        found = try_quota(PlanQuota(what, QuotaPeriod.DAY, 400), sizes, "Europe/Berlin")
        assert found.refused_at_most == 30
    # Of 10 calls, 3 exceed a quota of 7 if either day has them all; they cannot be in both.
    some = PlanQuota(Countable.CALLS, QuotaPeriod.DAY, 7)
    assert try_quota(some, days[:1], "Europe/Berlin").refused_at_most == 3


@pytest.mark.parametrize(
    ("per", "level", "zone", "periods"),
    [
        (QuotaPeriod.MINUTE, UsageLevel.HOUR, "", 60),
        (QuotaPeriod.MINUTE, UsageLevel.DAY, "Asia/Kolkata", 1440),
        (QuotaPeriod.HOUR, UsageLevel.DAY, "Europe/Berlin", 24),
        (QuotaPeriod.HOUR, UsageLevel.DAY, "Asia/Kolkata", 25),
        (QuotaPeriod.HOUR, UsageLevel.DAY, "Australia/Lord_Howe", 25),  # the clock goes back 0:30
    ],
)
def test_the_many_periods_of_a_bucket_are_not_listed(
    per: QuotaPeriod, level: UsageLevel, zone: str, periods: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dt.datetime] = []

    def account_of(consumer: str, quota: PlanQuota, terms: Terms, now: dt.datetime) -> AllowanceKey:
        asked.append(now)
        return call_limits.account_of(consumer, quota, terms, now)

    monkeypatch.setattr(trials, "account_of", account_of)
    start = dt.datetime(2026, 4, 4, tzinfo=UTC)
    amount = 10 * periods + 3
    found = try_quota(PlanQuota(Countable.CALLS, per, 10), [bucket(start, amount, level)], zone)
    assert (found.refused, found.refused_at_most) == (3, amount - 10)
    assert len(asked) <= 2


def test_replies_that_exceed_one_of_many_periods_are_sent() -> None:
    quota = PlanQuota(Countable.BYTES, QuotaPeriod.HOUR, 100)
    found = try_quota(quota, [Bucket(UsageLevel.DAY, START, 5000, 2)])
    assert (found.verdict, found.refused, found.refused_at_most) == (Verdict.MAY_REFUSE, 0, 2)


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
