"""The table of a replica, and how far it has come: both change in one transaction.

What is used of a connection is DB-API 2.0 (PEP 249): of sqlite3, psycopg or psycopg2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from penstock.client.replica.columns import Column, Shape

#: The table that says how far the replicas of a database have come.
STATES = "penstock_replicas"
#: Rows that are read, or keys that are deleted, at a time.
ROWS = 1000


@dataclass(frozen=True, slots=True)
class State:
    """How far a replica has come: a cursor, and what its caller saw there (``Position.view``)."""

    cursor: str
    view: str


class NotTheOnly(Exception):
    """Something else has changed the replica meanwhile: it must have one writer."""


class Table:
    """The rows of one replica. All that is written waits for ``commit``.

    Raises ValueError if the connection is of no known kind or commits by itself, and if there is a
    table with the name that is not a replica of the dataset.
    """

    def __init__(
        self,
        connection: Any,
        dataset: str,
        name: str,
        record_class: type[Message],
        key: str,
        wanted: Sequence[str],
    ) -> None:
        self._connection = connection
        self._sqlite = _is_sqlite(connection)
        self._mark = "?" if self._sqlite else "%s"
        self._dataset, self._name = dataset, name
        self._shape = Shape(record_class, key, wanted, sqlite=self._sqlite)
        self._key = _quoted(key)
        self._table = _quoted(name)
        self._prepare()
        self._state = self.state()

    def state(self) -> State | None:
        """How far it has come; None: it has not begun."""
        with self._ending():
            found = self._rows(
                f"SELECT cursor, view_id FROM {STATES} WHERE name = {self._mark}", [self._name]
            )
        return State(*found[0]) if found and found[0][0] else None

    def put(self, records: Iterable[Message]) -> None:
        """Stores records, in place of those with their keys."""
        rows = [self._shape.row(record) for record in records]
        if rows:
            self._begin()
            self._many(self._upsert(), rows)

    def remove(self, keys: Iterable[str]) -> None:
        """Deletes records; those that are not there are passed over."""
        rows = [(key,) for key in keys]
        if rows:
            self._begin()
            self._many(f"DELETE FROM {self._table} WHERE {self._key} = {self._mark}", rows)

    def clear(self) -> None:
        """Deletes all records."""
        self._begin()
        self._run(f"DELETE FROM {self._table}")

    def records(self, start: str = "", end: str = "") -> Iterator[tuple[str, Message | None]]:
        """Keys and records from ``start`` on and before ``end``, in order of their keys as UTF-8.

        "" is no limit. None stands for what can be no record of the dataset.
        """
        shown = ", ".join(self._read(column) for column in self._shape.columns)
        conditions, values = [f"{self._key} >= {self._mark}"], [start]
        if end:
            conditions.append(f"{self._key} < {self._mark}")
            values.append(end)
        statement = (
            f"SELECT {self._key}, {shown} FROM {self._table} "
            f"WHERE {' AND '.join(conditions)} ORDER BY {self._key}"
        )
        with self._ending(), closing(self._connection.cursor()) as cursor:
            cursor.execute(statement, values)
            while rows := cursor.fetchmany(ROWS):
                for key, *row in rows:
                    yield key, self._record(row)

    def commit(self, state: State) -> None:
        """Makes all that was written since the last commit last, with how far it leads.

        Raises NotTheOnly, and writes nothing, if another has written the replica meanwhile.
        """
        self._begin()
        self._run(
            f"UPDATE {STATES} SET cursor = {self._mark}, view_id = {self._mark} "
            f"WHERE name = {self._mark}",
            [state.cursor, state.view, self._name],
        )
        self._connection.commit()
        self._state = state

    def rollback(self) -> None:
        """Forgets what was written since the last commit."""
        self._connection.rollback()
        self._open = False
    def _begin(self) -> None:
        ...
