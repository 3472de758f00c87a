"""The same history in twin worlds, as far as consumers without full access can see.

Each step is one change of the log in both worlds, so that every place is the same in both. A step
may differ in its hidden parts, change another hidden record, or change nothing that anybody sees.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from feeds import at, delete, number, patch, put, rest

from .twin_questions import Answer, Asker, Question, ask
from .twins import BLIND, World

#: A step's change in the one world and in the other.
Step = Callable[[World], None]

#: Times, and names that are random in every call.
_FLEETING = re.compile(
    rb'"(?:commitTime|createTime|updateTime|time|receiptId|finishTime|startTime)":\s*"[^"]*"'
)
#: Stored etags, which are random: only a consumer that sees the whole record is shown one.
_DRAWN = re.compile(rb'"etag":\s*"[0-9]{15}"')


@dataclass
class Script:
    """Makes steps for a pair; ``visible`` are the customers that everybody sees."""

    chance: random.Random
    prefix: str = "w"
    visible: dict[str, dict[str, Any]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    orders: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def steps(self, count: int) -> Iterator[tuple[Step, Step]]:
        """That many pairs of steps."""
        kinds = [self._appear, self._change, self._silent, self._unseen, self._turn, self._go]
        first = {"customerId": f"{self.prefix}-unseen-0", "status": "CHURNED", "name": "First"}
        yield (lambda w: put(w.hub, "customers", first),) * 2
        for _ in range(4):
            yield self._appear()
        for _ in range(count):
            yield self.chance.choice([*kinds, self._order])()

    def _appear(self) -> tuple[Step, Step]:
        key = f"{self.prefix}-{self.chance.randrange(10**9)}"
        self.visible[key] = {"name": f"N{self.chance.randrange(100)}", "status": "ACTIVE"}
        return self._written(key)

    def _change(self) -> tuple[Step, Step]:
        key = self.chance.choice([*self.visible])
        self.visible[key]["name"] = f"N{self.chance.randrange(10**6)}"
        return self._written(key)

    def _turn(self) -> tuple[Step, Step]:
        """A customer leaves the View or returns, with its orders."""
        key = self.chance.choice([*self.visible])
        if key in self.hidden:
            self.hidden.discard(key)
            self.visible[key]["status"] = "ACTIVE"
            return self._written(key)
        self.hidden.add(key)
        self.visible[key]["status"] = "LEAD"
        return self._written(key)

    def _silent(self) -> tuple[Step, Step]:
        """A change of hidden fields only, different in the two worlds."""
        key = self.chance.choice([*self.visible])
        fields = ["phone", "taxId", "creditLimit", "birthDate"]
        one, other = self.chance.sample(fields, 2)
        return self._patched(key, one), self._patched(key, other)

    def _unseen(self) -> tuple[Step, Step]:
        """A record that nobody sees, different in the two worlds."""
        keys = [f"{self.prefix}-unseen-{i}" for i in self.chance.sample(range(8), 2)]

        def write(key: str, name: str) -> Step:
            record = {"customerId": key, "status": "CHURNED", "name": name + self._new()}
            return lambda world: put(world.hub, "customers", record)

        return write(keys[0], "Here"), write(keys[1], "There")

    def _go(self) -> tuple[Step, Step]:
        seen = [k for k in self.visible if k not in self.orders.values()]
        if len(seen) < 3:
            return self._appear()
        key = self.chance.choice(seen)
        del self.visible[key]
        self.hidden.discard(key)

        def step(world: World) -> None:
            delete(world.hub, "customers", key)

        return step, step

    def _order(self) -> tuple[Step, Step]:
        """An order, or one of a customer that nobody sees: a different one in each world."""

        def write(key: str, owner: str, currency: str) -> Step:
            price = f"{self.chance.randrange(10**6)}.50"  # no consumer without access sees it
            line = {"productId": currency, "quantity": 1, "unitPrice": price}
            record: dict[str, Any] = {"orderId": key, "customerId": owner, "lines": [line]}
            record |= {"currencyCode": currency, "sourceId": made}
            return lambda world: put(world.hub, "orders", record)

        made, currency = self._new(), self.chance.choice(["EUR", "USD", "JPY"])
        if self.chance.random() < 0.3:
            one, other = self.chance.sample(range(8), 2)
            owner = f"{self.prefix}-unseen-0"
            return (
                write(f"{self.prefix}-u-{one}", owner, currency),
                write(f"{self.prefix}-u-{other}", owner, "XXX"),
            )
        key = f"{self.prefix}-o-{self.chance.randrange(12)}"
        self.orders[key] = self.chance.choice([*self.visible])
        owner = self.orders[key]
        return write(key, owner, currency), write(key, owner, currency)

    def _new(self) -> str:
        """A text that was not there before, so that every step changes something."""
        self.made += 1
        return str(self.made)

    def _written(self, key: str) -> tuple[Step, Step]:
        """The visible record, with hidden fields that differ."""

        def write(salt: int) -> Step:
            shown = self.visible[key]
            if key in self.hidden:
                shown = {**shown, "name": f"hidden {salt}"}
            record = {
                "customerId": key,
                **shown,
                "email": f"a{salt}@b.example",
                "taxId": str(salt),
                "phone": f"+{salt}",
            }
            return lambda world: put(world.hub, "customers", record)

        return write(self.chance.randrange(10**9)), write(self.chance.randrange(10**9))

    def _patched(self, key: str, name: str) -> Step:
        digits = 100 + int(self._new())
        value = {
            "phone": f"+1{digits}",
            "taxId": f"T{digits}",
            "creditLimit": f"{digits}.00",
            "birthDate": f"{1000 + digits}-01-02",
        }[name]
        return lambda world: patch(world.hub, "customers", key, **{name: value})


def questions(asker: Asker, consumer: str, start: int, count: int) -> Iterator[Question]:
    """Polls of all kinds; their cursors are places after ``start`` (see ``placed``)."""
    for _ in range(count):
        chance = asker.chance
        name = chance.choice(["customers", "customers", "orders", ""])
        query: dict[str, str] = {"cursor": str(start + chance.choice([0, 0, 0, 7, 31]))}
        if name:
            asked = asker.query(name)
            query |= {k: v for k, v in asked.items() if k in ("filter", "fields")}
        if chance.random() < 0.5:
            query["include_before"] = "true"
        if chance.random() < 0.3:
            query["operations"] = chance.choice(["UPDATED", "ENTERED_VIEW", "LEFT_VIEW", "DELETED"])
        if chance.random() < 0.5:
            query["page_size"] = str(chance.choice([1, 3, 20, 1000]))
        yield Question(consumer, f"/v1/{name}:changes" if name else "/v1/changes", query)


def answered(world: World, connection: Any, question: Question, origin: int) -> Answer:
    """The world's answer to a poll, without times."""
    place = origin + int(question.query["cursor"])
    query: Mapping[str, str] = {**question.query, "cursor": at(world.hub, place)}
    answer = ask(connection, world, Question(question.consumer, question.path, query))
    # On a busy machine a poll's time may end before it has anything to return.
    while answer.status == 200 and (said := json.loads(answer.body)).get("more"):
        if said.get("changes"):
            break
        query = {**query, "cursor": said["nextCursor"]}
        answer = ask(connection, world, Question(question.consumer, question.path, query))
    return Answer(answer.status, answer.headers, plain(answer.body, question.consumer), "")


def plain(body: bytes, consumer: str) -> bytes:
    """A body without the parts that differ between any two hubs."""
    body = _FLEETING.sub(b"", body)
    return body if consumer in BLIND else _DRAWN.sub(b"", body)


@dataclass(frozen=True)
class Streamed:
    """A stream's changes, and its checkpoints' cursors by their numbers."""

    changes: list[bytes]
    cursors: dict[int, str]


def streamed(world: World, consumer: str, path: str, origin: int, head: int) -> Streamed:
    """Everything on a stream from one place to another, normalised, without heartbeats."""
    found = Streamed([], {})
    key = f"key:{world.keys[consumer]}"
    with rest(world.hub, path, key, cursor=at(world.hub, origin), include_before="true") as reply:
        while line := reply.readline():
            message = json.loads(line)
            cursor = (message.get("checkpoint") or message.get("heartbeat") or {}).get("cursor")
            # The distribution of changes over messages depends on the time of reading.
            found.changes.extend(
                plain(json.dumps(c).encode(), consumer) for c in message.get("changes", [])
            )
            if cursor:
                found.cursors[number(cursor)] = cursor
                if number(cursor) >= head:
                    break
    return found
