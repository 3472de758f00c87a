"""StreamExport over REST through Envoy, beside ``psql \\copy … csv`` of the same columns."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmark.database import database_url, load_customers, wait_until_quiet
from benchmark.processes import usage
from benchmark.table import Row
from feeds import consumer_with, credentials, grant
from harness import RunningHub
from penstockd.node.postgres import find_psql

#: Format -> the fraction of psql's rows a second that is demanded.
DEMANDS = {
    "CSV": 0.95, "NDJSON": 0.65, "JSON": 0.65, "XML": 0.5, "PARQUET": 0.65, "ARROW": 0.75
}  # fmt: skip


@dataclass
class Figures:
    """What several exports of the same records took."""

    seconds: list[float] = field(default_factory=list)
    first_byte: list[float] = field(default_factory=list)
    gained: list[float] = field(default_factory=list)
    cpu: str = ""
    rows: int = 0

    @property
    def rate(self) -> float:
        """Rows a second, as counted by the receipt."""
        return self.rows / statistics.median(self.seconds)


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """Every format and the reference in turn, so that all meet the same machine."""
    load_customers(hub, rows)
    wait_until_quiet(hub)
    reference: list[float] = []
    figures = {name: Figures() for name in DEMANDS}
    masked = Figures()
    for _ in range(rounds):
        reference.append(_reference(hub))
        for name, found in figures.items():
            export_file(hub, "admin", name, found)
        export_file(hub, "bi", "CSV", masked)
    best = statistics.median(reference)
    # The part before may have left more rows than were asked for.
    count = figures["CSV"].rows
    found_rows = [Row("psql \\copy … csv", count / best, "rows/s", note=f"{count:,} rows")]
    for name, found in figures.items():
        ratio = best / statistics.median(found.seconds)
        found_rows.append(
            Row(f"export {name}, ratio to psql", ratio, "", DEMANDS[name], note=found.cpu)
        )
        found_rows.append(
            Row(f"memory gained by {name}", max(found.gained), "MiB", 64, at_most=True)
        )
    every = figures.values()
    first = max(statistics.median(f.first_byte) for f in every) * 1000
    return [
        *found_rows,
        Row("first byte, slowest format", first, "ms", 200, at_most=True),
        Row(
            "export CSV with masks and a row rule: rows/s lost",
            1 - masked.rate / figures["CSV"].rate,
            "",
            0.25,
            at_most=True,
            note=f"{masked.rows:,} rows",
        ),
        *_without_members(hub, rows // 5, rounds),
        *_on_connections(hub, 2, rounds),
    ]


_ORDERS = """
INSERT INTO data.orders (order_id, customer_id, lines, create_time, update_time)
SELECT 'bench-' || n, 'c' || n, (
    SELECT jsonb_agg(jsonb_build_object('productId', 'p' || n + i, 'quantity', i,
        'unitPrice', n % 1000 || '.50', 'discount', '0.15')) FROM generate_series(1, 1 + n % 5) i
), now(), now() FROM generate_series(1, {rows}) n ON CONFLICT DO NOTHING
"""


def _without_members(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """Orders with whole lines, with a member of each line hidden, and with one hashed."""
    hub.sql(_ORDERS.format(rows=rows))
    hub.sql("ANALYZE data.orders")
    masks: dict[str, dict[str, Any]] = {
        "whole": {},
        "hidden": {"lines.unit_price": "hide"},
        "hashed": {"lines.product_id": "hash"},
    }
    figures = {name: Figures() for name in masks}
    for _ in range(rounds):
        for name, fields in masks.items():
            with consumer_with(hub, grant("orders", **fields)) as made:
                export_file(hub, made.key, "CSV", figures[name], "orders")
    whole = figures["whole"].rate
    title = "export CSV of orders, a member of each line"
    note = f"{figures['whole'].rows:,} rows"
    return [
        Row(
            f"{title} hidden: part of the rate", figures["hidden"].rate / whole, "", 0.5, note=note
        ),
        Row(f"{title} hashed: part of the rate", figures["hashed"].rate / whole, "", note=note),
    ]


def _on_connections(hub: RunningHub, connections: int, rounds: int) -> list[Row]:
    """CSV read by several connections on one snapshot, beside psql; restarts the hub for it."""
    setting = "PENSTOCK_EXPORT_CONNECTIONS"
    reference: list[float] = []
    figures = Figures()
    hub.stop()
    hub.environment[setting] = str(connections)
    hub.start()
    try:
        wait_until_quiet(hub)
        for _ in range(rounds):
            reference.append(_reference(hub))
            export_file(hub, "admin", "CSV", figures)
    finally:
        hub.stop()
        del hub.environment[setting]
        hub.start()
    ratio = statistics.median(reference) / statistics.median(figures.seconds)
    title = f"export CSV on {connections} connections"
    return [
        Row(f"{title}, ratio to psql", ratio, "", note=figures.cpu),
        Row(f"{title}, memory gained", max(figures.gained), "MiB", 64, at_most=True),
    ]


def _reference(hub: RunningHub) -> float:
    copy = "\\copy (select * from data.customers order by customer_id) to /dev/null csv header"
    start = time.perf_counter()
    subprocess.run([find_psql(), database_url(hub), "-qc", copy], check=True)
    return time.perf_counter() - start


def export_file(
    hub: RunningHub,
    consumer: str,
    name: str,
    found: Figures,
    dataset: str = "customers",
    query: str = "",
) -> Mapping[str, float]:
    """Export a dataset and add the figures; ``query`` has more parameters of the request. Returns
    the seconds of CPU that the hub's processes used, by kind."""
    headers = dict(credentials(hub, consumer))
    with usage(hub) as used:
        receipt_id = _drain(hub, headers, f"/v1/{dataset}:export?format={name}&{query}", found)
    receipt = hub.request("GET", f"/v1/receipts/{receipt_id}", headers=headers).json()
    assert receipt["state"] == "COMPLETE", receipt
    found.rows = int(receipt["rowCount"])
    found.gained.append(used.gained_mib)
    found.cpu = used.text()
    return used.cpu


def _drain(hub: RunningHub, headers: Mapping[str, str], path: str, found: Figures) -> str:
    """Read an export and discard it, as psql does with its copy; return the id of its receipt.

    It reads from the socket: a full client in Python would use more of the two cores than the
    hub's sidecar, and more than psql, which is written in C.
    """
    place = urlsplit(hub.url)
    start = time.perf_counter()
    connection = http.client.HTTPConnection(place.hostname or "", place.port)
    connection.request("GET", path, headers={**headers, "connection": "close"})
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    reply.read(1)
    found.first_byte.append(time.perf_counter() - start)
    space = bytearray(1 << 20)
    while reply.fp.raw.readinto(space):  # type: ignore[attr-defined]  # past the buffered reader
        pass
    found.seconds.append(time.perf_counter() - start)
    connection.close()
    return str(reply.headers["penstock-receipt"])
