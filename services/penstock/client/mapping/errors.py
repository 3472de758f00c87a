"""What can go wrong with a mapping.

    MappingError    the mapping file, or a source file as a whole, cannot be used
    BadValue        one value cannot be converted; becomes a BadRow
    BadRows         rows that cannot be converted; nothing of their dataset was loaded

All of them name the place in the mapping file or in the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MappingError(ValueError):
    """The mapping cannot be used; the message names the file and the key in it."""


class BadValue(ValueError):
    """A value cannot be converted; the message is the reason."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be converted. ``line`` counts the lines of ``file`` from 1."""

    file: str
    line: int
    field: str
    reason: str


class BadRows(Exception):
    """Rows of a source that cannot be converted: the first of them, and how many in all."""

    def __init__(self, dataset: str, rows: Sequence[BadRow], total: int) -> None:
        super().__init__(f"{dataset}: {total} bad; nothing of {dataset} was loaded")
        self.dataset = dataset
        self.rows = tuple(rows)
        self.total = total
