"""Cursors: a place in the change log, the same for exports, feeds and whatever else needs one.

The numbers of the log are given after commit. A snapshot may therefore see transactions that have
no number yet; a cursor names them, so that who reads on from it does not get them a second time::

    export at C  +  the changes after C up to D  =  export at D

What follows from a transaction, in the eyes of one who sees records by what they refer to, can be
more than is given out at once. A cursor may stand in the midst of it.

A cursor is written as base64url of a version byte, the fields and a checksum. It is no secret and
is not sealed: whoever forges one reads from another place of what it may read anyway.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from penstockd.catalog.wire import varint
from penstockd.errors import CursorInvalid, DatabaseUnavailable
from penstockd.store.database import Connection
from penstockd.store.log import Change, read_changes

#: The most transactions without a number that a cursor names.
MAX_SKIPPED = 100
#: The version byte says whether the cursor stands in the midst of what follows from a transaction.
_VERSION, _WITHIN = b"\x01", b"\x02"
_MAX_TEXT = 4096
_CHECKSUM = 4
#: Numbers of the log and ids of transactions are below these.
_MAX_NUMBER, _MAX_TRANSACTION = 2**63, 2**64
_BROKEN = "the cursor is not one that was given here"
FOREIGN = "the cursor is of another database; read all anew"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to ``number``, and the transactions ``ahead`` of it (by id, ascending).

    ``epoch`` is that of the log: a database that was made anew has another one. With ``told``, a
    dataset and a key, also the change behind ``number``, which ends its transaction, and of what
    follows from this the events up to that record.
    """

    epoch: str
    number: int
    ahead: tuple[int, ...] = ()
    told: tuple[str, str] | None = None

    @property
    def place(self) -> tuple[int, tuple[str, str]]:
        """Orders the cursors of one log."""
        return self.number, self.told or ("", "")

    @property
    def end(self) -> int:
        """The number of the last change of which it has something."""
        return self.number if self.told is None else self.number + 1

    def __str__(self) -> str:
        """The opaque text that clients get."""
        epoch = self.epoch.encode()
        steps = (b - a for a, b in itertools.pairwise((0, *self.ahead)))
        told = [text for name in self.told or () for text in _sized(name)]
        version = _VERSION if self.told is None else _WITHIN
        head = (version, varint(self.number), varint(len(epoch)), epoch)
        parts = (*head, *told, *map(varint, steps))
        data = b"".join(parts)
        return _text(data + zlib.crc32(data).to_bytes(_CHECKSUM))

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that a text stands for. Raises CursorInvalid."""
        version, data = _opened(text)
        numbers = _Numbers(data)
        number = numbers.take()
        epoch = numbers.bytes(numbers.take())
        within = version == _WITHIN
        told = [numbers.bytes(numbers.take()) for _ in range(2 if within else 0)]
        ahead = tuple(itertools.accumulate(numbers))
        if number >= _MAX_NUMBER or (ahead and ahead[-1] >= _MAX_TRANSACTION):
            raise CursorInvalid(_BROKEN)
        try:
            names = (told[0].decode(), told[1].decode()) if within else None
            cursor = cls(epoch.decode(), number, ahead, names)
        except UnicodeDecodeError:
            raise CursorInvalid(_BROKEN) from None
        if str(cursor) != text:  # one cursor, one spelling
            raise CursorInvalid(_BROKEN)
        return cursor


@dataclass(frozen=True, slots=True)
class Extent:
    """What there is of the log: the changes after ``oldest``, of which the first was committed at
    ``since``, up to ``newest``."""

    oldest: Cursor
    newest: Cursor
    since: datetime | None


async def read_extent(connection: Connection) -> Extent:
    """The extent of the log now."""
    row = await connection.fetchrow(
        "SELECT epoch, oldest_number, last_number, (SELECT stamp_time FROM hub.log_transaction"
        " WHERE last_number > oldest_number ORDER BY last_number LIMIT 1) FROM hub.log_head"
    )
    assert row is not None, "the migrations have put one row there"
    epoch, oldest, newest, since = row
    return Extent(Cursor(epoch, oldest), Cursor(epoch, newest), since)


async def current_cursor(connection: Connection) -> Cursor | None:
    """Where the log stands for the connection's transaction, which must see a single state.

    None if more than MAX_SKIPPED transactions that it sees wait for a number.
    """
    head = await connection.fetchrow("SELECT last_number, epoch FROM hub.log_head")
    assert head is not None, "the migrations have put one row there"
    rows = await connection.fetch(
        "SELECT txid::text::bigint FROM hub.pending ORDER BY txid LIMIT $1", MAX_SKIPPED + 1
    )
    if len(rows) > MAX_SKIPPED:
        return None
    return Cursor(head["epoch"], head["last_number"], tuple(row[0] for row in rows))


async def read_after(
    connection: Connection, cursor: Cursor, limit: int
) -> tuple[Sequence[Change], Cursor]:
    """At most ``limit`` changes after a cursor, and the cursor behind the last of them.

    Fewer may come although there are more, even none: all has been read when the new cursor is the
    old one. Raises CursorInvalid if the cursor is of another database.
    """
    epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
    if epoch != cursor.epoch:
        raise CursorInvalid(FOREIGN)
    changes = await read_changes(connection, cursor.number, limit)
    if not changes:
        return (), cursor
    # Asked after the changes were read: what has a number among them has one here.
    places = await numbered(connection, cursor)
    last = changes[-1].number
    ahead = tuple(t for t in cursor.ahead if t not in places or places[t] > last)
    seen = set(places.values())
    fresh = [c for c in changes if c.transaction not in seen]
    return fresh, replace(cursor, number=last, ahead=ahead, told=None)


async def place_snapshot(connection: Connection, tries: int = 5) -> Cursor:
    """Begin a read-only transaction that sees a single state; returns its cursor.

    The transaction is left open. If it sees too many transactions without a number, they are
    numbered and it begins again. Raises DatabaseUnavailable if nothing numbers them.
    """
    for _ in range(tries):
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if (cursor := await current_cursor(connection)) is not None:
            return cursor
        await connection.execute("ROLLBACK")
        await connection.execute("SELECT hub.stamp()")
    raise DatabaseUnavailable("the change log has fallen behind: nothing numbers it")


async def numbered(connection: Connection, cursor: Cursor) -> dict[int, int]:
    """The last numbers of those transactions ahead of a cursor that have one by now."""
    if not cursor.ahead:
        return {}
    rows = await connection.fetch(
        "SELECT txid::text::bigint, last_number FROM hub.log_transaction"
        " WHERE last_number > $1 AND txid = ANY ($2::text[]::xid8[])",
        cursor.number,
        list(map(str, cursor.ahead)),
    )
    return {row[0]: row[1] for row in rows}


class _Numbers:
    """Takes what a cursor is written with from its bytes. Raises CursorInvalid at their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.bytes(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    def bytes(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise CursorInvalid(_BROKEN)
        self._at += size
        return self._data[self._at - size : self._at]

    def __iter__(self) -> Iterator[int]:
        while self._at < len(self._data):
            yield self.take()


def _sized(text: str) -> tuple[bytes, bytes]:
    """A text behind its length."""
    data = text.encode()
    return varint(len(data)), data


def _opened(text: str) -> tuple[bytes, bytes]:
    """The version and the fields of a cursor's text, its checksum being right."""
    if len(text) > _MAX_TEXT or not text.isascii():
        raise CursorInvalid(_BROKEN)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CursorInvalid(_BROKEN) from None
    data, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    known = data[:1] in (_VERSION, _WITHIN)
    if not known or zlib.crc32(data).to_bytes(_CHECKSUM) != checksum:
        raise CursorInvalid(_BROKEN)
    return data[:1], data[1:]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
