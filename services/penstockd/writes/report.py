"""The outcome of the rows of a batch or an import."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import orjson

from penstockd.store.writer import Counts
from penstockd.writes.idempotency import Form
from penstockd.writes.preview import ColumnPreview

#: The most problems that are reported; bad rows are always counted.
TOLD = 1000
_MOST_TEXT = 300  # characters of a description, which may quote a value


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One problem of one row, which is counted from 1; ``field`` is "" for the whole row."""

    row: int
    key: str
    field: str
    description: str


@dataclass(slots=True)
class Report:
    """Counts of the rows that were written, and the problems of those that were refused."""

    counts: Counts = field(default_factory=Counts)
    refused: int = 0
    problems: list[RowProblem] = field(default_factory=list)
    #: Names of the file that no field has and the import ignored, with their numbers of values.
    ignored: dict[str, int] = field(default_factory=dict)
    #: How many values of all such names it ignored.
    ignored_values: int = 0
    #: How the columns of the file are understood, for a preview alone; not stored.
    columns: list[ColumnPreview] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The number of rows that were sent."""
        return self.counts.total + self.refused

    def add(self, problem: RowProblem) -> None:
        """Report a problem, unless enough are reported; its row must be counted separately."""
        if len(self.problems) < TOLD:
            text = problem.description
            if len(text) > _MOST_TEXT:
                text = text[:_MOST_TEXT] + "…"
            told = RowProblem(problem.row, problem.key[:512], problem.field[:200], text)
            self.problems.append(told)

    def in_order(self) -> Report:
        """The same, with its problems in the order of the rows."""
        problems = sorted(self.problems, key=lambda p: p.row)
        return replace(self, problems=problems)


def _decode_report(data: bytes) -> Report:
    document = orjson.loads(data)
    return Report(
        Counts(**document["counts"]),
        document["refused"],
        [RowProblem(**p) for p in document["problems"]],
        document.get("ignored", {}),
        document.get("ignored_values", 0),
    )


#: The stored form of a report.
REPORT: Form[Report] = Form(orjson.dumps, _decode_report)
