"""What a caller notices of another consumer at full load: the ratio of its p99 to that alone.

Every load lasts as long as the measurement, see ``benchmark.hostile``.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import statistics
import time
from urllib.parse import urlsplit

from benchmark.database import load_customers, wait_until_quiet
from benchmark.hostile import LOADS, locked_readers
from benchmark.table import Row
from harness import RunningHub

#: GETs that are measured, the pause between two, and the number of warm-up GETs.
CALLS = int(os.environ.get("PENSTOCK_BENCH_CALLS", "800"))
_PAUSE, _WARM = 0.005, 50
VICTIM = "bi"
#: A customer can be read under every load except the one that locks its table.
USUAL, ELSEWHERE = "customers", "products"
DEMAND = 1.5


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """All in turn, so that they meet the same machine; each ratio is within one round."""
    load_customers(hub, rows)
    wait_until_quiet(hub)
    alone: dict[str, list[float]] = {USUAL: [], ELSEWHERE: []}
    beside: dict[str, list[float]] = {name: [] for name in LOADS}
    for _ in range(rounds):
        for dataset, found in alone.items():
            found.append(percentile(hub, dataset))
        for name, load in LOADS.items():
            with load(hub):
                beside[name].append(percentile(hub, _read_beside(name)))
    rows_ = [_row(name, found, alone[_read_beside(name)]) for name, found in beside.items()]
    figures = [
        Row(f"GET p99 of {dataset}, alone", statistics.median(found) * 1000, "ms")
        for dataset, found in alone.items()
    ]
    return [*rows_, *figures]


def _read_beside(load: str) -> str:
    """The dataset that the victim reads under a load."""
    return ELSEWHERE if LOADS[load] is locked_readers else USUAL


def _row(name: str, found: list[float], alone: list[float]) -> Row:
    ratios = [here / there for here, there in zip(found, alone, strict=True)]
    return Row(
        f"GET p99 beside another consumer's {name}, to alone",
        statistics.median(ratios),
        "",
        DEMAND,
        at_most=True,
        note=f"{statistics.median(found) * 1000:.1f} ms; "
        f"rounds {', '.join(f'{r:.2f}' for r in ratios)}",
    )


def percentile(hub: RunningHub, dataset: str) -> float:
    """The 99th percentile of the victim's GETs, one at a time, in seconds."""
    return statistics.quantiles(get_one_by_one(hub, dataset), n=100)[98]


def get_one_by_one(hub: RunningHub, dataset: str) -> list[float]:
    """The seconds of each of the victim's GETs of one record."""
    place = urlsplit(hub.url)
    headers = {"authorization": f"Bearer {hub.token(VICTIM)}"}
    (key,) = hub.sql(f"SELECT {dataset[:-1]}_id FROM data.{dataset} LIMIT 1")[0]
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    seconds = []
    with contextlib.closing(connection):
        for _ in range(CALLS + _WARM):
            start = time.perf_counter()
            connection.request("GET", f"/v1/{dataset}/{key}", headers=headers)
            reply = connection.getresponse()
            told = reply.read()
            seconds.append(time.perf_counter() - start)
            assert reply.status == 200, told
            # A caller's own pace: back to back, one connection would measure throughput.
            time.sleep(_PAUSE)
    return seconds[_WARM:]
