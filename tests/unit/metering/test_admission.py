"""Periods of quotas, forecasts and headers."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from penstockd.metering.call_limits import account_of
from penstockd.metering.rate_headers import LimitState, format_headers
from penstockd.metering.standing import forecast_end
from penstockd.policy.plans import Countable, Plan, PlanLimits, PlanQuota, QuotaPeriod, Terms

UTC = dt.UTC


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type, unused-ignore]


@pytest.mark.parametrize(
    ("zone", "month", "start", "end"),
    [
        # Each month has a change of the clock, so that it is longer or shorter than its days.
        ("Europe/Berlin", utc(2026, 3, 10), utc(2026, 2, 28, 23), utc(2026, 3, 31, 22)),
        ("Europe/Berlin", utc(2026, 10, 10), utc(2026, 9, 30, 22), utc(2026, 10, 31, 23)),
        ("America/New_York", utc(2026, 11, 15), utc(2026, 11, 1, 4), utc(2026, 12, 1, 5)),
        ("Australia/Lord_Howe", utc(2026, 4, 20), utc(2026, 3, 31, 13), utc(2026, 4, 30, 13, 30)),
    ],
)
def test_a_month_is_that_of_the_plans_zone(
    zone: str, month: dt.datetime, start: dt.datetime, end: dt.datetime
) -> None:
    quota = PlanQuota(Countable.CALLS, QuotaPeriod.MONTH, 5)
    terms = Terms(Plan("p", time_zone=zone), PlanLimits(quotas=(quota,)))
    assert account_of("crm", quota, terms, month) == ("crm", "calls-per-month", start, end)
    assert start.astimezone(ZoneInfo(zone)).day == end.astimezone(ZoneInfo(zone)).day == 1
    # The last moment is of this month, and the next one of the next.
    last = end - dt.timedelta(microseconds=1)
    assert account_of("crm", quota, terms, last).start == start
    assert account_of("crm", quota, terms, end).start == end
    assert account_of("crm", quota, terms, start).start == start


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", ""])
@pytest.mark.parametrize("per", list(QuotaPeriod))
def test_periods_follow_each_other_over_a_year(zone: str, per: QuotaPeriod) -> None:
    quota = PlanQuota(Countable.RECORDS, per, 5)
    terms = Terms(Plan("p", time_zone=zone), PlanLimits())
    time, steps = utc(2026, 3, 20), 0
    while time < utc(2027, 3, 20) and steps < 2000:
        account = account_of("crm", quota, terms, time)
        assert account.start <= time < account.end
        assert account_of("crm", quota, terms, account.end).start == account.end
        time, steps = account.end, steps + 1


def test_the_forecast_is_the_pace_so_far() -> None:
    start, end = utc(2026, 3, 1), utc(2026, 4, 1)
    tenth = utc(2026, 3, 11)
    assert forecast_end(0, 100, start, end, tenth) is None
    assert forecast_end(50, 100, start, end, tenth) == utc(2026, 3, 21)
    assert forecast_end(10, 100, start, end, tenth) is None, "the month ends first"
    assert forecast_end(100, 100, start, end, tenth) == tenth


def test_headers_are_structured_fields() -> None:
    states = [
        LimitState("rate", 20, 4, "requests", 19, 0),
        LimitState("bytes-per-day:customers", 5, 86400, "content-bytes", 0, 60),
    ]
    assert format_headers(states, "c2VjcmV0") == {
        "ratelimit-policy": '"rate";q=20;w=4;pk=:c2VjcmV0:,'
        ' "bytes-per-day:customers";q=5;qu="content-bytes";w=86400;pk=:c2VjcmV0:',
        "ratelimit": '"rate";r=19;pk=:c2VjcmV0:, "bytes-per-day:customers";r=0;t=60;pk=:c2VjcmV0:',
        "x-ratelimit-limit": "20",
        "x-ratelimit-remaining": "19",
        "x-ratelimit-reset": "0",
    }
    assert format_headers([], "c2VjcmV0") == {}


def test_the_older_headers_are_of_the_limit_that_refuses_first() -> None:
    """Of calls alone: a client takes the number for calls, and 0 for a refusal."""

    def older(*states: LimitState) -> list[str]:
        found = format_headers(states, "c2VjcmV0")
        return [v for name, v in found.items() if name.startswith("x-ratelimit-")]

    month = LimitState("calls-per-month", 1000, 2_592_000, "requests", 18, 600)
    rate = LimitState("rate", 20, 4, "requests", 19, 1)
    day = LimitState("calls-per-day", 100, 86_400, "requests", 18, 900)
    assert older(rate, month) == ["1000", "18", "600"]
    assert older(rate, month, day) == ["100", "18", "900"], "the one that lasts longer"
    assert older(rate, month._replace(soft=True)) == ["20", "19", "1"]
    assert older(rate, LimitState("records-per-day", 9, 86_400, "records", 0, 60))[1] == "19"
    assert older(LimitState("concurrent-calls", 9, 0, "concurrent-requests", 0, 0)) == []


def test_numbers_of_headers_fit_structured_fields() -> None:
    found = format_headers([LimitState("b", 1 << 62, 60, "content-bytes", 1 << 60, 5)], "a2s=")
    assert "q=999999999999999;" in found["ratelimit-policy"]
    assert "r=999999999999999;" in found["ratelimit"]


def test_very_many_limits_fit_the_metadata_of_a_call() -> None:
    """Those nearest to their ends are listed, in the older headers too."""
    states = [
        LimitState(f"calls-per-month:Customers/Method{n}", 100, 60, "requests", 100 - n, 5)
        for n in range(60)
    ]
    found = format_headers(states, "bmluZSBieXRl")
    assert found["ratelimit"].count("Method") == found["ratelimit-policy"].count("Method") == 20
    assert found["ratelimit"].startswith('"calls-per-month:Customers/Method59";r=41;')
    assert found["x-ratelimit-remaining"] == "41"
    assert sum(len(name) + len(value) for name, value in found.items()) < 4096
