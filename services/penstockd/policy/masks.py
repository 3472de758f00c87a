"""Masks in SQL, so that a masked value never leaves the database, not even to filter or sort; and
the same in Python, for records from the change log."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
)

from penstockd.catalog import Field, Kind
from penstockd.policy.model import Mask

#: Masks that turn a value into text, and so fit only fields that hold text.
TEXT_MASKS = frozenset({Mask.PARTIAL, Mask.HASH})

_AT: ColumnElement[str] = literal_column("'@'")
_STARS: ColumnElement[str] = literal_column("'***'")
_BLOCK = 64  # bytes, of SHA-256
#: The syntax of an e-mail address, which PostgreSQL and Python share. In any other text it is
#: unknown which part is safe to show.
_ADDRESS = "[A-Za-z0-9.!#&*+/=?^_~-]+@[A-Za-z0-9-]+([.][A-Za-z0-9-]+)*"
_IS_ADDRESS = re.compile(_ADDRESS).fullmatch


def fits_mask(field: Field, mask: Mask) -> bool:
    """Whether a field of this kind can carry the mask."""
    return mask not in TEXT_MASKS or field.kind is Kind.STRING


def mask_column(
    field: Field, column: ColumnElement[Any], mask: Mask, key: bytes
) -> ColumnElement[Any]:
    """The expression that masks a column. ``key`` keys the hashes; it is a bind parameter."""
    if mask is Mask.CLEAR:
        return column
    if mask is Mask.NULL:
        return cast(null(), column.type)
    if mask is Mask.HASH:
        inner, outer = (literal(pad, LargeBinary()) for pad in _hmac_pads(key))
        within = func.sha256(inner.op("||")(func.convert_to(column, "UTF8")))
        return func.encode(func.sha256(outer.op("||")(within)), "hex").collate("C")
    assert mask is Mask.PARTIAL, "a hidden field has no expression"
    domain = func.substr(column, func.strpos(column, _AT))
    shown = func.left(column, literal_column("1")).op("||")(_STARS).op("||")(domain)
    address = column.op("~", is_comparison=True)(literal_column(f"'^({_ADDRESS})$'"))
    return case((address, shown), (column.is_not(None), _STARS)).collate("C")


def make_mask(mask: Mask, key: bytes) -> Callable[[str], str]:
    """A function that does to a text what ``mask_column`` does in SQL, for one of TEXT_MASKS."""
    if mask is Mask.HASH:
        keyed = hmac.new(key, digestmod=hashlib.sha256)

        def digest(text: str) -> str:
            one = keyed.copy()
            one.update(text.encode())
            return one.hexdigest()

        return digest
    assert mask is Mask.PARTIAL, "other masks make no text of a text"

    def partial(text: str) -> str:
        if not _IS_ADDRESS(text):
            return "***"
        return f"{text[:1]}***{text[text.index('@') :]}"

    return partial


def _hmac_pads(key: bytes) -> tuple[bytes, bytes]:
    """The pads that HMAC-SHA-256 puts before the text and before the inner digest, since PostgreSQL
    has only SHA-256."""
    assert len(key) <= _BLOCK, "a longer key would be hashed first"
    padded = key.ljust(_BLOCK, b"\0")
    return bytes(b ^ 0x36 for b in padded), bytes(b ^ 0x5C for b in padded)
