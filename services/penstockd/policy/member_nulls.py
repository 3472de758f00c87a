"""Adds members that are masked to null to lists and maps of messages, in SQL (see
``catalog.member_nulls``)."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import ColumnElement, case, cast, func, literal_column, null, select
from sqlalchemy.dialects.postgresql import JSONB

from penstockd.catalog.member_nulls import NullItems, NullMembers


def fill_nulls(items: NullItems, value: ColumnElement[Any]) -> ColumnElement[Any]:
    """The jsonb value of a list or map with these members; NULL stays NULL."""
    if items.is_map:
        pairs = func.jsonb_each(value).table_valued("key", "value").render_derived()
        held = _fill_message(items.message, cast(pairs.c.value, JSONB))
        made = func.jsonb_object_agg(pairs.c.key, held)
        found = select(func.coalesce(made, _write_json({}))).select_from(pairs)
    else:
        item = func.jsonb_array_elements(value, type_=JSONB()).column_valued()
        elements = select(_fill_message(items.message, item))
        # ARRAY keeps the order in which the elements come.
        found = select(func.to_jsonb(func.array(elements.scalar_subquery())))
    return case((value.is_not(None), found.scalar_subquery()), else_=cast(null(), JSONB))


def _fill_message(members: NullMembers, value: ColumnElement[Any]) -> ColumnElement[Any]:
    left = value
    if members.names:
        left = _join_objects(left, _write_json(dict.fromkeys(members.names)))
    for name, inner in members.nested.items():
        held = _read_member(value, name)
        left = _replace_member(left, name, held, _fill_message(inner, held))
    for name, items in members.many.items():
        held = _read_member(value, name)
        left = _replace_member(left, name, held, fill_nulls(items, held))
    return left


def _read_member(value: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return value.op("->", return_type=JSONB())(_write_name(name))


def _replace_member(
    left: ColumnElement[Any], name: str, held: ColumnElement[Any], filled: ColumnElement[Any]
) -> ColumnElement[Any]:
    """The object with ``filled`` as a member, if it has the member."""
    made = func.jsonb_build_object(_write_name(name), filled, type_=JSONB())
    return _join_objects(left, case((held.is_not(None), made), else_=_write_json({})))


def _join_objects(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    joined: ColumnElement[Any] = one.op("||", return_type=JSONB())(other)
    return joined


def _write_json(data: Any) -> ColumnElement[Any]:
    return literal_column(f"{_quote_text(json.dumps(data))}::jsonb", JSONB())


def _write_name(name: str) -> ColumnElement[Any]:
    return literal_column(f"{_quote_text(name)}::text")


def _quote_text(text: str) -> str:
    """A text of the model as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
