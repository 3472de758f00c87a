"""Masks in SQL, so that a masked value never leaves the database, filtered or sorted or not; and
the same in Python, for records that come from the change log.
"""

from __future__ import annotations

import hashlib
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


def fits(field: Field, mask: Mask) -> bool:
    """Whether a field of this kind can carry the mask."""
    return mask not in TEXT_MASKS or field.kind is Kind.STRING


def masked(field: Field, column: ColumnElement[Any], mask: Mask, key: bytes) -> ColumnElement[Any]:
    """The expression a reader gets of a column. ``key`` keys the hashes; it is a bind parameter."""
    if mask is Mask.CLEAR:
        return column
    if mask is Mask.NULL:
        return cast(null(), column.type)
    if mask is Mask.HASH:
        salted = literal(key, LargeBinary()).op("||")(func.convert_to(column, "UTF8"))
        return func.encode(func.sha256(salted), "hex").collate("C")
    assert mask is Mask.PARTIAL, "a hidden field has no expression"
    tail = case((func.strpos(column, _AT) > 0, func.substr(column, func.strpos(column, _AT))))
    shown = func.left(column, literal_column("1")).op("||")(literal_column("'***'"))
    return shown.op("||")(func.coalesce(tail, literal_column("''"))).collate("C")


def masking(mask: Mask, key: bytes) -> Callable[[str], str]:
    """What ``masked`` makes of a text that is not NULL, under one of TEXT_MASKS."""
    if mask is Mask.HASH:
        salted = hashlib.sha256(key)

        def digest(text: str) -> str:
            one = salted.copy()
            one.update(text.encode())
            return one.hexdigest()

        return digest
    assert mask is Mask.PARTIAL, "other masks make no text of a text"

    def partial(text: str) -> str:
        at = text.find("@")
        return f"{text[:1]}***{text[at:] if at >= 0 else ''}"

    return partial
