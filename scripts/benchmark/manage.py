"""What limits, quotas and metering cost unary calls: all on, against all off, in turn.

Off: the consumer has no limits, and a lock keeps the keeper from folding the audit into usage. The
audit is on in both: it is no part of metering.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from typing import Any

from benchmark.database import load_customers, wait_until_quiet
from benchmark.fairness import VICTIM, get_one_by_one
from benchmark.table import Row
from benchmark.unary import list_keys, load_grpc, load_rest
from harness import RunningHub, eventually
from penstockd.metering.fold import UNFOLDED

#: Limits of every kind, none of which a load here reaches.
_ENDLESS = 10**12
LIMITS: dict[str, Any] = {
    "rates": [{"perSecond": 1_000_000, "burst": 1_000_000}],
    "concurrent": {"calls": 10_000, "streams": 10_000, "exports": 10_000},
    "quotas": [
        {"what": what, "per": per, "limit": str(_ENDLESS)}
        for what, per in (("calls", "month"), ("records", "month"), ("bytes", "month"))
    ],
}
#: The fold asks first what there is to fold, and waits for this lock.
_UNMETERED = "BEGIN; LOCK TABLE hub.usage_place IN ACCESS EXCLUSIVE MODE"
#: The share of the throughput that must be left, and the milliseconds that a call may take longer.
_LEFT, _LONGER = 0.92, 0.5


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """Each ratio and difference is within one round, in which both meet the same machine."""
    load_customers(hub, rows)
    wait_until_quiet(hub)
    keys = list_keys(hub, VICTIM)
    authorization = f"authorization: Bearer {hub.token(VICTIM)}"
    found: dict[str, dict[str, list[float]]] = {"off": {}, "on": {}}
    for turn in range(rounds):
        # The order changes, so that what warms up favours neither.
        for side in ("off", "on") if turn % 2 == 0 else ("on", "off"):
            with managed(hub, LIMITS if side == "on" else {}):
                figures = {
                    "REST": load_rest(hub.url, keys, authorization),
                    "gRPC": load_grpc(hub, keys[0], authorization),
                    "p50": _median_milliseconds(hub),
                }
            for name, value in figures.items():
                found[side].setdefault(name, []).append(value)
    return [*_rate_rows(found), _latency_row(found)]


def _rate_rows(found: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    for name, way in (("REST", "over REST through Envoy"), ("gRPC", "gRPC to one worker")):
        on, off = found["on"][name], found["off"][name]
        ratios = [here / there for here, there in zip(on, off, strict=True)]
        yield Row(
            f"GET {way}: limits, quotas and metering on, to off",
            statistics.median(ratios),
            "",
            _LEFT,
            note=f"{statistics.median(on):,.0f} to {statistics.median(off):,.0f} calls/s; "
            f"rounds {', '.join(f'{r:.2f}' for r in ratios)}",
        )


def _latency_row(found: dict[str, dict[str, list[float]]]) -> Row:
    on, off = found["on"]["p50"], found["off"]["p50"]
    return Row(
        "GET p50 over REST: longer with them on",
        statistics.median(here - there for here, there in zip(on, off, strict=True)),
        "ms",
        _LONGER,
        at_most=True,
        note=f"{statistics.median(on):.2f} to {statistics.median(off):.2f} ms",
    )


@contextlib.contextmanager
def managed(hub: RunningHub, limits: dict[str, Any]) -> Iterator[None]:
    """A hub whose consumer has these limits; without any, nothing is metered either."""
    path = f"/v1/access/consumers/{VICTIM}?update_mask=limits"
    reply = hub.request("PATCH", path, consumer="admin", json_body={"limits": limits})
    assert reply.status == 200, reply.text
    hub.settle()
    told = hub.get("/v1/customers?page_size=1", consumer=VICTIM).headers
    assert ("ratelimit" in told) == bool(limits), "the limits are in force"
    with contextlib.nullcontext() if limits else hub.holding(_UNMETERED):
        yield
    # What was not metered is folded now, and not at the cost of the next round.
    left = f"SELECT EXISTS (SELECT FROM {UNFOLDED})"
    eventually(lambda: hub.sql(left) == [(False,)], seconds=120)


def _median_milliseconds(hub: RunningHub) -> float:
    return statistics.median(get_one_by_one(hub, "customers")) * 1000
