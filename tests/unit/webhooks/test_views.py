"""S2 for payloads: nothing hidden leaves, even if a role was narrowed meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from aiohttp import web

from penstockd.catalog import Catalog
from penstockd.webhooks.model import Body, Envelope, Selection
from webhook_rig import Receiver, Rig, customer, receiving, rigged

#: The random parts of a body: ids, and cursors with the marks in them.
_ID = re.compile(rb'msg_[0-9a-f]+|(?<="cursor":")[\w-]+|(?<=<cursor>)[\w-]+')
FORMS: list[dict[str, Any]] = [
    {},
    {"body": Body.XML},
    {"thin": True},
    {"batch_size": 100},
    {"envelope": Envelope.CLOUDEVENTS_STRUCTURED},
    {"envelope": Envelope.CLOUDEVENTS_BINARY},
    {"envelope": Envelope.CLOUDEVENTS_STRUCTURED, "batch_size": 10},
]


async def narrow(rig: Rig, sql: str) -> None:
    """Change access, and let the rig know."""
    async with rig.database.transaction() as connection:
        await connection.execute(sql)
    await rig.policy.refresh()


GRANT = "UPDATE hub.grant SET {} WHERE role_id = 'crm' AND dataset = 'customers'"


async def test_twin_worlds_send_the_same_bytes(
    rig: Rig, catalog: Catalog, server: Any, receiver: Receiver
) -> None:
    import asyncpg

    owner = await asyncpg.connect(server.dsn.replace("/penstock?", "/postgres?"))
    await owner.execute("CREATE DATABASE twin TEMPLATE penstock")
    try:
        url = server.dsn.replace("/penstock?", "/twin?")
        async with rigged(url, catalog) as twin, receiving() as other:
            sent = []
            worlds = ((rig, receiver, "DE111", "1"), (twin, other, "FR22222", "9999999"))
            for world, to, tax, limit in worlds:
                for i, form in enumerate(FORMS):
                    await world.endpoint(f"{to.url}/{i}", **form)
                    await world.endpoint(f"{to.url}/bi/{i}", consumer="bi", **form)
                await permit_bi(world)
                await script(world, tax, limit)
                await world.deliver()
                sent.append(sorted((r.path, _ID.sub(b"msg", r.body)) for r in to.requests))
            assert len(sent[0]) > 20
            assert sent[0] == sent[1]
            assert not any(b"DE111" in body for _, body in sent[0])
    finally:
        await owner.execute("DROP DATABASE twin WITH (FORCE)")
        await owner.close()


async def test_the_twins_differ_for_who_may_see_all(rig: Rig, receiver: Receiver) -> None:
    """The negative control: the administrator receives the hidden values."""
    await rig.endpoint(receiver.url + "/in", consumer="admin")
    await script(rig, "DE111", "1")
    await rig.deliver()
    assert any(b"DE111" in r.body for r in receiver.requests)


async def permit_bi(rig: Rig) -> None:
    """bi, which sees fewer rows and values, may have webhooks too."""
    await narrow(
        rig, "UPDATE hub.role SET permissions = '{webhooks.read,webhooks.write}' WHERE role_id='bi'"
    )


async def script(rig: Rig, tax: str, limit: str) -> None:
    """The same changes, except for what crm and bi may not see."""
    first = customer("c1", name="Ada", email="ada@example.com", tax_id=tax, credit_limit=limit)
    hidden = customer("c1", name="Ada", email="ada@example.com", tax_id=tax + "9", etag="2")
    renamed = customer("c1", name="Eva", email="ada@example.com", tax_id=tax + "9", etag="3")
    idle = customer("c1", name="Eva", tax_id=tax, status="LEAD", etag="4")
    await rig.log(("c1", None, first))
    await rig.log(("c1", first, hidden))
    await rig.log(("c1", hidden, renamed))
    await rig.log(("c1", renamed, idle))
    await rig.log(("c1", idle, None))
    async with rig.database.transaction() as connection:
        # The two worlds must not differ in their times.
        await connection.execute("UPDATE hub.log_transaction SET stamp_time = '2026-03-01Z'")


async def test_a_change_of_hidden_fields_only_sends_nothing(rig: Rig, receiver: Receiver) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    before = customer("c1", tax_id="DE1", etag="1")
    await rig.log(("c1", before, customer("c1", tax_id="DE2", etag="2")))
    assert await rig.deliver() == 0
    assert await rig.states(name) == []


async def test_a_mask_that_comes_while_a_delivery_waits_counts(
    rig: Rig, receiver: Receiver
) -> None:
    await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1", name="Ada", email="ada@example.com")))
    await rig.take_in()
    await narrow(rig, GRANT.format("""field_masks = '{"email": "partial", "name": "hide"}'"""))
    assert await rig.deliver() == 1
    record = json.loads(receiver.requests[0].body)["data"]["record"]
    assert record["email"] == "a***@example.com"
    assert "name" not in record
    assert b"Ada" not in receiver.requests[0].body


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (GRANT.format("row_filter = 'status = LEAD'"), "NOT_VISIBLE"),
        (GRANT.format("actions = '{create}'"), "ACCESS_LOST"),
        ("DELETE FROM hub.grant WHERE role_id = 'crm'", "ACCESS_LOST"),
        ("UPDATE hub.consumer SET active = false WHERE consumer_id = 'crm'", "ACCESS_LOST"),
        ("UPDATE hub.role SET permissions = '{}' WHERE role_id = 'crm'", "ACCESS_LOST"),
        ("DELETE FROM hub.consumer_role WHERE consumer_id = 'crm'", "ACCESS_LOST"),
    ],
)
async def test_access_that_is_lost_while_a_delivery_waits_kills_it(
    rig: Rig, receiver: Receiver, sql: str, reason: str
) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.take_in()
    await narrow(rig, sql)
    assert await rig.deliver() == 0
    assert await rig.states(name) == [("DEAD", reason)]
    assert receiver.requests == []


async def test_a_filter_on_a_field_that_is_hidden_by_now_brings_nothing(
    rig: Rig, receiver: Receiver
) -> None:
    selection = Selection("customers", filter='name = "Ada"')
    name = await rig.endpoint(receiver.url + "/in", selections=[selection])
    await rig.log(("c1", None, customer("c1", name="Ada")))
    await rig.take_in()
    await narrow(rig, GRANT.format("""field_masks = '{"name": "hide"}'"""))
    await rig.log(("c2", None, customer("c2", name="Ada")))
    await rig.deliver()
    assert receiver.requests == []
    assert await rig.states(name) == [("DEAD", "ACCESS_LOST")]


async def test_narrowed_between_claim_and_send(rig: Rig, receiver: Receiver) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold(_: web.Request) -> web.Response:
        arrived.set()
        await go.wait()
        return web.Response()

    receiver.answers["/in"] = hold
    name = await rig.endpoint(receiver.url + "/in", concurrency=2)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}", name="Ada")) for i in range(8)])
    await rig.take_in()
    assert await rig.dispatcher.claim() == 8  # two are being sent, six are claimed
    await arrived.wait()
    await narrow(rig, GRANT.format("""field_masks = '{"name": "hide"}'"""))
    go.set()
    await rig.dispatcher.drain()
    named = [r for r in receiver.requests if b"Ada" in r.body]
    assert len(named) == 2
    assert len(receiver.requests) == 8
    assert {s for s, _ in await rig.states(name)} == {"DELIVERED"}
    # The released ones have not been attempted.
    assert await rig.rows("SELECT max(attempt_count) FROM hub.webhook_delivery") == [(1,)]


async def test_a_change_that_the_log_has_forgotten_is_not_sent_through_another_view(
    rig: Rig, receiver: Receiver
) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.take_in()
    await narrow(rig, GRANT.format("""field_masks = '{"name": "hide"}'"""))
    async with rig.database.transaction() as connection:
        last = await connection.fetchval("SELECT last_number FROM hub.log_head")
        await connection.execute("SELECT hub.prune_log($1)", last)
    assert await rig.deliver() == 0
    assert await rig.states(name) == [("DEAD", "EVENT_EXPIRED")]
    assert receiver.requests == []


async def test_scopes_of_the_token_that_made_it_narrow_it(rig: Rig, receiver: Receiver) -> None:
    name = await rig.endpoint(receiver.url + "/in")
    async with rig.database.transaction() as connection:
        await connection.execute(
            "UPDATE hub.webhook SET scopes = '{orders:read,webhooks.write}', title = 'x'"
            " WHERE webhook_id = $1",
            name,
        )
    await rig.log(("c1", None, customer("c1")))
    assert await rig.deliver() == 0
    assert await rig.states(name) == []


async def test_what_is_disclosed_is_on_record_before_it_leaves(
    rig: Rig, receiver: Receiver
) -> None:
    seen: list[tuple[Any, ...]] = []

    async def look(_: web.Request) -> web.Response:
        seen.extend(
            await rig.rows(
                "SELECT consumer_id, dataset, row_count, low_key, high_key, shown IS NOT NULL,"
                " query ->> 'calls', byte_count > 0"
                " FROM hub.audit_entry WHERE surface = 'WEBHOOK'"
            )
        )
        return web.Response()

    receiver.answers["/in"] = look
    await rig.endpoint(receiver.url + "/in", batch_size=100)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(3)])
    await rig.deliver()
    assert seen == [("crm", "customers", 3, "c0", "c2", True, "1", True)]
