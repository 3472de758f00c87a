"""The errors of files and their formats."""

from __future__ import annotations


class FormatError(Exception):
    """A file breaks its format, or a value cannot be printed; the rest cannot be read.

    ``truncated``: the only fault is that the file ends too early.
    """

    def __init__(self, reason: str, row: int | None = None, *, truncated: bool = False) -> None:
        super().__init__(reason if row is None else f"row {row}: {reason}")
        self.reason = reason
        self.row = row
        self.truncated = truncated
