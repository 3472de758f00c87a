"""Places in the log as readers see them, sealed so that they do not reveal hidden changes.

A cursor holds log numbers, which count all changes. So it goes out sealed (AES-SIV, RFC 5297) under
a key derived from a root secret: the same cursor is the same text for every reader and from every
process, and only the hub can read or make one. What remains visible: equal texts reveal that
nothing at all was written between them, and a long text that much was being written when it was
made.

Sealing keys succeed one another. Each seals from its time on until the next takes over, and opens
for as long as the log is kept after that; by then no cursor that it sealed is still readable
anyway. Keys are numbered, and derived from their numbers: the store holds only when each began to
seal, and which root secret it comes from.

Cursors issued before sealing existed are in the form in which the store keeps them
(``Cursor.stored``). They are accepted while the first key opens, up to the log's number when that
key began. Forging one requires the random mark of its transaction, which only a cursor reveals. All
invalid ones are refused in the same words (``check_place``), so trying numbers reveals nothing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from penstockd.errors import CursorInvalid
from penstockd.keyring import CURSORS, SEQUENCES, KeyRing, SecretMismatch
from penstockd.store.cursor import BROKEN, REPAIR, UNSEALED, Cursor
from penstockd.store.database import Connection
from penstockd.store.sequences import Sequences

#: The first byte of a sealed text; unsealed cursors have another one.
_VERSION = b"\x05"
#: Plaintexts are padded to one of these lengths, or to a multiple of the last.
_LENGTHS = (64, 256, 1024)
_MAX_TEXT = 8192
#: Sealed texts that are cached, so that sending one cursor to many readers seals it once.
_KEPT = 1024
#: How long before it begins to seal a key is announced, in seconds.
ANNOUNCE_AHEAD = 60
_RETIRED = (
    "the cursor was sealed under a key that is no longer kept: repair what you have, or read all"
    " anew"
)
_IN_SNAPSHOT = (
    "the cursor is of a stream that has not sent all records yet: only a stream continues from it"
)
#: The kind of a text, authenticated so that no kind is accepted as another.
_CURSOR, _LEASE = b"cursor", b"lease"


@dataclass(frozen=True, slots=True)
class CursorKey:
    """A sealing key: its number, seal time (Unix seconds), the log's number when it was made, and
    the root secret that it comes from, "" for the original one."""

    number: int
    seal_time: float
    log_number: int
    secret_id: str = ""


class Places:
    """Seals and opens cursors, and provides the ``sequences`` of log numbers.

    ``hours`` is how long the log is kept. There are no keys until the first ``read``. ``revision``
    and ``read`` are for ``policy.Policy``, which follows keys.
    """

    def __init__(self, ring: KeyRing, hours: float, clock: Callable[[], float] = time.time) -> None:
        self.revision = 0
        self._ring, self._seconds, self._clock = ring, hours * 3600, clock
        self._keys: Mapping[int, CursorKey] = {}
        self._aead = lru_cache(maxsize=512)(self._make_aead)
        self._text = lru_cache(maxsize=_KEPT)(self._seal_cursor)

    @cached_property
    def sequences(self) -> Sequences:
        """The log's numbers as readers see them. Not to be used before the first ``read``."""
        return Sequences(self._ring.lasting(SEQUENCES))

    async def read(self, connection: Connection) -> None:
        """Load the keys."""
        revision = await connection.fetchval("SELECT revision FROM hub.trust")
        self.use(await load_cursor_keys(connection))
        self.revision = revision

    def use(self, keys: Sequence[CursorKey]) -> None:
        """Use exactly these keys; the last one has no end."""
        self._keys = {key.number: key for key in keys}

    def seal(self, cursor: Cursor) -> str:
        """The text of a cursor for readers."""
        return self._text(self._sealing(), cursor)

    def open(self, text: str) -> Cursor:
        """The cursor that a reader's text stands for, not inside a snapshot. Raises
        CursorInvalid."""
        cursor = self.open_start(text)
        if cursor.last is not None:
            raise CursorInvalid(_IN_SNAPSHOT)
        return cursor

    def open_start(self, text: str) -> Cursor:
        """The same for a stream, which also continues in the middle of a snapshot."""
        data = _decode_text(text)
        if data[:1] != _VERSION:
            return self._unsealed(text)
        return Cursor.of_bytes(self._open_sealed(data, _CURSOR))

    def seal_lease(self, lease_id: str) -> str:
        """The text of a lease for its holder, sealed because its id contains a log number."""
        return self._sealed(self._sealing(), lease_id.encode(), _LEASE)

    def open_lease(self, text: str) -> str:
        """The id of the lease that a reader's text names. Raises CursorInvalid."""
        return self._open_sealed(_decode_text(text), _LEASE).decode()

    def _sealing(self) -> int:
        """The number of the key that seals now: of those whose root secret is known, since an
        earlier one may have been taken away while its key still seals."""
        now = self._clock()
        usable = [n for n, k in self._keys.items() if self._ring.find(k.secret_id) is not None]
        begun = [n for n in usable if self._keys[n].seal_time <= now]
        return max(begun, default=min(usable or self._keys))

    def _opens(self, number: int) -> bool:
        """Whether a key still opens: the next one has not sealed for as long as the log is kept."""
        following = self._keys.get(number + 1)
        return following is None or self._clock() < following.seal_time + self._seconds

    def _unsealed(self, text: str) -> Cursor:
        cursor = Cursor.parse(text)
        first = self._keys.get(1)
        known = first is not None and self._opens(1) and cursor.end <= first.log_number
        known = known and cursor.last is None
        if not known or not any(cursor.mark):  # an all-zero mark can be guessed
            raise CursorInvalid(UNSEALED, metadata=REPAIR)
        return replace(cursor, unsealed=True)

    def _seal_cursor(self, number: int, cursor: Cursor) -> str:
        return self._sealed(number, cursor.to_bytes(), _CURSOR)

    def _sealed(self, number: int, data: bytes, what: bytes) -> str:
        head = _VERSION + bytes([number & 0xFF])
        aead = self._aead(number, self._keys[number].secret_id or self._ring.original)
        sealed = aead.encrypt(_pad_data(data), [head, what])
        return base64.urlsafe_b64encode(head + sealed).decode().rstrip("=")

    def _open_sealed(self, data: bytes, what: bytes) -> bytes:
        head, sealed = data[:2], data[2:]
        if head[:1] != _VERSION or len(head) < 2 or not sealed:
            raise CursorInvalid(BROKEN)
        newest = max(self._keys)
        # Allow for the next key too: another node may know it already.
        number = newest + 1 - (newest + 1 - head[1]) % 256
        filled = b""
        for secret_id in self._secrets_of(number):
            with contextlib.suppress(InvalidTag, ValueError):
                filled = self._aead(number, secret_id).decrypt(sealed, [head, what])
        found, end, _ = filled.rpartition(b"\x80")
        if not end:
            raise CursorInvalid(BROKEN)
        if number <= newest and (number not in self._keys or not self._opens(number)):
            raise CursorInvalid(_RETIRED, metadata=REPAIR)
        return found

    def _secrets_of(self, number: int) -> Sequence[str]:
        """The root secrets that a key may come from: any for the next, which is not known here."""
        key = self._keys.get(number)
        if number <= 0:
            return []
        if key is None:
            return [secret.secret_id for secret in self._ring.opening]
        secret = self._ring.find(key.secret_id)
        if secret is None:
            raise CursorInvalid(_RETIRED, metadata=REPAIR)
        return [secret.secret_id]

    def _make_aead(self, number: int, secret_id: str) -> AESSIV:
        secret = self._ring.find(secret_id)
        if secret is None:
            raise SecretMismatch(f"no key seals cursors: root secret {secret_id} is not known here")
        return AESSIV(secret.derive(f"{CURSORS}/{number}"))


async def load_cursor_keys(connection: Connection) -> Sequence[CursorKey]:
    """All keys of the store, by number."""
    rows = await connection.fetch(
        "SELECT number, extract(epoch FROM seal_time)::float8, log_number, root_secret_id"
        " FROM hub.cursor_key ORDER BY number"
    )
    return [CursorKey(*row) for row in rows]


async def rotate_cursor_key(connection: Connection, *, age: timedelta | None = None) -> int | None:
    """Add a key that seals after ANNOUNCE_AHEAD; returns its number.

    With an ``age``, only if the newest key has sealed for that long, else returns None. A rotation
    already under way is left as it is. The connection must be in a transaction.
    """
    await connection.execute("LOCK TABLE hub.cursor_key IN SHARE ROW EXCLUSIVE MODE")
    row = await connection.fetchrow(
        "SELECT number, seal_time > now(), seal_time <= now() - $1::interval FROM hub.cursor_key"
        " ORDER BY number DESC LIMIT 1",
        age or timedelta(),
    )
    assert row is not None, "the migration has made the first"
    number, waiting, old = row
    if age is not None and not old:
        return None
    if waiting:
        return int(number)
    return await add_cursor_key(connection)


async def add_cursor_key(connection: Connection, secret_id: str | None = None) -> int:
    """Add a key that seals after ANNOUNCE_AHEAD, of a root secret, by default of the newest key's;
    returns its number. The connection must be in a transaction."""
    await connection.execute("LOCK TABLE hub.cursor_key IN SHARE ROW EXCLUSIVE MODE")
    return int(
        await connection.fetchval(
            "INSERT INTO hub.cursor_key (number, seal_time, log_number, root_secret_id)"
            " SELECT number + 1, now() + make_interval(secs => $1), last_number,"
            " coalesce($2, root_secret_id) FROM hub.cursor_key, hub.log_head"
            " ORDER BY number DESC LIMIT 1 RETURNING number",
            float(ANNOUNCE_AHEAD),
            secret_id,
        )
    )


def _pad_data(data: bytes) -> bytes:
    """Pad the data to hide its length: a byte that ends it, then zeros."""
    most = len(data) + 1
    length = next((n for n in _LENGTHS if n >= most), -(-most // _LENGTHS[-1]) * _LENGTHS[-1])
    return data + b"\x80" + bytes(length - most)


def _decode_text(text: str) -> bytes:
    """Decode a text, accepting only its canonical spelling. Raises CursorInvalid."""
    if len(text) > _MAX_TEXT or not text.isascii():
        raise CursorInvalid(BROKEN)
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CursorInvalid(BROKEN) from None
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != text:
        raise CursorInvalid(BROKEN)
    return data
