"""Runs parts of the bench one after the other and keeps the figures of each."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmark.parts import Part
from benchmark.table import Row, show


class Hub(Protocol):
    """The hub that is measured."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def stop(self) -> None:
        """Stop it, if it is running."""


@dataclass
class Results:
    """The figures of all finished parts, in a file that is always up to date."""

    file: Path
    figures: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, part: Part, rows: Sequence[Row]) -> None:
        """Print the figures of a part and write them to the file."""
        print(f"\n{part.name}")
        show(rows)
        sys.stdout.flush()
        self.figures += [{"part": part.name, **row.document()} for row in rows]
        self.write()

    def write(self) -> None:
        """Replace the file as a whole, so that a crash leaves the earlier or the new figures."""
        new = self.file.with_name(f"{self.file.name}.new")
        new.write_text(json.dumps(self.figures, indent=2))
        new.replace(self.file)


def run_parts(parts: Sequence[Part], hub: Hub, rows: int, rounds: int, results: Results) -> None:
    """Measure every part on one hub. Note a part that fails, and continue with the next.

    A failure may leave the hub in any state, so the next part gets a restarted one.
    """
    results.write()
    running = False
    try:
        for part in parts:
            try:
                if not running:
                    hub.stop()
                    hub.start()
                    running = True
                results.add(part, part.load_measure()(hub, rows, rounds))
            except (Exception, SystemExit):
                running = False
                results.failed.append(part.name)
                print(f"\n{part.name}: FAILED", file=sys.stderr)
                traceback.print_exc()
    finally:
        hub.stop()
