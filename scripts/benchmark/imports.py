"""Bulk writes through the hub's API, with log and audit: import of CSV, and batches of records."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from benchmark.processes import Usage, usage
from benchmark.table import Row
from harness import RunningHub
from penstock.client import Client
from penstock.client.dataset import DatasetClient
from penstockd.demo import generate_records

#: Records that the batches write, whatever the rows of the import.
_BATCHED = 100_000
_SOURCES = re.compile(rb",(crm|shop|erp),")


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """One import of all rows, because they are new only once. Batches are of other records."""
    admin = hub.consumers["admin"]
    few = min(rows, _BATCHED)
    chunks = list(generate_records("customers", rows))
    changed = [_SOURCES.sub(lambda m: m[0].upper(), c) for c in generate_records("customers", few)]
    with Client(hub.url, api_key=admin["api_key"]) as client:
        customers = client.dataset("customers")
        new, used = _imported(hub, customers, chunks, created=rows - hub.customers)
        same, used_same = _imported(hub, customers, chunks, unchanged=rows)
        other, used_other = _imported(hub, customers, changed, updated=few)
        return [
            Row("import CSV, new rows", rows / new, "rows/s", 80_000, note=used.text()),
            Row("memory gained by the workers during it", used.gained_mib, "MiB"),
            Row("import CSV, nothing changed", rows / same, "rows/s", note=used_same.text()),
            Row("import CSV, every row changed", few / other, "rows/s", note=used_other.text()),
            *_batches(hub, customers, few),
        ]


def _imported(
    hub: RunningHub, customers: DatasetClient, chunks: Sequence[bytes], **expected: int
) -> tuple[float, Usage]:
    """The seconds that an import takes, and its cost to the hub."""
    with usage(hub) as used:
        start = time.perf_counter()
        counts = customers.import_(iter(chunks), "CSV", timeout=3600)
        seconds = time.perf_counter() - start
    for name, count in expected.items():
        assert getattr(counts, name) == count, counts
    return seconds, used


def _batches(hub: RunningHub, customers: DatasetClient, count: int) -> list[Row]:
    """Records of the demo under other keys, in batches of two sizes: new, then changed."""
    kind: Any = customers.record_class
    found = []
    for size in (1_000, 10_000):
        records = []
        for i, record in enumerate(islice(customers.list(page_size=1000), count)):
            copy = kind()
            copy.CopyFrom(record)
            copy.customer_id = f"batch-{size}-{i:08d}"
            records.append(copy)
        for what, target in (("new", 40_000), ("changed", None)):
            batches = [records[i : i + size] for i in range(0, len(records), size)]
            with usage(hub) as used:
                start = time.perf_counter()
                replies = [customers.batch_upsert(batch) for batch in batches]
                seconds = time.perf_counter() - start
            done = sum(r.created if what == "new" else r.updated for r in replies)
            assert done == len(records), replies
            name = f"batches of {size:,}, {what} records"
            rate = len(records) / seconds
            found.append(Row(name, rate, "rows/s", target, note=used.text()))
            for record in records:
                record.notes = f"changed by batches of {size}"
    return found
