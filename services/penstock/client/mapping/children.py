"""Child rows, found by the key of their parent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from penstock.client.mapping.table import Row, Table

_Group = list[tuple[int, Row]]


class ChildRows:
    """The rows of a file grouped by the column at ``key``; each group is returned once.

    Unless ``ordered``, the file is held in memory from the first call on. ``ordered`` reads it
    in step with the parents instead: rows of one parent must be adjacent, in the order in which
    the parents are asked for; rows out of order remain unclaimed.
    """

    def __init__(self, table: Table, key: int, ordered: bool) -> None:
        self.table = table
        self._key = key
        self._groups = groupby(table.rows(), self._key_of) if ordered else None
        self._next: tuple[str | None, _Group] | None = None
        self._held: dict[str | None, _Group] | None = None

    def of(self, parent: str | None) -> _Group:
        """The rows of one parent, with their lines, in the order of the file."""
        if parent is None:
            return []
        if self._groups is None:
            return self._index().pop(parent, [])
        if self._next is None:
            self._advance()
        if self._next is None or self._next[0] != parent:
            return []
        group = self._next[1]
        self._next = None
        return group

    def unclaimed(self) -> Iterator[tuple[int, str | None]]:
        """The line and the key of each row that no parent asked for."""
        if self._groups is None:
            groups = list(self._index().items())
            yield from ((line, key) for key, group in groups for line, _ in group)
            return
        while self._next is not None or self._advance():
            assert self._next is not None
            key, group = self._next
            self._next = None
            yield from ((line, key) for line, _ in group)

    def _key_of(self, numbered: tuple[int, Row]) -> str | None:
        return numbered[1][self._key]

    def _advance(self) -> bool:
        assert self._groups is not None
        key, rows = next(self._groups, (None, None))
        if rows is None:
            return False
        self._next = (key, list(rows))
        return True

    def _index(self) -> dict[str | None, _Group]:
        if self._held is None:
            self._held = {}
            for numbered in self.table.rows():
                self._held.setdefault(self._key_of(numbered), []).append(numbered)
        return self._held
