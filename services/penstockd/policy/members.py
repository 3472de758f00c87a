"""Strips hidden members from lists and maps of messages, and masks others.

It does the same in three forms: in SQL, which rewrites the value before anything else reads it; on
JSON data, for filters in Python; and on protobuf messages, for records of the change log. A member
that is hidden or null is left out, like one that was never set. A message is left out if nothing
remains in it and none of its shown members always has a value.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import ColumnElement, Text, case, cast, func, literal_column, null, select
from sqlalchemy.dialects.postgresql import JSONB

from penstockd.catalog import Field, Kind
from penstockd.policy.masks import TEXT_MASKS, make_mask, mask_column
from penstockd.policy.model import Mask

#: The View's mask for each field and member, and the keys of their hashes.
Masks = Mapping[Field, Mask]
Keys = Callable[[Field], bytes]

_LEFT_OUT = (Mask.NULL, Mask.HIDE)
_PAIRS = 40  # for one jsonb_build_object; PostgreSQL takes 100 arguments


def is_whole(field: Field, masks: Masks) -> bool:
    """Whether a field is shown as stored, with all of its members."""
    return all(masks[f] is Mask.CLEAR for f in field.walk())


class Stripping:
    """Strips the values of a list or map of messages that is not shown whole."""

    def __init__(self, field: Field, masks: Masks, keys: Keys) -> None:
        self._is_map = field.kind is Kind.MAP
        self._message = _MaskedMessage(field.members, len(field.steps), masks, keys)

    def sql(self, value: ColumnElement[Any]) -> ColumnElement[Any]:
        """The jsonb value as the caller gets it; NULL stays NULL."""
        if self._is_map:
            pairs = func.jsonb_each(value).table_valued("key", "value").render_derived()
            held = cast(pairs.c.value, JSONB)
            made = func.jsonb_object_agg(pairs.c.key, self._message.sql(held))
            found = select(func.coalesce(made, _json_literal("'{}'"))).select_from(pairs)
        else:
            item = func.jsonb_array_elements(value, type_=JSONB()).column_valued()
            items = select(self._message.sql(item))
            # ARRAY keeps the order in which the elements come.
            found = select(func.to_jsonb(func.array(items.scalar_subquery())))
        stripped = found.scalar_subquery()
        return case((value.is_not(None), stripped), else_=cast(null(), JSONB))

    def json(self, value: Any) -> Any:
        """The same for canonical JSON data; the argument is not changed."""
        if self._is_map:
            return {key: self._message.json(held) for key, held in value.items()}
        return [self._message.json(held) for held in value]

    def apply(self, value: Any) -> None:
        """The same for a repeated field or map of a protobuf message, in place."""
        for held in value.values() if self._is_map else value:
            self._message.apply(held)


class _MaskedMessage:
    """One message: the members that are dropped, masked, or stripped in turn."""

    def __init__(self, fields: Sequence[Field], depth: int, masks: Masks, keys: Keys) -> None:
        self._dropped: list[tuple[str, str]] = []  # JSON names, proto names
        self._masked: list[tuple[str, str, Field, Mask, bytes]] = []
        self._many: list[tuple[str, str, Stripping]] = []
        self._nested: list[tuple[str, str, _MaskedMessage, bool]] = []
        for name, run in itertools.groupby(fields, lambda f: f.steps[depth]):
            leaves = list(run)
            first, names = leaves[0], (leaves[0].json_steps[depth], name)
            if all(masks[f] in _LEFT_OUT for f in leaves):
                self._dropped.append(names)
            elif all(is_whole(f, masks) for f in leaves):
                continue
            elif len(first.steps) > depth + 1:
                inner = _MaskedMessage(leaves, depth + 1, masks, keys)
                shown = [f for f in leaves if masks[f] not in _LEFT_OUT]
                own = [f for f in shown if len(f.steps) == depth + 2]
                self._nested.append((*names, inner, not any(map(_always_there, own))))
            elif masks[first] in TEXT_MASKS:
                self._masked.append((*names, first, masks[first], keys(first)))
            else:
                self._many.append((*names, Stripping(first, masks, keys)))

    # --- in SQL ----------------------------------------------------------------------------

    def sql(self, value: ColumnElement[Any]) -> ColumnElement[Any]:
        """The stripped jsonb of a message."""
        changed = list(self._changed(value))
        gone = [json_name for json_name, _ in self._dropped] + [name for name, _ in changed]
        left: ColumnElement[Any] = value
        if gone:
            names = ", ".join(map(_quote_literal, gone))
            without: ColumnElement[Any] = literal_column(f"ARRAY[{names}]::text[]")
            left = value.op("-", return_type=JSONB())(without)
        for start in range(0, len(changed), _PAIRS):
            pairs = [
                argument
                for name, made in changed[start : start + _PAIRS]
                for argument in (literal_column(f"{_quote_literal(name)}::text"), made)
            ]
            # Canonical data holds no nulls, so every null that is removed is an absent member.
            made = func.jsonb_strip_nulls(func.jsonb_build_object(*pairs), type_=JSONB())
            left = left.op("||", return_type=JSONB())(made)
        return left

    def _changed(self, value: ColumnElement[Any]) -> Iterator[tuple[str, ColumnElement[Any]]]:
        """The members that change, with their new values; NULL for an absent member."""
        for json_name, _, field, mask, key in self._masked:
            text = _text_of(value, json_name)
            if not field.presence:
                text = func.coalesce(text, literal_column("''"))
            yield json_name, func.to_jsonb(cast(mask_column(field, text, mask, key), Text()))
        for json_name, _, many in self._many:
            yield json_name, many.sql(_member_of(value, json_name))
        for json_name, _, inner, fragile in self._nested:
            held = _member_of(value, json_name)
            left = inner.sql(held)
            yield json_name, func.nullif(left, _json_literal("'{}'")) if fragile else left

    # --- of JSON data ------------------------------------------------------------------------

    def json(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The stripped JSON of a message."""
        left = dict(value)
        for name, _ in self._dropped:
            left.pop(name, None)
        for name, _, field, mask, key in self._masked:
            if name in left or not field.presence:
                left[name] = make_mask(mask, key)(left.get(name, ""))
        for name, _, many in self._many:
            if name in left:
                left[name] = many.json(left[name])
        for name, _, inner, fragile in self._nested:
            if name in left:
                left[name] = inner.json(left[name])
                if fragile and not left[name]:
                    del left[name]
        return left

    # --- of protobuf messages ----------------------------------------------------------------

    def apply(self, message: Message) -> None:
        """Strip a message in place."""
        for _, name in self._dropped:
            message.ClearField(name)
        for _, name, field, mask, key in self._masked:
            if not field.presence or message.HasField(name):
                setattr(message, name, make_mask(mask, key)(getattr(message, name)))
        for _, name, many in self._many:
            many.apply(getattr(message, name))
        for _, name, inner, fragile in self._nested:
            if message.HasField(name):
                held: Any = getattr(message, name)
                inner.apply(held)
                if fragile and not held.ByteSize():
                    message.ClearField(name)


def _always_there(member: Field) -> bool:
    """Whether canonical JSON has a value for a member in every message, even if it is empty."""
    return not member.presence and member.kind not in (Kind.DATE, Kind.TIMESTAMP)


def _member_of(value: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return value.op("->", return_type=JSONB())(literal_column(f"{_quote_literal(name)}::text"))


def _text_of(value: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return value.op("->>", return_type=Text())(literal_column(f"{_quote_literal(name)}::text"))


def _json_literal(text: str) -> ColumnElement[Any]:
    return literal_column(f"{text}::jsonb", JSONB())


def _quote_literal(name: str) -> str:
    """A name of the model as an SQL string literal."""
    return "'" + name.replace("'", "''") + "'"
