"""Cursors: a place in the change log, the same for exports, feeds and everything else.

Log numbers are assigned after commit. A snapshot may therefore see transactions that have no number
yet; a cursor names them, so that reading on from it does not return them a second time::

    export at C  +  the changes after C up to D  =  export at D

For a reader who sees records by what they refer to, one transaction may cause more events than fit
in one answer. A cursor may therefore stand in the middle of them.

A stream that begins with all records takes time. A cursor of it may therefore cover only the first
records, in order of dataset and key; only streams continue from such a cursor.

A database can go back in time: a lagging standby takes over, or a backup is restored. It then
assigns numbers again that it assigned before, to other changes. So each numbering of a transaction
draws a random mark, and a cursor carries the mark at its number. Numbering the same transaction
again, perhaps after others, draws another mark. A transaction that has no number yet has the mark
with which it was written. Reading on from a cursor checks its marks (``check_place``): cursors into
undone changes are refused for ever, and earlier ones stay valid.

The store keeps a cursor as base64url of a version byte, the fields and a checksum. Its numbers
count changes that its reader cannot see, so ``store.places`` seals it before it goes out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from penstockd.catalog.varint import encode_varint
from penstockd.errors import CursorExpired, CursorInvalid, DatabaseUnavailable
from penstockd.store.database import Connection
from penstockd.store.log import LOG, Change, Log, read_changes

#: The most transactions without a number that a cursor names.
MAX_SKIPPED = 100
#: The version byte says whether the cursor stands in the middle of a transaction's events, or of a
#: snapshot. (5 is the first byte of sealed texts; 6 was a snapshot that did not name its datasets.)
_VERSION, _WITHIN, _PARTIAL = b"\x03", b"\x04", b"\x07"
#: Versions from before marks existed.
_OLD_VERSION, _OLD_WITHIN = b"\x01", b"\x02"
_VERSIONS = (_VERSION, _WITHIN, _PARTIAL, _OLD_VERSION, _OLD_WITHIN)
_MAX_TEXT = 4096
_CHECKSUM = 4
_MARK = 8
_SCOPE = 16
#: Numbers of the log and revisions of transactions are below this.
_MAX_NUMBER = 2**63
#: Tells a client, in the metadata of an error, how to repair its data.
REPAIR = {"reconcile": "REPAIR"}
BROKEN = "the cursor is not one that was given here"
_UNDONE = (
    "the cursor is of a state of the database that was undone, as by a failover or a restore:"
    " repair what you have, or read everything again"
)
_UNMARKED = (
    "the cursor is of an earlier version of the hub, and cannot be checked:"
    " repair what you have, or read everything again"
)
#: The one message for every fault of an unsealed cursor, so that forging one reveals nothing.
UNSEALED = (
    "the cursor is of an earlier version of the hub, and cannot be continued:"
    " repair what you have, or read everything again"
)
_FOREIGN = "the cursor is of another database: repair what you have, or read everything again"
_EXPIRED = "the changes after this cursor are no longer kept: repair what you have, or start again"


class Ahead(NamedTuple):
    """A transaction without a number, by its revision and the mark with which it was written."""

    revision: int
    mark: bytes


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to ``number``, and the transactions ``ahead`` of it, ascending.

    ``epoch`` is that of the log: a recreated database has another one. With ``told``, a dataset and
    a key, the cursor also covers the change after ``number``, which ends its transaction, and the
    resulting events up to that record. With ``last``, a dataset and a key, it covers only the
    records up to that one, in order of dataset and key: a stream has not sent the rest of its
    snapshot of the datasets whose ``scope`` it has (see ``scope_of``). ``mark`` is that of the
    transaction that has the number ``end``. It is empty in
    cursors of earlier versions and in those made only for comparison, which never go out.
    ``unsealed`` means that the cursor arrived in the form that the store keeps.
    """

    epoch: str
    number: int
    ahead: tuple[Ahead, ...] = ()
    told: tuple[str, str] | None = None
    mark: bytes = b""
    last: tuple[str, str] | None = None
    scope: bytes = b""
    unsealed: bool = field(default=False, compare=False)

    @property
    def place(self) -> tuple[int, tuple[str, str]]:
        """Orders the cursors of one log."""
        return self.number, self.told or ("", "")

    @property
    def end(self) -> int:
        """The number of the last change that it covers, fully or in part."""
        return self.number if self.told is None else self.number + 1

    def __str__(self) -> str:
        raise TypeError("a cursor is kept as .stored, and goes out as Places.seal makes it")

    @property
    def stored(self) -> str:
        """The text that the store keeps; clients get the text of ``Places.seal``."""
        return _encode_text(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The serialised cursor, with its checksum."""
        epoch = self.epoch.encode()
        names = [*(self.last or ()), *(self.told or ())]
        texts = [text for name in names for text in _prefix_size(name)]
        version = _VERSION if self.told is None else _WITHIN
        if not self.mark:
            version = _OLD_VERSION if self.told is None else _OLD_WITHIN
        if self.last is not None:
            assert self.mark, "no snapshot is of an earlier version"
            assert len(self.scope) == _SCOPE, "a place in a snapshot is one in some datasets"
            version = _PARTIAL + encode_varint(len(names)) + self.scope
        head = (version, encode_varint(self.number), encode_varint(len(epoch)), epoch, self.mark)
        steps = itertools.pairwise((0, *(t.revision for t in self.ahead)))
        ahead = [encode_varint(b - a) + t.mark for (a, b), t in zip(steps, self.ahead, strict=True)]
        data = b"".join((*head, *texts, *ahead))
        return data + zlib.crc32(data).to_bytes(_CHECKSUM)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Parse a cursor that the store keeps as text. Raises CursorInvalid."""
        cursor = cls.of_bytes(_decode_text(text))
        if cursor.stored != text:  # one cursor, one spelling
            raise CursorInvalid(BROKEN)
        return cursor

    @classmethod
    def of_bytes(cls, data: bytes) -> Cursor:
        """Parse a serialised cursor. Raises CursorInvalid."""
        version, data = _check_cursor(data)
        numbers = _Numbers(data)
        count, scope = 2 if version in (_WITHIN, _OLD_WITHIN) else 0, b""
        if version == _PARTIAL:
            count, scope = numbers.take(), numbers.bytes(_SCOPE)
        number = numbers.take()
        epoch = numbers.bytes(numbers.take())
        old = version in (_OLD_VERSION, _OLD_WITHIN)
        mark = b"" if old else numbers.bytes(_MARK)
        if count not in ((2, 4) if version == _PARTIAL else (0, 2)):
            raise CursorInvalid(BROKEN)
        names = [numbers.bytes(numbers.take()) for _ in range(count)]
        if old and numbers.left:  # it names transactions by ids that no longer exist
            raise CursorInvalid(_UNMARKED, metadata=REPAIR)
        ahead, revision = [], 0
        while numbers.left:
            revision += numbers.take()
            ahead.append(Ahead(revision, numbers.bytes(_MARK)))
        if number >= _MAX_NUMBER or revision >= _MAX_NUMBER:
            raise CursorInvalid(BROKEN)
        try:
            pairs = _pair_up([name.decode() for name in names])
            last = next(pairs, None) if version == _PARTIAL else None
            told = next(pairs, None)
            return cls(epoch.decode(), number, tuple(ahead), told, mark, last, scope)
        except UnicodeDecodeError:
            raise CursorInvalid(BROKEN) from None


def scope_of(datasets: Iterable[str]) -> bytes:
    """What a place in a snapshot keeps of the datasets that the snapshot has."""
    names = sorted(datasets)
    text = b"".join(part for name in names for part in _prefix_size(name))
    return hashlib.sha256(text).digest()[:_SCOPE]


def leave_snapshot(cursor: Cursor) -> Cursor:
    """The place in the log of a cursor that may be in a snapshot."""
    return replace(cursor, last=None, scope=b"")


@dataclass(frozen=True, slots=True)
class Extent:
    """The part of the log that is kept: the changes after ``oldest``, the first of them committed
    at ``since``, up to ``newest``."""

    oldest: Cursor
    newest: Cursor
    since: datetime | None


async def read_extent(connection: Connection) -> Extent:
    """Read the current extent of the log."""
    row = await connection.fetchrow(
        f"SELECT {LOG}, (SELECT stamp_time FROM hub.log_transaction"
        " WHERE last_number > oldest_number ORDER BY last_number LIMIT 1) FROM hub.log_head"
    )
    assert row is not None, "the migrations have put one row there"
    *columns, since = row
    log = Log(*columns)
    return Extent(oldest_cursor(log), newest_cursor(log), since)


def newest_cursor(log: Log) -> Cursor:
    """The place after all changes that have a number."""
    return Cursor(log.epoch, log.head, mark=log.head_mark)


def oldest_cursor(log: Log) -> Cursor:
    """The place before the oldest kept change."""
    return Cursor(log.epoch, log.oldest, mark=log.oldest_mark)


async def cursor_at(connection: Connection, number: int) -> Cursor:
    """The place after the change with a number. Raises CursorExpired, and CursorInvalid if there is
    no such number."""
    log, mark = await _read_log(connection, number)
    if number > log.head:
        raise CursorInvalid(_UNDONE, metadata=REPAIR)
    if mark is None:
        raise _cursor_expired(log)
    return Cursor(log.epoch, number, mark=mark)


async def read_marks(connection: Connection, transactions: Sequence[int]) -> Mapping[int, bytes]:
    """The marks of the transactions whose last changes have these numbers, as far as they are
    kept."""
    rows = await connection.fetch(
        "SELECT last_number, mark FROM hub.log_transaction WHERE last_number = ANY ($1::bigint[])",
        sorted(set(transactions)),
    )
    return {row[0]: row[1] for row in rows}


async def check_cursor(connection: Connection, cursor: Cursor) -> Log:
    """Check that the log can be read from the cursor on; returns the log. Raises as
    ``check_place``."""
    log, mark = await _read_log(connection, cursor.end)
    check_place(cursor, log, mark)
    await find_numbered(connection, cursor)
    return log


async def _read_log(connection: Connection, number: int) -> tuple[Log, bytes | None]:
    """The log, and the mark at a number, or None if the log has no such number."""
    row = await connection.fetchrow(f"SELECT {LOG}, hub.mark_at($1) FROM hub.log_head", number)
    assert row is not None, "the migrations have put one row there"
    *columns, mark = row
    return Log(*columns), mark


def check_place(cursor: Cursor, log: Log, mark: bytes | None) -> None:
    """Check that the log can be read from the cursor on. ``mark`` is the log's own mark where the
    cursor ends, None if the log has no such number.

    Raises CursorInvalid if the cursor is of another database or of a state that was undone, and
    CursorExpired. The error for an unsealed cursor does not reveal which check failed.
    """
    try:
        _check_place(cursor, log, mark)
    except (CursorInvalid, CursorExpired):
        if cursor.unsealed:
            raise CursorInvalid(UNSEALED, metadata=REPAIR) from None
        raise


def _check_place(cursor: Cursor, log: Log, mark: bytes | None) -> None:
    if cursor.epoch != log.epoch:
        raise CursorInvalid(_FOREIGN, metadata=REPAIR)
    if cursor.end > log.head:
        raise CursorInvalid(_UNDONE, metadata=REPAIR)
    if not cursor.mark and cursor.end > log.marked_after:
        raise CursorInvalid(_UNMARKED, metadata=REPAIR)
    if cursor.number < log.oldest:
        raise _cursor_expired(log)
    if cursor.mark and cursor.mark != mark:
        raise CursorInvalid(_UNDONE, metadata=REPAIR)


def _cursor_expired(log: Log) -> CursorExpired:
    return CursorExpired(_EXPIRED, places={"oldest": oldest_cursor(log)})


async def current_cursor(connection: Connection) -> Cursor | None:
    """The place in the log of what the connection's transaction sees; it must see a single state.

    None if it sees more than MAX_SKIPPED transactions that have no number yet.
    """
    head = await connection.fetchrow("SELECT epoch, last_number, mark FROM hub.log_head")
    assert head is not None, "the migrations have put one row there"
    rows = await connection.fetch(
        "SELECT revision, mark FROM hub.pending ORDER BY revision LIMIT $1", MAX_SKIPPED + 1
    )
    if len(rows) > MAX_SKIPPED:
        return None
    ahead = tuple(Ahead(*row) for row in rows)
    return Cursor(head["epoch"], head["last_number"], ahead, mark=head["mark"])


async def read_after(
    connection: Connection, cursor: Cursor, limit: int
) -> tuple[Sequence[Change], Cursor]:
    """At most ``limit`` changes after a cursor, and the cursor after the last of them.

    Fewer changes, even none, do not mean the end: everything has been read when the new cursor
    equals the old one. Raises CursorInvalid and CursorExpired.
    """
    await check_cursor(connection, cursor)
    changes = await read_changes(connection, cursor.number, limit)
    if not changes:
        return (), cursor
    # Queried after reading the changes, so any transaction numbered there is numbered here.
    places = await find_numbered(connection, cursor)
    last = await cursor_at(connection, changes[-1].number)
    seen = set(places.values())
    fresh = [c for c in changes if c.transaction not in seen]
    return fresh, replace(last, ahead=still_ahead(cursor, places, last.number))


async def place_snapshot(connection: Connection, tries: int = 5) -> Cursor:
    """Begin a read-only transaction that sees a single state; returns its cursor.

    The transaction is left open. If it sees too many transactions without a number, they are
    numbered and it begins again. Raises DatabaseUnavailable after ``tries`` attempts.
    """
    for _ in range(tries):
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if (cursor := await current_cursor(connection)) is not None:
            return cursor
        await connection.execute("ROLLBACK")
        await connection.execute("SELECT hub.stamp()")
    raise DatabaseUnavailable("the change log has fallen behind: nothing numbers it")


async def find_numbered(connection: Connection, cursor: Cursor) -> dict[Ahead, int]:
    """The last numbers of those transactions ahead of a cursor that have since been numbered.

    Raises CursorInvalid if one of them no longer exists: what the cursor's snapshot saw was undone.
    """
    if not cursor.ahead:
        return {}
    rows = await connection.fetch(_AHEAD, cursor.number, [t.revision for t in cursor.ahead])
    found = {Ahead(row[0], row[1]): row[2] for row in rows}
    if not found.keys() >= set(cursor.ahead):
        raise CursorInvalid(UNSEALED if cursor.unsealed else _UNDONE, metadata=REPAIR)
    return {t: found[t] for t in cursor.ahead if found[t] is not None}


def still_ahead(cursor: Cursor, places: Mapping[Ahead, int], number: int) -> tuple[Ahead, ...]:
    """The transactions ahead of a cursor that are also ahead of a later number."""
    return tuple(t for t in cursor.ahead if t not in places or places[t] > number)


#: Rows of before marks were drawn at numbering have one mark for both.
_AHEAD = """
SELECT revision, coalesce(written_mark, mark), last_number FROM hub.log_transaction
WHERE last_number > $1 AND revision = ANY ($2::bigint[])
UNION ALL SELECT revision, mark, NULL FROM hub.pending WHERE revision = ANY ($2::bigint[])
"""


class _Numbers:
    """Reads the fields of a serialised cursor. Raises CursorInvalid at the end of the bytes."""

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
            raise CursorInvalid(BROKEN)
        self._at += size
        return self._data[self._at - size : self._at]

    @property
    def left(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)


def _pair_up(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names as pairs of a dataset and a key."""
    return zip(names[::2], names[1::2], strict=True)


def _prefix_size(text: str) -> tuple[bytes, bytes]:
    """A text preceded by its length."""
    data = text.encode()
    return encode_varint(len(data)), data


def _decode_text(text: str) -> bytes:
    """Decode a base64url text. Raises CursorInvalid."""
    if len(text) > _MAX_TEXT or not text.isascii():
        raise CursorInvalid(BROKEN)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CursorInvalid(BROKEN) from None


def _check_cursor(data: bytes) -> tuple[bytes, bytes]:
    """The version and the fields of a serialised cursor, after verifying its checksum."""
    data, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if data[:1] not in _VERSIONS or zlib.crc32(data).to_bytes(_CHECKSUM) != checksum:
        raise CursorInvalid(BROKEN)
    return data[:1], data[1:]


def _encode_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
