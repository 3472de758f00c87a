"""export at C + feed from C to D = export at D, under concurrent writes.

For a consumer that sees everything, byte for byte in every format. For others without
``update_time`` and ``etag``, which also change with hidden fields.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message

from chance import SEED
from faults.traffic import Traffic, others_write
from feeds import CATALOG, Replica, Told, apply, caught_up, polled, watch
from harness import RunningHub
from places import PLACES

pytestmark = pytest.mark.lane("faults/own_hub")

FORMATS = ("CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW", "XLSX")
CUSTOMERS = CATALOG["customers"]
#: The fields of customers that each consumer sees, except those that change with hidden fields.
SHOWN = {
    "admin": "",
    "crm": "customer_id,name,kind,status,email,phone,tags,notes,source_id,billing_address",
    "bi": "customer_id,name,kind,status,email,tags,notes,source_id,create_time",
}
ROUNDS = 3


def exported(hub: RunningHub, consumer: str, name: str, **query: object) -> tuple[str, bytes]:
    """An export, and its cursor."""
    asked = {"format": name, **query}
    reply = hub.get("/v1/customers:export", consumer, **asked)
    assert reply.status == 200, reply.text
    receipt = hub.get(f"/v1/receipts/{reply.headers['penstock-receipt']}", consumer).json()
    assert receipt["state"] == "COMPLETE"
    return receipt["cursor"], reply.body


def records(data: bytes) -> Replica:
    """The records of an NDJSON export."""
    found: Replica = {}
    for line in data.splitlines():
        record: Any = json_format.Parse(line, CUSTOMERS.message_class())
        image = record.SerializeToString(deterministic=True)
        found["customers", record.customer_id] = image
    return found


@contextlib.asynccontextmanager
async def writers(hub: RunningHub) -> AsyncIterator[Traffic]:
    """Clients that create, change and delete customers during the block."""
    going = asyncio.Event()
    going.set()

    async def restless(traffic: Traffic, chance: random.Random) -> None:
        """Write records that enter the Views of others, leave them, and are deleted."""
        turn = 0
        while going.is_set():
            key = f"{traffic.prefix}-restless-{chance.randrange(12)}"
            turn += 1
            if chance.random() < 0.2:
                await traffic.send("DELETE", f"/{key}", None)
                continue
            status = chance.choice(["ACTIVE", "LEAD", "CHURNED"])
            body = {"customerId": key, "name": "x", "status": status, "sourceId": str(turn)}
            hidden = {"taxId": str(turn), "creditLimit": f"{turn}.50"}
            await traffic.send("POST", ":batchUpsert", {"customers": [{**body, **hidden}]})

    async with Traffic(hub.url, hub.api_key, SEED) as traffic, asyncio.TaskGroup() as group:
        for i in range(3):
            group.create_task(traffic.client(i, going))
            group.create_task(restless(traffic, random.Random(f"{SEED}-restless-{i}")))
        try:
            yield traffic
        finally:
            going.clear()


def between(hub: RunningHub, consumer: str, start: str, end: str, turn: int) -> list[Told]:
    """The feed from one cursor to another, by streams and polls in turn.

    A change that the second cursor saw without a number comes after the cursor's own number.
    """
    follow, head, cursor = (polled if turn % 2 else caught_up), hub.head(), PLACES.open(end)
    numbered = hub.sql(
        "SELECT last_number FROM hub.log_transaction WHERE revision = ANY ($1)",
        [t.revision for t in cursor.ahead],
    )
    ahead = {last for (last,) in numbered}
    events = follow(hub, consumer, "customers", start, head, fields=SHOWN[consumer])
    return [e for e in events if e.sequence <= cursor.number or e.transaction in ahead]


@pytest.mark.parametrize("consumer", SHOWN)
async def test_an_export_and_the_feed_behind_it_make_the_next_export(
    own_hub: RunningHub, consumer: str
) -> None:
    hub, events_seen = own_hub, 0
    query = {"fields": SHOWN[consumer]} if SHOWN[consumer] else {}
    async with writers(hub) as traffic:
        places = []
        for _ in range(ROUNDS):
            await asyncio.to_thread(others_write, traffic)
            places.append(await asyncio.to_thread(exported, hub, consumer, "NDJSON", **query))
    for turn in range(ROUNDS - 1):
        (start, before), (end, after) = places[turn], places[turn + 1]
        events = await asyncio.to_thread(between, hub, consumer, start, end, turn)
        events_seen += len(events)
        assert apply(records(before), events) == records(after)
        # Negative control: the last change of any record is needed.
        lasting = {e.key: e for e in events}
        dropped = random.Random(SEED).choice(list(lasting.values()))
        assert apply(records(before), [e for e in events if e is not dropped]) != records(after)
    assert events_seen > ROUNDS


async def test_a_snapshot_stream_under_writes_makes_the_table(own_hub: RunningHub) -> None:
    """The stream alone, begun while others wrote, gives every format byte for byte."""
    hub = own_hub

    def stream_of(traffic: Traffic) -> Any:
        with watch(hub, "admin", "customers", snapshot=True) as stream:
            stream.until(lambda: stream.marks)
            assert {e.operation for e in stream.events} == {"SNAPSHOT"}
            others_write(traffic)
            stream.read()
            return stream.cursor, list(stream.events[: stream.marks[-1][1]])

    async with writers(hub) as traffic:
        await asyncio.to_thread(others_write, traffic)
        cursor, events = await asyncio.to_thread(stream_of, traffic)
        # An export of about that time has the same place, and so the same continuation.
        await asyncio.to_thread(others_write, traffic)
    head = await asyncio.to_thread(hub.head)
    replica = apply({}, events)
    later = await asyncio.to_thread(caught_up, hub, "admin", "customers", cursor, head)
    apply(replica, later)
    files = {f: await asyncio.to_thread(exported, hub, "admin", f) for f in FORMATS}
    assert replica == records(files["NDJSON"][1])
    await _replace_table(hub, replica)
    for name, (_, data) in files.items():
        assert (await asyncio.to_thread(exported, hub, "admin", name))[1] == data, name
    # Negative control: the exports do depend on the table's records.
    await _replace_table(hub, dict(list(replica.items())[1:]))
    try:
        for name, (_, data) in files.items():
            assert (await asyncio.to_thread(exported, hub, "admin", name))[1] != data, name
    finally:
        await _replace_table(hub, replica)


async def _replace_table(hub: RunningHub, replica: Replica) -> None:
    """Replace the hub's records by a replica's, without the log."""
    rows = [json.dumps(_columns(CUSTOMERS.message_class.FromString(i))) for i in replica.values()]
    connection = await asyncpg.connect(hub.dsn)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = 'replica'")
            await connection.execute("DELETE FROM data.customers")
            await connection.execute(
                "INSERT INTO data.customers SELECT x.* FROM unnest($1::text[]) AS r (data),"
                " jsonb_populate_record(NULL::data.customers, r.data::jsonb) AS x",
                rows,
            )
    finally:
        await connection.close()


def _columns(record: Message) -> dict[str, Any]:
    """Column -> value of a record in JSON."""
    document = json_format.MessageToDict(
        record, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    found = {}
    for field in CUSTOMERS.fields:
        value: Any = document
        for step in field.steps:
            value = None if value is None else value.get(step)
        found[field.path] = value
    return found
