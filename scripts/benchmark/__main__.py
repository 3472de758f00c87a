"""``scripts/bench [PART…]``: a table on stdout, with --json the same as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from benchmark import digests, exports, fairness, feeds, imports, unary, webhooks
from benchmark.table import Row, show
from harness import RunningHub, folder

_PARTS = {
    "import": imports.measure,
    "export": exports.measure,
    "digest": digests.measure,
    "feed": feeds.measure,
    "get": unary.measure,
    "webhooks": webhooks.measure,
    "fair": fairness.measure,
}


def main() -> None:
    """Start a hub, measure the parts asked for, print."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(_PARTS)}; all by default")
    parser.add_argument("--rows", type=int, default=1_000_000, help="customers (default 1000000)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many (default 3)")
    parser.add_argument("--json", type=Path, help="file that gets the figures as JSON")
    arguments = parser.parse_args()
    parts = arguments.parts or list(_PARTS)
    unknown = set(parts) - set(_PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    with folder() as data:
        hub = RunningHub(data / "hub", customers=100)
        hub.start()
        try:
            # Imports fill the tables that exports read.
            for part in sorted(parts, key=list(_PARTS).index):
                rows += _PARTS[part](hub, arguments.rows, arguments.rounds)
        finally:
            hub.stop()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {arguments.rows:,} rows, ")
    print(f"median of {arguments.rounds} rounds, load at the end {os.getloadavg()[0]:.1f}")
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([r.document() for r in rows], indent=2))
    sys.exit(0)


if __name__ == "__main__":
    main()
