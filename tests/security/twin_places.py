"""Values by which a reader could count hidden changes, and attempts at it in twin worlds.

``count`` makes a number of hidden changes before each visible one, and records the values that a
reader gets for the visible ones. ``given_away`` is the attacker: it knows the hidden counts, and
looks for a series among the values from which they could have been computed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from feeds import at, patch, put
from penstockd.errors import CursorInvalid
from penstockd.store.cursor import Cursor

from .twin_questions import Question, ask
from .twins import World

#: With this share of the counts, an attacker has guessed them. By chance the share is a third, even
#: with the best scale in hindsight; for values that count it is all.
GUESSED = 0.75
#: The most hidden changes between two visible ones.
MOST_HIDDEN = 4
WATCHED = "c-watched"


@dataclass(frozen=True)
class Account:
    """The values that a reader of one world got, one of each for every visible change.

    ``etags`` belong to one record that it sees, and ``stored`` are the store's etags for the same
    changes. ``hidden`` are the numbers of changes between each two.
    """

    hidden: Sequence[int]
    sequences: list[int] = field(default_factory=list)
    transactions: list[int] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    etags: list[str] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)


def count(world: World, consumer: str, hidden: Sequence[int]) -> Account:
    """Make these numbers of hidden changes before each visible one, and ask a reader for the
    values."""
    found = Account(hidden)
    fresh = itertools.count(1)
    watched = {"customerId": WATCHED, "name": "Watched", "status": "ACTIVE", "taxId": "T0"}
    put(world.hub, "customers", watched)
    start = at(world.hub, world.hub.head())
    connection = world.connect()
    for i, changes in enumerate((0, *hidden)):
        if changes:
            patch(world.hub, "customers", WATCHED, taxId=f"T{next(fresh)}")
        unseen = [
            {"customerId": f"c-unseen-{n}", "status": "CHURNED", "name": f"U{next(fresh)}"}
            for n in range(1, changes)
        ]
        if unseen:
            put(world.hub, "customers", *unseen)
        put(world.hub, "customers", {"customerId": f"c-{i}", "name": "Seen", "status": "ACTIVE"})
        record = ask(connection, world, Question(consumer, f"/v1/customers/{WATCHED}"))
        found.etags.append(json.loads(record.body)["etag"])
        sql = "SELECT etag::text FROM data.customers WHERE customer_id = $1"
        found.stored.append(world.hub.sql(sql, WATCHED)[0][0])
    world.hub.head()
    query = {"cursor": start, "page_size": "1"}
    while len(found.cursors) < len(hidden) + 1:
        answer = ask(connection, world, Question(consumer, "/v1/customers:changes", query))
        page = json.loads(answer.body)
        for change in page.get("changes", []):
            found.sequences.append(int(change["sequence"]))
            found.transactions.append(int(change["transactionId"]))
            found.cursors.append(page["nextCursor"])
        query = {**query, "cursor": page["nextCursor"]}
    connection.close()
    return found


def given_away(accounts: Sequence[Account]) -> set[str]:
    """The values from which readers of twin worlds can learn what was hidden."""
    found = set()
    for account in accounts:
        series = {
            "sequence": account.sequences,
            "transaction": account.transactions,
            "cursor": [_read(cursor) for cursor in account.cursors],
        }
        found |= {n for n, s in series.items() if _best_guess(s, account.hidden) >= GUESSED}
        if len(set(account.etags)) > 1:
            found.add("etag")  # nothing visible of the record has changed
    if len({len(cursor) for account in accounts for cursor in account.cursors}) > 1:
        found.add("cursor's length")
    return found


def _best_guess(series: Sequence[int], hidden: Sequence[int]) -> float:
    """The share of the counts that the steps of a series give exactly, on the best scale."""
    steps = [b - a for a, b in itertools.pairwise(series)]
    scales = {abs(step) / (n + 1) for step, n in zip(steps, hidden, strict=True)} - {0.0}
    return max(
        sum(round(step / scale) == n + 1 for step, n in zip(steps, hidden, strict=True))
        / len(hidden)
        for scale in scales
    )


def _read(cursor: str) -> int:
    """A cursor as a number: the log's, if it can be read."""
    try:
        return Cursor.parse(cursor).number
    except CursorInvalid:
        return int.from_bytes(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))


def given_with_exports(world: World, consumer: str) -> Iterator[tuple[str, Any]]:
    """Places outside feeds: receipts, the log's extent, subscriptions and leases."""
    key = {"x-api-key": world.keys[consumer]}
    for form in ("CSV", "NDJSON"):
        path = "/v1/customers:export"
        export = world.hub.request("GET", path, headers=key, query={"format": form})
        assert export.status == 200, export.text
        path = f"/v1/receipts/{export.headers['penstock-receipt']}"
        receipt = world.hub.request("GET", path, headers=key).json()
        assert receipt["state"] == "COMPLETE"
        yield (
            f"receipt of {form}",
            _without(receipt, "receiptId", "requestId", "startTime", "finishTime"),
        )
    extent = world.hub.request("GET", "/v1/changes:log", headers=key)
    assert extent.status == 200, extent.text
    yield "extent", _without(extent.json(), "oldestCommitTime")
    body = {"subscription": {"subscriptionId": "twin", "datasets": ["customers"]}}
    made = world.hub.request("POST", "/v1/subscriptions", headers=key, json_body=body)
    assert made.status == 200, made.text
    yield "subscription", _without(made.json(), "createTime", "updateTime")


def _without(message: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name not in names}


@contextlib.contextmanager
def altered(world: World, values: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Give customers other values (key -> column -> value) during the block, without the log."""

    async def exchange(wanted: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        connection = await asyncpg.connect(world.hub.dsn)
        try:
            former = {}
            for key, columns in wanted.items():
                names, places = list(columns), range(2, len(columns) + 2)
                row = await connection.fetchrow(
                    f"SELECT {', '.join(names)} FROM data.customers WHERE customer_id = $1", key
                )
                assert row is not None, key
                former[key] = dict(row)
                sets = ", ".join(f"{n} = ${i}" for n, i in zip(names, places, strict=True))
                await connection.execute(
                    f"UPDATE data.customers SET {sets} WHERE customer_id = $1",
                    key,
                    *columns.values(),
                )
            return former
        finally:
            await connection.close()

    former = asyncio.run(exchange(values))
    try:
        yield
    finally:
        asyncio.run(exchange(former))
