"""A CSV export in the columns of a shape, beside the same fields as they are.

The CPU of the hub's processes and its database counts, as well as the time: the first says the same
on a machine that does something else, too.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.database import load_customers, wait_until_quiet
from benchmark.exports import Figures, export_file
from benchmark.table import Row
from harness import RunningHub

FIELDS = ("name", "status", "credit_limit", "create_time")
#: Shapes of these fields, by what they do to them; the last has an order's lines as rows.
_STEPS: Mapping[str, Mapping[str, Any]] = {
    "status": {"values": {"ACTIVE": "customer"}, "otherwise": "lead"},
    "credit_limit": {"numberFormat": {"decimals": 2, "decimalSeparator": ","}},
    "create_time": {"timeFormat": "%d.%m.%Y"},
}
SHAPES: Mapping[str, list[dict[str, Any]]] = {
    "renamed": [{"name": f"c_{f}", "field": f} for f in FIELDS],
    "steps": [{"name": f"c_{f}", "field": f, **_STEPS.get(f, {})} for f in FIELDS],
    "computed": [
        *({"name": f"c_{f}", "field": f} for f in FIELDS[:3]),
        {"name": "c_label", "expression": "name + ' (' + status + ')'"},
    ],
}
#: What a shape without computed columns may cost beyond the plain fields.
MOST = 1.15


@dataclass
class _Compared:
    figures: Figures = field(default_factory=Figures)
    cpu: list[float] = field(default_factory=list)


def measure(hub: RunningHub, rows: int, rounds: int) -> list[Row]:
    """The plain fields and each shape in turn, so that all meet the same machine."""
    load_customers(hub, rows)
    wait_until_quiet(hub)
    queries = {"plain": f"fields={','.join(FIELDS)}"}
    for name, columns in SHAPES.items():
        shape = {"shapeId": f"bench-{name}", "dataset": "customers", "columns": columns}
        reply = hub.request("POST", "/v1/shapes", consumer="admin", json_body=shape)
        assert reply.status == 200, reply.text
        queries[name] = f"shape=bench-{name}"
    found = {name: _Compared() for name in queries}
    try:
        for _ in range(rounds):
            for name, query in queries.items():
                compared = found[name]
                cpu = export_file(hub, "admin", "CSV", compared.figures, query=query)
                compared.cpu.append(sum(cpu.values()))
    finally:
        for name in SHAPES:
            hub.request("DELETE", f"/v1/shapes/bench-{name}", consumer="admin")
    plain = found["plain"]
    note = f"{plain.figures.rows:,} rows, {plain.figures.cpu}"
    return [
        Row("export CSV, four plain fields", plain.figures.rate, "rows/s", note=note),
        *(_compare(name, found[name], plain) for name in SHAPES),
        *(_compare_cpu(name, found[name], plain) for name in SHAPES),
    ]


def _compare(name: str, found: _Compared, plain: _Compared) -> Row:
    ratio = statistics.median(found.figures.seconds) / statistics.median(plain.figures.seconds)
    most = None if name == "computed" else MOST
    return Row(f"export CSV in a shape ({name}): time", ratio, "", most, at_most=True)


def _compare_cpu(name: str, found: _Compared, plain: _Compared) -> Row:
    ratio = statistics.median(found.cpu) / statistics.median(plain.cpu)
    note = found.figures.cpu
    most = None if name == "computed" else MOST
    return Row(f"export CSV in a shape ({name}): CPU", ratio, "", most, at_most=True, note=note)
