"""Import of CSV through the door, with log and audit."""

from __future__ import annotations

import time

from benchmark.processes import usage
from benchmark.table import Row
from harness import RunningHub
from penstock.client import Client
from penstockd.demo import generate


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """One import of all rows: they are new only once. ``rounds`` counts imports of no change."""
    admin = hub.consumers["admin"]
    chunks = list(generate("customers", rows))
    with Client(hub.url, api_key=admin["api_key"]) as client:
        customers = client.dataset("customers")
        with usage(hub) as used:
            start = time.perf_counter()
            counts = customers.import_(iter(chunks), "CSV", timeout=3600)
            seconds = time.perf_counter() - start
        assert counts.rows == rows, counts
        found = [
            Row("import CSV, new rows", rows / seconds, "rows/s", 60_000, note=used.text()),
            Row("memory gained by the workers during it", used.gained_mib, "MiB"),
        ]
        start = time.perf_counter()
        counts = customers.import_(iter(chunks), "CSV", timeout=3600)
        seconds = time.perf_counter() - start
        assert counts.unchanged == rows, counts
        return [*found, Row("import CSV, nothing changed", rows / seconds, "rows/s")]
