"""Audit entries: what one call did.

An entry can be written for every admitted call: ``audit.bounds`` cuts every text that is too long,
and no index holds a text of unbounded length.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from operator import attrgetter

import asyncpg
import orjson

from penstockd.audit.bounds import KEY_BYTES, QUERY_BYTES, TEXT_BYTES, bounded_json, bounded_text
from penstockd.audit.given import GivenRecords
from penstockd.policy.errors import AllowanceLost
from penstockd.store.database import Connection

#: The approximate bytes of an entry without its keys and its query.
ENTRY_BYTES = 1024

#: The methods of entries that stand for several calls: their queries state the number ("calls").
#: They count refused callers (see ``refusals``), and messages to a webhook.
REFUSALS, DELIVERIES = "/penstock.hub.v1.Auth/CountRefused", "/penstock.hub.v1.Webhooks/Deliver"
COUNTED_METHODS = (REFUSALS, DELIVERIES)
#: The outcome of a stream that the keeper ends, since its worker has died: what the caller gets.
LOST = "HUB_UNAVAILABLE"
#: Outcome and method of an entry that reports another entry that the database did not keep.
SUPPRESSED, AUDIT = "SUPPRESSED", "/penstock.hub.v1.Audit/KeepEntry"


class EntryNotKept(Exception):
    """The database accepted an entry but did not keep it: something suppresses the audit."""


class Phase(enum.StrEnum):
    """What an entry records: a call, some keys of a streamed reply, or the end of one."""

    CALL = "CALL"
    PART = "PART"
    END = "END"


@dataclass(slots=True)
class Entry:
    """One call. ``outcome`` is "OK" or the reason of the error (``ErrorReason``).

    ``query`` holds the caller's filter, fields, order, format and limit, in JSON. ``surface`` is
    GRPC, GRPC_WEB or REST. ``shown`` is the digest of what was shown of each record (see
    ``shown``); for several records, ``keys`` with ``low_key`` and ``high_key`` name them (see
    ``keys``). ``row_count`` and ``byte_count`` (of the reply as gRPC carries it) are None if they
    are not known before the first byte leaves: a stream's are in its END entry, which states what
    this call sent, and nothing that an earlier one sent.
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
    phase: str = Phase.CALL
    surface: str | None = None
    shown: bytes | None = None
    byte_count: int | None = None
    receipt_id: str | None = None
    low_key: str | None = None
    high_key: str | None = None
    keys: bytes | None = None
    #: What the call spends of portions of quotas (see ``hub.spending``), by portion. It is written
    #: in the same statement, and is no part of the entry.
    spends: dict[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Its approximate bytes: keys and the query, which vary, and an allowance for the rest."""
        return ENTRY_BYTES + len(self.keys or b"") + len(self.query or "")

    def bound(self) -> None:
        """Cut texts that are too long for an entry, and mark the cuts."""
        for name, most in TEXT_BYTES.items():
            text = getattr(self, name)
            if text is not None and (len(text) > most // 4 or "\0" in text):
                setattr(self, name, bounded_text(text, most))
        if self.query is not None and len(self.query) > QUERY_BYTES // 4:
            self.query = bounded_json(self.query)
        for key in (self.low_key, self.high_key):
            if key is not None and len(key.encode("utf-8", "replace")) > KEY_BYTES:
                # A cut key would sort elsewhere; None means any key.
                self.low_key = self.high_key = None

    def reduced(self, problem: str, *, suppressed: bool = False) -> Entry:
        """A reduced form of an entry that the store refuses: who called what, and that it failed.

        A ``suppressed`` entry keeps only its request id in a column of its own, since whatever
        suppresses entries selects them by content. Its outcome is SUPPRESSED.
        """
        said = {"reduced": problem[:200], "outcome": self.outcome}
        if suppressed:
            said |= {"method": self.method, "consumer": self.consumer_id or ""}
            return Entry(
                self.request_id, AUDIT, query=orjson.dumps(said).decode(), outcome=SUPPRESSED
            )
        return Entry(
            request_id=self.request_id,
            method=self.method,
            policy_revision=self.policy_revision,
            consumer_id=self.consumer_id,
            credential_id=self.credential_id,
            query=orjson.dumps(said).decode(),
            outcome="INTERNAL",
            phase=self.phase,
            surface=self.surface,
        )

    def part(self, given: GivenRecords) -> Entry:
        """The PART entry for records that the call's stream sends next."""
        return replace(
            self,
            phase=Phase.PART,
            dataset=given.dataset,
            shown=given.rule,
            keys=given.keys,
            low_key=given.low_key,
            high_key=given.high_key,
            row_count=None,
            byte_count=None,
            spends={},
        )

    def end(self, outcome: str, rows: int, size: int) -> Entry:
        """The END entry of the call's stream: its rows and bytes; PART entries name the records."""
        return replace(
            self,
            phase=Phase.END,
            outcome=outcome,
            row_count=rows,
            byte_count=size,
            keys=None,
            low_key=None,
            high_key=None,
            spends={},
        )


_COLUMNS = (
    ("phase", "text"),
    ("request_id", "text"),
    ("trace_id", "text"),
    ("consumer_id", "text"),
    ("credential_id", "text"),
    ("policy_revision", "bigint"),
    ("method", "text"),
    ("surface", "text"),
    ("dataset", "text"),
    ("record_key", "text"),
    ("query", "json"),
    ("shown", "bytea"),
    ("row_count", "bigint"),
    ("byte_count", "bigint"),
    ("receipt_id", "text"),
    ("outcome", "text"),
    ("peer", "text"),
    ("low_key", "text"),
    ("high_key", "text"),
    ("keys", "bytea"),
)
#: Fails, and so stores nothing, unless all entries were stored.
_ALL_KEPT = (
    "WITH {spent}kept AS ({insert} RETURNING 1)"
    " SELECT 1 / (CASE WHEN count(*) = {count} THEN 1 ELSE 0 END) FROM kept"
)
_INTO = f"INSERT INTO hub.audit_entry ({', '.join(name for name, _ in _COLUMNS)})"
#: What the entries spend, before them; the place of its first argument.
_SPENT = (
    "spent AS (INSERT INTO hub.spending (portion_id, amount)"
    " SELECT * FROM unnest(${0}::bigint[], ${1}::bigint[])), "
)
_FROM_ARRAYS = (
    f"{_INTO} SELECT * FROM"
    f" unnest({', '.join(f'${i}::{t}[]' for i, (_, t) in enumerate(_COLUMNS, 1))})"
)
#: Up to this many entries are sent as single values: that halves the driver's time.
_FEW = 16
_VALUES = attrgetter(*(name for name, _ in _COLUMNS))


async def insert_entries(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries in the connection's transaction or in one of their own; all or none, with what
    they spend.

    Bounds them first. Raises EntryNotKept if the database does not keep one, and AllowanceLost if
    one spends of a portion that was taken back.
    """
    for entry in entries:
        entry.bound()
    rows = map(_VALUES, entries)
    spends = sum_spends(entries)
    spent = (list(spends), list(spends.values())) if spends else ()
    try:
        if len(entries) <= _FEW:
            sql = _insert_few(len(entries), bool(spends))
            await connection.execute(sql, *chain.from_iterable(rows), *spent)
        else:
            sql = _insert_many(bool(spends))
            await connection.execute(sql, *zip(*rows, strict=True), *spent)
    except asyncpg.DivisionByZeroError as exc:
        raise EntryNotKept(f"the database kept fewer than {len(entries)} entries") from exc
    except asyncpg.ForeignKeyViolationError as exc:
        if exc.constraint_name != "spending_portion":
            raise
        raise AllowanceLost("this worker was out of reach for too long; repeat the call") from exc


def sum_spends(entries: Sequence[Entry]) -> dict[int, int]:
    """What entries spend together, by portion."""
    spends: dict[int, int] = {}
    for entry in entries:
        for portion, amount in entry.spends.items():
            spends[portion] = spends.get(portion, 0) + amount
    return spends


@cache
def _insert_few(count: int, spends: bool) -> str:
    place = iter(range(1, count * len(_COLUMNS) + 1))
    rows = (", ".join(f"${next(place)}::{t}" for _, t in _COLUMNS) for _ in range(count))
    insert = f"{_INTO} VALUES {', '.join(f'({row})' for row in rows)}"
    return _compose_insert(insert, str(count), count * len(_COLUMNS) if spends else None)


@cache
def _insert_many(spends: bool) -> str:
    return _compose_insert(_FROM_ARRAYS, "cardinality($1)", len(_COLUMNS) if spends else None)


def _compose_insert(insert: str, count: str, arguments: int | None) -> str:
    """The statement for ``count`` entries; ``arguments`` precede those of what they spend."""
    spent = "" if arguments is None else _SPENT.format(arguments + 1, arguments + 2)
    return _ALL_KEPT.format(spent=spent, insert=insert, count=count)
