"""A client with only HTTP and JSON keeps an exact copy over server-sent events and proves it."""

from __future__ import annotations

import copy
import random
import threading
import uuid

import pytest

from chance import SEED
from harness import RunningHub
from plain_consumer import PlainConsumer

WRITES = 60


def write(hub: RunningHub, prefix: str, chance: random.Random) -> None:
    """Write records that are created, changed and deleted, and that enter and leave the View of
    ``bi``."""
    keys: list[str] = []
    for i in range(WRITES):
        kind = chance.random()
        if kind < 0.4 or not keys:
            keys.append(f"{prefix}-{i:03}")
            record = {
                "customerId": keys[-1],
                "name": f"Zoë “{i}” \U0001f600",
                "status": "ACTIVE",
                "creditLimit": f"{i}.50",
                "tags": ["a", 'b"c'],
                "billingAddress": {"city": "Köln", "line1": ""},
            }
            reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        elif kind < 0.9:
            status = chance.choice(["ACTIVE", "CHURNED", "LEAD"])
            change = {"status": status, "notes": f"note {i}", "taxId": f"T{i}"}
            path = f"/v1/customers/{chance.choice(keys)}"
            reply = hub.request("PATCH", path, consumer="admin", json_body=change)
        else:
            path = f"/v1/customers/{keys.pop(chance.randrange(len(keys)))}"
            reply = hub.request("DELETE", path, consumer="admin")
        assert reply.status == 200, reply.text


@pytest.mark.parametrize("role", ["admin", "crm", "bi"])
def test_a_copy_over_sse_is_exact(hub: RunningHub, role: str) -> None:
    consumer = PlainConsumer(hub.port, hub.token(role), "customers")
    chance = random.Random(f"{SEED}-{role}")
    writer = threading.Thread(
        target=write, args=(hub, f"t-plain-{uuid.uuid4().hex[:8]}", random.Random(SEED))
    )
    writer.start()
    try:
        # A snapshot that is cut off starts again: once is enough.
        consumer.follow(lambda: bool(consumer.records))
        consumer.follow(lambda: consumer.cursor != "")
        consumer.follow(lambda: not writer.is_alive(), lambda: chance.random() < 0.15)
    finally:
        writer.join()
    # Up to a place where the log stands still: other writes meanwhile only make this longer.
    for _ in range(50):
        digested = hub.get("/v1/customers:digest", role, parts=1).json()
        here = digested["cursor"]
        consumer.follow(lambda: place(consumer.cursor) >= place(here))  # noqa: B023  # called here
        if consumer.cursor == here:
            break
    (whole,) = digested["ranges"]
    assert consumer.digest() == (int(whole["rowCount"]), whole["sha256"])
    assert consumer.connections > 1

    # The negative control: the digest shows one changed value.
    key = min(consumer.records)
    kept = copy.deepcopy(consumer.records[key])
    consumer.records[key] = {**kept, "name": kept.get("name", "") + "x"}
    assert consumer.digest()[1] != whole["sha256"]


def place(cursor: str) -> int:
    """The number that a cursor stands for; consumers need not know it, but this test does."""
    from places import PLACES

    return PLACES.open(cursor).number
