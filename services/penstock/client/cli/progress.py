"""A progress bar on standard error, if that is a terminal, and the rows in an export."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)


class Bar:
    """One bar. ``unit`` is "bytes" or "rows"; ``rows`` adds rows and rows per second."""

    def __init__(
        self,
        title: str,
        *,
        total: int | None = None,
        unit: str = "bytes",
        shown: bool | None = None,
    ) -> None:
        self.rows: int | None = None
        self._total = total
        columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
        if total is not None:
            columns += [BarColumn(), TaskProgressColumn()]
        if unit == "bytes":
            columns += [DownloadColumn(), TransferSpeedColumn()]
        else:
            columns.append(TextColumn("{task.completed:,.0f} rows"))
        columns += [TextColumn("{task.fields[rows]}"), TimeElapsedColumn()]
        self._progress = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            disable=not (sys.stderr.isatty() if shown is None else shown),
        )
        self._task = self._progress.add_task(title, total=total, rows="")

    def sent(self, done: int) -> None:
        """Sets the progress, in units."""
        self._progress.update(self._task, completed=done, rows=self._speed())
        if done == self._total:
            self._progress.update(self._task, rows="the hub is loading …")

    def describe(self, title: str) -> None:
        """Sets the text of the current step."""
        self._progress.update(self._task, description=title)

    def stop(self) -> None:
        """Removes the bar, so that something can be printed."""
        self._progress.stop()

    def _speed(self) -> str:
        elapsed = self._progress.tasks[0].elapsed
        if self.rows is None or not elapsed:
            return ""
        return f"{self.rows:,} rows, {self.rows / elapsed:,.0f}/s"

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def row_counter(format: str) -> Callable[[bytes], int] | None:
    """A function that counts the rows ending in each next chunk; None if that is not cheap."""
    if format == "NDJSON":
        return lambda chunk: chunk.count(b"\n")
    return _CsvRows().count if format == "CSV" else None


class _CsvRows:
    """Counts line ends outside quotes; the header is not a row."""

    def __init__(self) -> None:
        self._quoted = False
        self._header = True

    def count(self, chunk: bytes) -> int:
        pieces = chunk.split(b'"')
        ends = sum(piece.count(b"\n") for piece in pieces[int(self._quoted) :: 2])
        self._quoted ^= len(pieces) % 2 == 0
        if self._header and ends:
            self._header = False
            return ends - 1
        return ends
