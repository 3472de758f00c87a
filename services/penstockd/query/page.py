"""Page tokens: where the next page starts, sealed, and bound to the query they were issued for.

A token is base64url of its payload without padding, sealed with AES-SIV (RFC 5297); the payload is
JSON of the query's digest and of the last row's values in the order's columns, each with its type.
The seal keeps a client from requesting rows by position under another filter or policy, and from
reading the hub's own notes in it, such as the end of its log.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from penstockd.errors import ValueInvalid
from penstockd.keyring import Keys
from penstockd.query.errors import PageTokenError

#: Entries of a page by default, and at most.
DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1000

MAX_BYTES: Final = 4096
_SECRET: Final = 32

_BROKEN: Final = "the page token is not one that was issued here"
_FOREIGN: Final = "the page token belongs to another query"
_LONG: Final = "the sort values of this page are too long for a page token; sort by shorter fields"

_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "i": int,
    "f": float,
    "d": Decimal,
    "D": dt.date.fromisoformat,
    "t": dt.datetime.fromisoformat,
}


def query_digest(*, dataset: str, filter: str, order_by: str, fields: str, scope: str) -> bytes:
    """A query in 16 bytes. ``scope`` names the caller and the policy revision."""
    parts = [p.encode("utf-8", "surrogatepass") for p in (dataset, filter, order_by, fields, scope)]
    lengths = b",".join(b"%d" % len(p) for p in parts)
    return hashlib.sha256(b":".join((lengths, *parts))).digest()[:16]


def page_size(asked: int) -> int:
    """The number of entries of a page: DEFAULT_PAGE if unset, never more than MAX_PAGE.

    Raises ValueInvalid for a negative number.
    """
    if asked < 0:
        raise ValueInvalid.of("page_size", "is negative")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


class PageTokens:
    """Issues and reads page tokens. Workers that share the keys read each other's tokens."""

    def __init__(self, keys: Keys) -> None:
        """Raise ValueError for a key of less than 32 bytes."""
        if any(len(each.key) < _SECRET for each in keys.opening()):
            raise ValueError(f"a page token secret needs {_SECRET} bytes at least")
        self._keys = keys
        self._seal = lru_cache(maxsize=4)(_make_seal)

    def issue(self, query: bytes | str, position: Sequence[Any]) -> str:
        """The token of the page that starts after ``position``: canonical values, as OrderBy's.

        Raises PageTokenError if the values do not fit into a token of 4 KiB, TypeError for a value
        of a type that no order has.
        """
        payload = orjson.dumps([_query_digest(query), [_write_value(v) for v in position]])
        token = _encode_text(self._seal(self._keys.sealing().key).encrypt(payload, None))
        if len(token) > MAX_BYTES:
            raise PageTokenError(_LONG)
        return token

    def read(self, token: str, query: bytes | str) -> tuple[Any, ...]:
        """The position in the token, exactly as it was issued.

        Raises PageTokenError. Its text tells whether the token was not issued with this secret or
        belongs to another query.
        """
        payload = self._open_token(token)
        digest, position = orjson.loads(payload)
        if not hmac.compare_digest(digest.encode(), _query_digest(query).encode()):
            raise PageTokenError(_FOREIGN)
        return tuple(_read_value(v) for v in position)

    def _open_token(self, token: str) -> bytes:
        if len(token) > MAX_BYTES or not token.isascii():
            raise PageTokenError(_BROKEN)
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise PageTokenError(_BROKEN) from None
        # Each token has only one spelling: the bits that base64 leaves unused must be those we
        # wrote.
        if _encode_text(data) != token or not data:
            raise PageTokenError(_BROKEN)
        for each in self._keys.opening():
            with contextlib.suppress(InvalidTag, ValueError):
                return self._seal(each.key).decrypt(data, None)
        raise PageTokenError(_BROKEN)


def _make_seal(key: bytes) -> AESSIV:
    return AESSIV(hashlib.sha512(b"page tokens" + key).digest())


def _encode_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _query_digest(query: bytes | str) -> str:
    return query if isinstance(query, str) else query.hex()


def _write_value(value: Any) -> Any:
    """JSON of a value: a value that JSON cannot represent exactly becomes [type, text]."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return ["i", str(value)]
        case float():
            return ["f", repr(value)]
        case Decimal():
            return ["d", str(value)]
        case dt.datetime() if value.tzinfo is not None:
            return ["t", value.astimezone(dt.UTC).isoformat()]
        case dt.datetime():
            raise TypeError("a time without a zone has no place in a page token")
        case dt.date():
            return ["D", value.isoformat()]
    raise TypeError(f"no order has a value of type {type(value).__name__}")


def _read_value(data: Any) -> Any:
    return _READ[data[0]](data[1]) if isinstance(data, list) else data
