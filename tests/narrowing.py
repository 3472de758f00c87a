"""A role that may do less for a while, in a hub that other tests use, too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness import RunningHub, eventually

_KINDS = {"field_masks": "jsonb", "class_masks": "jsonb", "actions": "text[]"}


@contextlib.contextmanager
def narrowed(hub: RunningHub, **columns: str) -> Iterator[None]:
    """The grant of crm on customers is changed while the block runs."""
    where = "role_id = 'crm' AND dataset = 'customers'"

    def settled() -> bool:
        wanted = hub.sql("SELECT revision FROM hub.policy")[0][0]
        hub.get("/v1/customers", "crm", page_size=1)
        found = hub.sql(
            "SELECT DISTINCT policy_revision FROM (SELECT policy_revision FROM hub.audit_entry"
            " WHERE consumer_id = 'crm' ORDER BY entry_id DESC LIMIT 6) AS e"
        )
        return found == [(wanted,)]

    def change(values: dict[str, str]) -> None:
        for column, value in values.items():
            kind = _KINDS.get(column, "text")
            hub.sql(f"UPDATE hub.grant SET {column} = $1::text::{kind} WHERE {where}", value)
        eventually(settled)

    names = ", ".join(f"{c}::text" for c in columns)
    before = hub.sql(f"SELECT {names} FROM hub.grant WHERE {where}")[0]
    change(columns)
    try:
        yield
    finally:
        change(dict(zip(columns, before, strict=True)))
