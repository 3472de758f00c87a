"""Who was shown a record: searches disclosures in the entries themselves.

Replies of one record are found by its key. Replies of several are examined if their range of keys
contains it; a list in key order has one such page.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from penstockd.audit.entry import LOST, Phase
from penstockd.audit.keys import Certainty, find_key
from penstockd.audit.search import EARLIEST, LATEST, days_of, read_rules
from penstockd.audit.shown import StoredShown
from penstockd.budget import let_others_run
from penstockd.catalog import Catalog, Dataset
from penstockd.errors import ValueInvalid, Violation
from penstockd.store.database import Connection

#: Replies of several records that are examined for one page of disclosures.
MAX_CANDIDATES = 2000

_COLUMNS = """
e.entry_id, e.entry_time, e.phase, e.request_id, e.consumer_id, e.credential_id,
e.policy_revision, e.method, e.surface, e.record_key, e.query, e.shown, e.row_count,
e.receipt_id, e.outcome, e.peer
"""
#: Selects by dataset and consumer, from the start on and before a position.
_WHERE = """
e.dataset = $1 AND e.shown IS NOT NULL AND ($3::text IS NULL OR e.consumer_id = $3)
AND e.entry_time >= $4 AND (e.entry_time, e.entry_id) < ($5, $6) AND e.day BETWEEN $7 AND $8
"""
_LATEST = "ORDER BY e.entry_time DESC, e.entry_id DESC LIMIT $9"
#: A stream with an END entry of its worker is judged by that entry. One without may have contained
#: anything: that of a dead worker does not state what was sent last.
_ONE = f"""
SELECT {_COLUMNS}, NULL::bytea AS keys, false AS endless FROM hub.audit_entry AS e
WHERE e.record_key = $2 AND hashtextextended(e.record_key, 0) = hashtextextended($2, 0)
AND e.outcome = 'OK' AND e.row_count > 0 AND {_WHERE} {_LATEST}
"""
_SEVERAL = f"""
SELECT {_COLUMNS}, e.keys, e.keys IS NULL AND e.phase = 'CALL' AS endless,
    e.phase <> 'END' AND e.row_count IS NULL AS streamed,
    ending.outcome AS end_outcome, ending.row_count AS end_count
FROM hub.audit_entry AS e LEFT JOIN LATERAL (
    SELECT x.outcome, x.row_count FROM hub.audit_entry AS x
    WHERE x.phase = 'END' AND x.request_id = e.request_id AND x.outcome <> '{LOST}'
    LIMIT 1) AS ending ON true
WHERE e.record_key IS NULL AND {_WHERE}
AND (e.low_key IS NULL OR e.low_key <= $2 AND e.high_key >= $2)
AND (e.keys IS NOT NULL
     OR e.phase = 'CALL' AND e.outcome = 'OK' AND e.row_count IS NULL AND NOT EXISTS (
        SELECT FROM hub.audit_entry AS x
        WHERE x.phase = 'END' AND x.request_id = e.request_id AND x.outcome <> '{LOST}'))
{_LATEST}
"""


#: Columns that are not values of a disclosure.
_APART = frozenset({"keys", "endless", "streamed", "end_outcome", "end_count"})


@dataclass(frozen=True, slots=True)
class DisclosureQuestion:
    """Asks who was shown this record, or this field of it, from ``start`` on and before ``end``.

    ``field`` is a path of the proto; the path of a message stands for all fields in it.
    """

    dataset: str
    key: str
    field: str = ""
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    consumer_id: str | None = None

    @property
    def said(self) -> dict[str, str]:
        """Its conditions, as written to the audit entry and the page token."""
        return {
            "field": self.field,
            "recipient": self.consumer_id or "",
            "start_time": self.start.isoformat() if self.start is not None else "",
            "end_time": self.end.isoformat() if self.end is not None else "",
        }

    def check(self) -> None:
        """Raise ValueInvalid if it does not name a record."""
        needed = {"dataset": self.dataset, "record_key": self.key}
        missing = [Violation(name, "is missing") for name, value in needed.items() if not value]
        if missing:
            raise ValueInvalid(f"{missing[0].field} is missing", violations=missing)

    def asked_of(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Those of the fields that a reply showed, with their masks, that the question is about."""
        within = f"{self.field}."
        return {
            path: mask
            for path, mask in fields.items()
            if not self.field or path == self.field or path.startswith(within)
        }


#: The end of a page of disclosures: time and id of an entry.
Position = tuple[dt.datetime, int]


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A reply that contained the record, or may have; ``values`` are columns of its entry."""

    values: dict[str, Any]
    certainty: Certainty
    rule: StoredShown
    fields: dict[str, str]

    @property
    def format(self) -> str:
        """The format of an export."""
        query = orjson.loads(self.values["query"] or "{}")
        return str(query.get("format", ""))

    @property
    def complete(self) -> bool:
        """Whether the reply was complete."""
        return self.values["outcome"] == "OK" and self.certainty is not Certainty.POSSIBLE


_EVER_SHOWN = """
SELECT EXISTS (
    SELECT FROM hub.audit_shown AS s
    WHERE s.content::jsonb ->> 'dataset' = $1
        AND ($2 = '' OR EXISTS (
            SELECT FROM jsonb_object_keys(s.content::jsonb -> 'fields') AS path
            WHERE path = $2 OR starts_with(path, $2 || '.'))))
"""


async def ever_shown(connection: Connection, dataset: str, field: str) -> bool:
    """Whether any rule ever showed a field of a dataset, or with "" anything of it."""
    return bool(await connection.fetchval(_EVER_SHOWN, dataset, field))


async def find_shown(
    connection: Connection, question: DisclosureQuestion, limit: int, after: Position | None
) -> tuple[list[Disclosure], Position | None]:
    """At most ``limit`` disclosures, newest first, and where to continue, None at the end.

    A page may have fewer, even none, before the end: at most MAX_CANDIDATES are examined.
    """
    single = await _fetch_rows(connection, _ONE, question, after, limit + 1)
    several = await _fetch_rows(connection, _SEVERAL, question, after, MAX_CANDIDATES)
    cut = [_position_of(rows[-1]) for rows, full in ((single, limit + 1), (several, MAX_CANDIDATES))
           if len(rows) == full]  # fmt: skip
    floor = max(cut, default=None)
    rows = sorted((*single, *several), key=_position_of, reverse=True)
    known = rows if floor is None else [r for r in rows if _position_of(r) >= floor]
    rules = await read_rules(connection, [row["shown"] for row in known])
    found: list[Disclosure] = []
    for row in known:
        await let_others_run()  # a row may contain the keys of a whole reply
        made = _make_disclosure(row, question, rules[row["shown"]])
        if made is not None:
            found.append(made)
            if len(found) == limit:
                return found, _position_of(row)
    return found, floor


async def _fetch_rows(
    connection: Connection,
    sql: str,
    question: DisclosureQuestion,
    after: Position | None,
    limit: int,
) -> Sequence[Any]:
    time, entry_id = after or (question.end or LATEST, 0)
    start = question.start or EARLIEST
    days = days_of(start, time)
    q = question
    return await connection.fetch(
        sql, q.dataset, q.key, q.consumer_id, start, time, entry_id, *days, limit
    )


def _position_of(row: Any) -> Position:
    return row["entry_time"], row["entry_id"]


def _make_disclosure(
    row: Any, question: DisclosureQuestion, rule: StoredShown
) -> Disclosure | None:
    fields = question.asked_of(rule.fields)
    if question.field and not fields:
        return None
    if row["endless"]:
        certainty: Certainty | None = Certainty.POSSIBLE
    elif row["keys"] is not None:
        certainty = find_key(row["keys"], question.key)
    else:
        certainty = Certainty.EXACT
    if certainty is None:
        return None
    values = {name: row[name] for name in row.keys() if name not in _APART}  # noqa: SIM118
    if row.get("streamed"):
        # The END entry of a stream has its outcome and its number of records.
        values["outcome"], values["row_count"] = row["end_outcome"] or "", row["end_count"]
    if values["phase"] == Phase.PART:
        certainty = Certainty.PROBABLE
    return Disclosure(values, certainty, rule, fields)


async def name_question(
    connection: Connection, catalog: Catalog, question: DisclosureQuestion
) -> DisclosureQuestion:
    """The question with proto names. Raises ValueInvalid for names that never existed."""
    dataset, field = question.dataset, question.field
    if dataset in catalog:
        named = dict(_field_names(catalog[dataset]))
        if not field or field in named:
            return replace(question, field=named.get(field, ""))
    elif not await ever_shown(connection, dataset, ""):
        raise ValueInvalid.of("dataset", f"'{dataset}' has never been a dataset")
    if field and not await ever_shown(connection, dataset, field):
        raise ValueInvalid.of("field", f"'{field}' has never been a field of {dataset}")
    return question


def _field_names(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Every name of a dataset's fields and of the messages that hold them, with its path."""
    for field in dataset.every_field:
        for end in range(1, len(field.steps) + 1):
            path = ".".join(field.steps[:end])
            yield path, path
            yield ".".join(field.json_steps[:end]), path
