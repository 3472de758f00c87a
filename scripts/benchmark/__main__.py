"""Measures the hub beside its references: a table on stdout, the same figures as JSON in a file.

Exits with 1 if a part fails; the figures of the others are still printed and in the file.
Exits with 2, before it measures anything, if something that a part needs is missing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.driver import Results, run_parts
from benchmark.needs import find_missing, need_space, need_writable
from benchmark.parts import PARTS, Part

ROOT = Path(__file__).parents[2]
#: Customers in the hub before a part loads more.
DEMO_CUSTOMERS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the parts need, measure them, return the exit code."""
    options = _parse(arguments)
    parts = [part for part in PARTS if part.name in options.parts]
    if not _can_start(parts, options.rows, options.json):
        return 2
    from harness import RunningHub, folder

    results = Results(options.json)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, {options.rows:,} rows,")
    print(f"median of {options.rounds} rounds", flush=True)
    with folder() as data:
        hub = RunningHub(data / "hub", customers=DEMO_CUSTOMERS)
        run_parts(parts, hub, options.rows, options.rounds, results)
    print(f"\nLoad at the end {os.getloadavg()[0]:.1f}; figures in {options.json}")
    if results.failed:
        print(f"Failed: {', '.join(results.failed)}", file=sys.stderr)
    return 1 if results.failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"any of {', '.join(names)}; all by default")
    parser.add_argument("--rows", type=int, default=1_000_000, help="customers (default 1000000)")
    parser.add_argument("--rounds", type=int, default=3, help="take the median of so many (3)")
    parser.add_argument(
        "--json",
        type=Path,
        default=ROOT / "build" / "bench.json",
        help="the file for the figures (default build/bench.json)",
    )
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    options.parts = options.parts or names
    return options


def _can_start(parts: Sequence[Part], rows: int, file: Path) -> bool:
    """Print everything that is missing, for which parts, and how to get it."""
    # An estimate: 4 KiB a customer, for its record, its changes and their audit.
    common = [need_space(2048 + rows // 256), need_writable(file)]
    missing = find_missing([*common, *(need for part in parts for need in part.needs)])
    for need in missing:
        users = [part.name for part in parts if need in part.needs] or ["every part"]
        print(f"{', '.join(users)}: {need.name} is missing: {need.how}", file=sys.stderr)
    return not missing


if __name__ == "__main__":
    sys.exit(main())
