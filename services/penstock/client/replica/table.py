"""The table of a replica, and its position: both change in one transaction.

It uses only DB-API 2.0 (PEP 249) of a connection by sqlite3, psycopg or psycopg2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from penstock.client.replica.columns import Column, TableShape

#: The table that holds the positions of a database's replicas.
STATES = "penstock_replicas"
#: Rows that are read at a time.
ROWS = 1000


@dataclass(frozen=True, slots=True)
class State:
    """The position of a replica: a cursor, and what its caller saw there (``Position.view``)."""

    cursor: str
    view: str


class NotTheOnly(RuntimeError):
    """Something else has changed the replica meanwhile: only one writer may use it."""


class Table:
    """The rows of one replica. Nothing is stored before ``commit``.

    Raises ValueError if the connection is of no known kind or commits by itself, or if a table
    with the name exists that is not a replica of the dataset.
    """

    def __init__(
        self,
        connection: Any,
        dataset: str,
        name: str,
        record_class: type[Message],
        wanted: Sequence[str],
    ) -> None:
        self._connection = connection
        self._sqlite = _is_sqlite(connection)
        self._mark = "?" if self._sqlite else "%s"
        self._dataset, self._name = dataset, name
        self._shape = TableShape(record_class, wanted, sqlite=self._sqlite)
        self._key = _quote_name(self._shape.key)
        self._table = _quote_name(name)
        self._writing = False
        self._prepare()
        #: The replica's position; None: it has not begun.
        self.state = self._read_state()
        self._connection.commit()

    def key_of(self, record: Message) -> str:
        """The key of a record."""
        return self._shape.key_of(record)

    def put(self, records: Iterable[Message]) -> None:
        """Stores records, replacing those with their keys."""
        rows = [self._shape.row(record) for record in records]
        if rows:
            self.begin()
            self._many(self._upsert, rows)

    def remove(self, keys: Iterable[str]) -> None:
        """Deletes records; ignores keys that have none."""
        rows = [(key,) for key in keys]
        if rows:
            self.begin()
            self._many(f"DELETE FROM {self._table} WHERE {self._key} = {self._mark}", rows)

    def clear(self) -> None:
        """Deletes all records."""
        self.begin()
        self._run(f"DELETE FROM {self._table}")

    def count(self) -> int:
        """The number of records."""
        return int(self._run(f"SELECT count(*) FROM {self._table}")[0][0])

    def records(self, start: str = "", end: str = "") -> Iterator[tuple[str, Message | None]]:
        """Keys and records from ``start`` on and before ``end``, in order of their keys as UTF-8.

        "" is no limit. None stands for a row that cannot be a record of the dataset.
        """
        shown = ", ".join(self._read(column) for column in self._shape.columns)
        at, from_ = f"{self._key} >= {self._mark}", [start]
        while True:
            before, limits = at, list(from_)
            if end:
                before, limits = f"{at} AND {self._key} < {self._mark}", [*limits, end]
            rows = self._run(
                f"SELECT {self._key}, {shown} FROM {self._table} WHERE {before} "
                f"ORDER BY {self._key} LIMIT {ROWS}",
                limits,
            )
            for key, *row in rows:
                yield key, self._record(row)
            if len(rows) < ROWS:
                return
            at, from_ = f"{self._key} > {self._mark}", [rows[-1][0]]

    def begin(self) -> None:
        """Begins to write, unless it has begun.

        Raises NotTheOnly if another has written the replica since its last commit here.
        """
        if self._writing:
            return
        if self._sqlite and not self._connection.in_transaction:
            self._run("BEGIN IMMEDIATE")
        self._writing = True
        if self._read_state(" FOR UPDATE" if not self._sqlite else "") != self.state:
            self.rollback()
            raise NotTheOnly(f"something else writes the replica '{self._name}', too")

    def commit(self, state: State) -> None:
        """Commits everything written, together with the position it leads to."""
        self.begin()
        self._run(
            f"UPDATE {STATES} SET cursor = {self._mark}, view_id = {self._mark} "
            f"WHERE name = {self._mark}",
            [state.cursor, state.view, self._name],
        )
        self._connection.commit()
        self._writing = False
        self.state = state

    def rollback(self) -> None:
        """Discards what was written since the last commit, and ends pending reads."""
        self._connection.rollback()
        self._writing = False

    def _prepare(self) -> None:
        self._run(
            f"CREATE TABLE IF NOT EXISTS {STATES} (name text PRIMARY KEY, dataset text NOT NULL, "
            "cursor text NOT NULL, view_id text NOT NULL)"
        )
        mark = self._mark
        found = self._run(f"SELECT dataset FROM {STATES} WHERE name = {mark}", [self._name])
        if found and found[0][0] != self._dataset:
            raise ValueError(f"the table '{self._name}' is a replica of {found[0][0]}")
        if not found:
            self._create()
        else:
            self._add_columns()
        self._connection.commit()

    def _create(self) -> None:
        columns = ", ".join(self._declared(column) for column in self._shape.stored)
        try:
            self._run(f"CREATE TABLE {self._table} ({columns})")
        except Exception as error:
            self._connection.rollback()
            raise ValueError(f"no table '{self._name}' can be made: {error}") from error
        values = [self._name, self._dataset, "", ""]
        self._run(f"INSERT INTO {STATES} VALUES ({', '.join([self._mark] * 4)})", values)

    def _add_columns(self) -> None:
        """Adds columns for new fields; a repair fills them."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(f"SELECT * FROM {self._table} LIMIT 0")
            there = {column[0] for column in cursor.description}
        for column in self._shape.columns:
            if column.name not in there:
                self._run(f"ALTER TABLE {self._table} ADD COLUMN {self._declared(column)}")

    def _declared(self, column: Column) -> str:
        kind = column.kind.sqlite if self._sqlite else column.kind.postgres
        name = f"{_quote_name(column.name)} {kind}"
        if column.name != self._shape.key:
            return name
        return f"{name} NOT NULL PRIMARY KEY" if self._sqlite else f'{name} COLLATE "C" PRIMARY KEY'

    @property
    def _upsert(self) -> str:
        columns = self._shape.stored
        values = (self._mark if self._sqlite else c.kind.write.format(self._mark) for c in columns)
        names = [_quote_name(c.name) for c in columns]
        others = [f"{n} = excluded.{n}" for n in names if n != self._key]
        update = f"UPDATE SET {', '.join(others)}" if others else "NOTHING"
        return (
            f"INSERT INTO {self._table} ({', '.join(names)}) VALUES ({', '.join(values)}) "
            f"ON CONFLICT ({self._key}) DO {update}"
        )

    def _read(self, column: Column) -> str:
        name = _quote_name(column.name)
        return name if self._sqlite else column.kind.read.format(name)

    def _record(self, row: Sequence[Any]) -> Message | None:
        try:
            return self._shape.record(row)
        except ValueError:
            return None  # somebody has written to the table: the row differs from every record

    def _read_state(self, lock: str = "") -> State | None:
        statement = f"SELECT cursor, view_id FROM {STATES} WHERE name = {self._mark}{lock}"
        found = self._run(statement, [self._name])
        return State(*found[0]) if found and found[0][0] else None

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(statement, tuple(values))
            return list(cursor.fetchall()) if cursor.description else []

    def _many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with closing(self._connection.cursor()) as cursor:
            cursor.executemany(statement, rows)


def _is_sqlite(connection: Any) -> bool:
    driver = type(connection).__module__.partition(".")[0]
    if driver == "sqlite3":
        if getattr(connection, "autocommit", False) is True:
            raise ValueError("the connection must not commit by itself (autocommit)")
        return True
    if driver not in ("psycopg", "psycopg2"):
        raise ValueError(f"a connection of sqlite3, psycopg or psycopg2 is needed, not of {driver}")
    if connection.autocommit:
        raise ValueError("the connection must not commit by itself (autocommit)")
    return False


def _quote_name(name: str) -> str:
    if "%" in name or "\0" in name:
        raise ValueError(f"'{name}' is not a valid table name")
    return '"' + name.replace('"', '""') + '"'
