"""Finds what names fields that a new model renames or removes: roles, shapes, subscriptions and
webhooks. Their texts stay as they are, so that they stop working with the change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, text

#: The most users that a step names.
MOST_NAMED = 20

#: By the table: the name of a user, and its texts as JSON. Columns that hold names of fields also
#: hold other words, which are taken for fields if they are equal.
_USERS: Mapping[str, str] = {
    "hub.grant": """
        SELECT 'role ' || role_id, json_build_array(row_filter, field_masks)
        FROM hub.grant WHERE dataset = :dataset
    """,
    "hub.shape": """
        SELECT DISTINCT ON (consumer_id, shape_id)
            'shape ' || shape_id || ' of ' || consumer_id, definition::json
        FROM hub.shape WHERE definition::json->>'dataset' = :dataset
        ORDER BY consumer_id, shape_id, version DESC
    """,
    "hub.subscription": """
        SELECT 'subscription ' || subscription_id || ' of ' || consumer_id,
            json_build_array(filter, fields)
        FROM hub.subscription WHERE :dataset = ANY (datasets)
    """,
    "hub.webhook": """
        SELECT DISTINCT 'webhook ' || w.webhook_id || ' of ' || w.consumer_id,
            jsonb_build_array(s->'filter', s->'fields')
        FROM hub.webhook AS w, jsonb_array_elements(w.selections) AS s
        WHERE s->>'dataset' = :dataset
    """,
}
#: What a shape's column says about fields; its other members are texts of the receiver.
_NAMING = ("field", "expression")


def list_field_users(connection: Connection, dataset: str, paths: Sequence[str]) -> list[str]:
    """The users that name one of the fields at ``paths``, or a field within one, such as
    ``role sales`` or ``webhook wh_1 of crm``."""
    names = [name for path in paths for name in {path, _json_path(path)}]
    # A path that goes on (a.b) names what is within the field; one that precedes (x.a) does not.
    named = re.compile(r"(?<![\w.])(?:" + "|".join(map(re.escape, names)) + r")(?!\w)")
    found: list[str] = []
    for table, sql in _USERS.items():
        if connection.execute(text(f"SELECT to_regclass('{table}') IS NULL")).scalar_one():
            continue  # of a later revision than the store's
        for user, document in connection.execute(text(sql), {"dataset": dataset}):
            data = orjson.loads(document) if isinstance(document, str | bytes) else document
            if any(named.search(part) for part in _list_texts(data)):
                found.append(user)
    return sorted(set(found))


def describe_field_users(users: Sequence[str]) -> str:
    """The end of a step's sentence that names users; "" without any."""
    if not users:
        return ""
    more = f" and {len(users) - MOST_NAMED} more" if len(users) > MOST_NAMED else ""
    return f"; named by {', '.join(users[:MOST_NAMED])}{more}"


def _list_texts(data: Any) -> Iterator[str]:
    """The texts in a user's document that can name fields."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, list):
        for item in data:
            yield from _list_texts(item)
    elif isinstance(data, dict) and isinstance(data.get("columns"), list):  # a shape's definition
        yield from _list_texts((data.get("rows") or {}).get("field"))
        yield from (str(c.get(name, "")) for c in data["columns"] for name in _NAMING)
    elif isinstance(data, dict):  # masks by field
        yield from data


def _json_path(path: str) -> str:
    """The path in proto JSON."""
    return ".".join(re.sub("_([a-z0-9])", lambda m: m[1].upper(), step) for step in path.split("."))
