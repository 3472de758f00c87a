"""A role with narrower access for a while, in a hub that other tests also use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness import RunningHub

_KINDS = {"field_masks": "jsonb", "class_masks": "jsonb", "actions": "text[]"}


@contextlib.contextmanager
def narrowed(hub: RunningHub, **columns: str) -> Iterator[None]:
    """Change the grant of crm on customers while the block runs."""
    where = "role_id = 'crm' AND dataset = 'customers'"

    def change(values: dict[str, str]) -> None:
        for column, value in values.items():
            kind = _KINDS.get(column, "text")
            hub.sql(f"UPDATE hub.grant SET {column} = $1::text::{kind} WHERE {where}", value)
        hub.settle()

    names = ", ".join(f"{c}::text" for c in columns)
    before = hub.sql(f"SELECT {names} FROM hub.grant WHERE {where}")[0]
    change(columns)
    try:
        yield
    finally:
        change(dict(zip(columns, before, strict=True)))
