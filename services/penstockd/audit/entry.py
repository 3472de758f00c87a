"""What one call did, as the audit keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.store.database import Connection


@dataclass(slots=True)
class Entry:
    """One call. ``outcome`` is "OK" or the reason of the error (``ErrorReason``).

    ``query`` holds filter, fields, order, format and limit as the caller gave them; ``row_count``
    is None where it is not known before the first byte leaves (see ``hub.receipt``).
    """

    request_id: str
    method: str
    policy_revision: int = 0
    trace_id: str | None = None
    consumer_id: str | None = None
    credential_id: str | None = None
    dataset: str | None = None
    record_key: str | None = None
    query: str | None = None
    row_count: int | None = None
    outcome: str = "OK"
    peer: str | None = None


_COLUMNS = (
    ("request_id", "text"),
    ("trace_id", "text"),
    ("consumer_id", "text"),
    ("credential_id", "text"),
    ("policy_revision", "bigint"),
    ("method", "text"),
    ("dataset", "text"),
    ("record_key", "text"),
    ("query", "jsonb"),
    ("row_count", "bigint"),
    ("outcome", "text"),
    ("peer", "text"),
)
_INSERT = (
    f"INSERT INTO hub.audit_entry ({', '.join(name for name, _ in _COLUMNS)}) "
    f"SELECT * FROM unnest({', '.join(f'${i}::{t}[]' for i, (_, t) in enumerate(_COLUMNS, 1))})"
)


async def insert_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries in the connection's transaction, or as one of their own."""
    columns: list[list[Any]] = [[getattr(e, name) for e in entries] for name, _ in _COLUMNS]
    await connection.execute(_INSERT, *columns)
