"""One figure a row: what was measured, the demand, and whether it was met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A figure. ``demand`` is a floor, or a ceiling if ``at_most``; None if there is none."""

    name: str
    value: float
    unit: str
    demand: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the demand is met; None without one."""
        if self.demand is None:
            return None
        return self.value <= self.demand if self.at_most else self.value >= self.demand

    def document(self) -> dict[str, Any]:
        """The row for JSON."""
        return {**asdict(self), "reached": self.reached}


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a Markdown table."""
    print("| figure | measured | demanded | |\n|---|---|---|---|")
    for row in rows:
        demand = ""
        if row.demand is not None:
            demand = f"{'≤' if row.at_most else '≥'} {_number(row.demand)} {row.unit}"
        mark = {True: "reached", False: "MISSED", None: ""}[row.reached]
        print(f"| {row.name} | {_number(row.value)} {row.unit} | {demand} | {mark} {row.note} |")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
