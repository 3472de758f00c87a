"""An audit that tests write to, with what usage must be, counted in Python by itself."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Sequence

import orjson

from penstockd.audit.checkpoint import CheckpointKey
from penstockd.audit.entry import DELIVERIES, REFUSALS, Entry, Phase, insert_entries
from penstockd.audit.sealer import Sealer
from penstockd.audit.shown import digest_of
from penstockd.metering.fold import UsageFold
from penstockd.store.database import Connection, Database

KEY = CheckpointKey(b"k" * 32)
RULES = {
    "internal,pii:partial": orjson.dumps(
        {"dataset": "customers", "fields": {}, "classes": {"internal": "clear", "pii": "partial"}}
    ).decode(),
    "unknown": '{"dataset":"orders","fields":{}}',  # of an earlier version
}
#: What a series consists of here: consumer, method, dataset, status, classes.
Group = tuple[str, str, str, str, str]


def draw_entry(chance: random.Random, number: int) -> Entry:
    """Any kind of entry."""
    method = chance.choice(
        ["/penstock.api.v1.Customers/GetCustomer", "/penstock.hub.v1.Audit/ListEntries",
         "/penstock.api.v1.Orders/StreamExport", REFUSALS, DELIVERIES]
    )  # fmt: skip
    entry = Entry(
        f"request-{number}",
        method,
        1,
        consumer_id=chance.choice(["crm", "bi", None]),
        dataset=chance.choice(["customers", "orders", None]),
        surface=chance.choice(["REST", "GRPC"]),
        outcome=chance.choice(["OK", "OK", "OK", "CANCELLED", "PERMISSION_DENIED"]),
        row_count=chance.choice([None, 0, 7]),
        byte_count=chance.choice([None, 100]),
    )
    if method in (REFUSALS, DELIVERIES):
        entry.query = orjson.dumps({"calls": chance.randrange(4)}).decode()
    elif "Stream" in method:
        entry.phase = chance.choice(list(Phase))
    if chance.random() < 0.5:
        entry.shown = digest_of(RULES[chance.choice(list(RULES))])
    return entry


def group_entry(entry: Entry) -> Group:
    """The series of an entry."""
    named = entry.shown is not None or entry.method.startswith("/penstock.api.v1.")
    classes = next((c for c, rule in RULES.items() if digest_of(rule) == entry.shown), "")
    dataset = (entry.dataset or "") if named else ""
    return entry.consumer_id or "", entry.method, dataset, entry.outcome, classes


def count_entry(entry: Entry) -> tuple[int, int, int, int]:
    """What an entry counts, told a second time, in other words than those of ``counting``."""
    failed = entry.outcome not in ("OK", "CANCELLED")
    if entry.phase == Phase.PART:
        return 0, 0, 0, 0
    given = (entry.row_count or 0, entry.byte_count or 0)
    if entry.phase == Phase.END:
        return 0, int(failed), *given
    stated = orjson.loads(entry.query).get("calls", 1) if entry.query else 1
    calls = stated if entry.method in (REFUSALS, DELIVERIES) else 1
    return (calls, calls if failed else 0, *(given if entry.outcome == "OK" else (0, 0)))


def count_entries(entries: Sequence[Entry]) -> Counter[tuple[Group, str]]:
    """What entries count, by group and number."""
    found: Counter[tuple[Group, str]] = Counter()
    for entry in entries:
        names = ("calls", "errors", "records", "bytes")
        for name, value in zip(names, count_entry(entry), strict=True):
            found[group_entry(entry), name] += value
    return +found


async def read_counts(connection: Connection, level: str) -> Counter[tuple[Group, str]]:
    """What the rollups of a level hold."""
    found: Counter[tuple[Group, str]] = Counter()
    for row in await connection.fetch(
        "SELECT consumer_id, method, dataset, status, classes,"
        " sum(calls)::bigint AS calls, sum(errors)::bigint AS errors,"
        " sum(records)::bigint AS records, sum(bytes)::bigint AS bytes"
        f" FROM hub.usage_{level} JOIN hub.usage_series USING (series_id) GROUP BY 1, 2, 3, 4, 5"
    ):
        for name in ("calls", "errors", "records", "bytes"):
            found[tuple(row[:5]), name] += row[name]
    return +found


async def store_rules(connection: Connection) -> None:
    """Store the rules that entries name."""
    for rule in RULES.values():
        await connection.execute(
            "INSERT INTO hub.audit_shown VALUES ($1, $2) ON CONFLICT DO NOTHING",
            digest_of(rule),
            rule,
        )


async def write_entries(database: Database, entries: Sequence[Entry]) -> None:
    """Write entries in one transaction."""
    async with database.transaction() as connection:
        await insert_entries(connection, entries)


async def move_day(connection: Connection, day: dt.date) -> None:
    """Move all entries that are not sealed yet to a day, as if they had been written then."""
    await connection.execute(
        "UPDATE hub.audit_entry SET entry_time = entry_time + ($1::date - day) * interval '1 day',"
        " day = $1 WHERE NOT EXISTS (SELECT FROM hub.audit_seal AS s"
        " WHERE s.day = audit_entry.day AND entry_id = ANY (s.entry_ids))",
        day,
    )


async def seal_and_fold(database: Database) -> int:
    """Seal what is committed, and fold what is sealed; returns how many entries were folded."""
    await Sealer(database, KEY, None).seal()
    fold, count = UsageFold(database), 0
    while more := await fold.fold_next():
        count += more
    return count
