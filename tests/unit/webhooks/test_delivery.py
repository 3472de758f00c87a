"""From the log to the receiver: what arrives, in which form, and in which order."""

from __future__ import annotations

import asyncio
import itertools
import json
from xml.etree import ElementTree

from aiohttp import web
from standardwebhooks import Webhook as Verifier

from penstockd.webhooks.model import Body, Envelope, Ordering, Scheme, Selection
from places import PLACES, log_number
from webhook_rig import START, URL, Receiver, Rig, customer, status


async def test_a_change_arrives_signed(rig: Rig, receiver: Receiver) -> None:
    name = await rig.endpoint(receiver.url + "/in", headers={"x-team": "blue"})
    await rig.log(("c1", None, customer("c1", name="Ada", tax_id="DE1")))
    assert await rig.deliver() == 1
    (request,) = receiver.requests
    # The timestamp comes from the test's clock; the verifier would not tolerate the difference.
    verifier = Verifier(rig.keys[name].text)
    expected = verifier.sign(request.id, START, request.body.decode())
    assert request.headers["webhook-signature"] == expected
    assert request.headers["x-team"] == "blue"
    assert request.headers["content-type"] == "application/json"
    event = json.loads(request.body)
    assert event["type"] == "customer.created"
    assert event["data"]["record"]["customerId"] == "c1"
    assert event["data"]["record"]["status"] == "ACTIVE"
    assert "taxId" not in event["data"]["record"]
    assert "previousRevision" not in event["data"]
    assert await rig.states(name) == [("DELIVERED", "")]


async def test_revisions_are_a_chain_and_the_cursor_goes_on_there(
    rig: Rig, receiver: Receiver
) -> None:
    await rig.endpoint(receiver.url + "/in")
    one, two = customer("c1", name="One"), customer("c1", name="Two", etag="2")
    await rig.log(("c1", None, one), ("c2", None, customer("c2")))
    await rig.log(("c1", one, two))
    await rig.log(("c1", two, None))
    await rig.deliver()
    told = [json.loads(r.body) for r in receiver.requests]
    told.sort(key=lambda e: int(e["data"]["revision"]))
    assert [e["type"].partition(".")[2] for e in told] == [
        "created",
        "created",
        "updated",
        "deleted",
    ]
    revisions = [e["data"]["revision"] for e in told]
    first, *others = [log_number(int(r)) for r in revisions]
    assert others == [first + 1, first + 2, first + 3]
    before = [e["data"].get("previousRevision") for e in told]
    assert before == [None, None, revisions[0], revisions[2]]
    assert told[2]["data"]["changed"] == ["name"]
    assert "record" not in told[3]["data"]
    assert [PLACES.open(e["data"]["cursor"]).number for e in told] == [first + i for i in range(4)]


async def test_filters_and_event_types_choose(rig: Rig, receiver: Receiver) -> None:
    filtered = Selection("customers", filter='name = "A*"')
    await rig.endpoint(receiver.url + "/a", selections=[filtered])
    await rig.endpoint(receiver.url + "/d", selections=[Selection("customers", ("deleted",))])
    await rig.endpoint(
        receiver.url + "/f", selections=[Selection("customers", ("created",), fields="name")]
    )
    ada, bob = customer("c1", name="Ada"), customer("c2", name="Bob")
    await rig.log(("c1", None, ada), ("c2", None, bob))
    renamed = customer("c1", name="Zoe", etag="2")
    await rig.log(("c1", ada, renamed))
    await rig.log(("c1", renamed, None))
    await rig.deliver()

    def told(path: str) -> list[tuple[str, str]]:
        events = [json.loads(r.body) for r in receiver.of(path)]
        events.sort(key=lambda e: int(e["data"]["revision"]))
        return [(e["data"]["key"], e["type"]) for e in events]

    assert told("/a") == [("c1", "customer.created"), ("c1", "customer.left_view")]
    assert told("/d") == [("c1", "customer.deleted")]
    assert {json.dumps(json.loads(r.body)["data"]["record"]) for r in receiver.of("/f")} == {
        '{"name": "Ada"}',
        '{"name": "Bob"}',
    }


async def test_forms_of_bodies(rig: Rig, receiver: Receiver) -> None:
    await rig.endpoint(receiver.url + "/structured", envelope=Envelope.CLOUDEVENTS_STRUCTURED)
    await rig.endpoint(receiver.url + "/binary", envelope=Envelope.CLOUDEVENTS_BINARY)
    await rig.endpoint(receiver.url + "/thin", thin=True)
    await rig.endpoint(receiver.url + "/xml", body=Body.XML)
    await rig.log(("c 1/ü", None, customer("c 1/ü", name="A & <B>", tags=["x", "y"])))
    await rig.deliver()
    (structured,) = receiver.of("/structured")
    document = json.loads(structured.body)
    assert structured.headers["content-type"] == "application/cloudevents+json"
    assert (document["specversion"], document["id"]) == ("1.0", structured.id)
    assert (document["source"], document["subject"]) == (f"{URL}/v1/customers", "c 1/ü")
    assert (document["type"], document["datacontenttype"]) == (
        "customer.created",
        "application/json",
    )
    assert document["revision"] == document["data"]["revision"]
    (binary,) = receiver.of("/binary")
    assert binary.headers["ce-subject"] == "c%201/%C3%BC"
    assert binary.headers["ce-type"] == "customer.created"
    assert json.loads(binary.body) == document["data"]
    (thin,) = receiver.of("/thin")
    assert set(json.loads(thin.body)["data"]) == {"dataset", "key", "revision", "cursor"}
    (xml,) = receiver.of("/xml")
    assert xml.headers["content-type"] == "application/xml"
    root = ElementTree.fromstring(xml.body)
    assert root.findtext("type") == "customer.created"
    record = root.find("data/record/customer")
    assert record is not None and record.findtext("name") == "A & <B>"
    assert [t.text for t in record.findall("tags/item")] == ["x", "y"]


async def test_batches_hold_up_to_their_size(rig: Rig, receiver: Receiver) -> None:
    name = await rig.endpoint(receiver.url + "/in", batch_size=100)
    await rig.endpoint(
        receiver.url + "/ce", batch_size=100, envelope=Envelope.CLOUDEVENTS_STRUCTURED
    )
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(250)])
    await rig.deliver()
    sizes = sorted(len(json.loads(r.body)["data"]) for r in receiver.of("/in"))
    assert sizes == [50, 100, 100]
    assert {json.loads(r.body)["type"] for r in receiver.of("/in")} == {"batch"}
    keys = {e["data"]["key"] for r in receiver.of("/in") for e in json.loads(r.body)["data"]}
    assert len(keys) == 250
    assert len(await rig.states(name)) == 3
    (first, *_) = receiver.of("/ce")
    assert first.headers["content-type"] == "application/cloudevents-batch+json"


async def test_one_record_goes_in_order_and_a_failing_one_parks_itself_alone(
    rig: Rig, receiver: Receiver
) -> None:
    refused = {"c1"}

    async def answer(request: web.Request) -> web.Response:
        key = json.loads(await request.read())["data"]["key"]
        return web.Response(status=500 if key in refused else 200)

    receiver.answers["/in"] = answer
    name = await rig.endpoint(receiver.url + "/in", ordering=Ordering.KEY, concurrency=8)
    images = [customer("c1", name=f"N{i}", etag=str(i)) for i in range(4)]
    await rig.log(("c1", None, images[0]), ("c2", None, customer("c2")))
    for before, after in itertools.pairwise(images):
        await rig.log(("c1", before, after))
    await rig.deliver()
    states = [s for s, _ in await rig.states(name)]
    assert sorted(states) == ["DELIVERED", "PARKED", "PARKED", "PARKED", "PENDING"]
    refused.clear()
    rig.clock.move(seconds=10)
    await rig.deliver()
    taken = [json.loads(r.body)["data"] for r in receiver.of("/in")]
    revisions = [int(d["revision"]) for d in taken if d["key"] == "c1"]
    # The first one twice, then each after the one before it.
    assert revisions[0] == revisions[1]
    assert revisions[1:] == sorted(set(revisions))
    assert len(revisions) == 5
    assert {s for s, _ in await rig.states(name)} == {"DELIVERED"}


async def test_ordered_deliveries_do_not_overtake_under_load(rig: Rig, receiver: Receiver) -> None:
    await rig.endpoint(receiver.url + "/in", ordering=Ordering.KEY, concurrency=16)
    images: dict[str, bytes | None] = dict.fromkeys(("a", "b", "c"))
    for i in range(20):
        changes = []
        for key, before in images.items():
            images[key] = customer(key, name=f"N{i}", etag=str(i))
            changes.append((key, before, images[key]))
        await rig.log(*changes)
    await rig.deliver()
    for key in images:
        found = [json.loads(r.body)["data"] for r in receiver.of("/in")]
        revisions = [int(d["revision"]) for d in found if d["key"] == key]
        assert len(revisions) == 20 and revisions == sorted(revisions)


async def test_concurrency_is_a_bound(rig: Rig, receiver: Receiver) -> None:
    running, most = 0, 0
    full = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 4:
            full.set()
        await full.wait()
        running -= 1
        return web.Response()

    receiver.answers["/in"] = answer
    await rig.endpoint(receiver.url + "/in", concurrency=4)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(12)])
    await rig.deliver()
    assert most == 4


async def test_the_rate_is_a_bound(rig: Rig, receiver: Receiver) -> None:
    await rig.endpoint(receiver.url + "/in", rate=20)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(12)])
    loop = asyncio.get_running_loop()
    start = loop.time()
    await rig.deliver()
    # Two at once, then one every 50 ms; no clock makes it faster.
    assert loop.time() - start >= (12 - 2) / 20 - 0.01
    assert len(receiver.requests) == 12


async def test_ed25519_signs(rig: Rig, receiver: Receiver) -> None:
    from penstock.client.webhooks import verify

    name = await rig.endpoint(receiver.url + "/in", scheme=Scheme.ED25519)
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    (request,) = receiver.requests
    event = verify(request.headers, request.body, rig.keys[name].text, now=START.timestamp())
    assert event["data"]["key"] == "c1"


async def test_a_new_endpoint_hears_only_of_what_comes(rig: Rig, receiver: Receiver) -> None:
    await rig.endpoint(receiver.url + "/old")
    await rig.log(("c1", None, customer("c1")))
    await rig.take_in()
    await rig.endpoint(receiver.url + "/new")
    await rig.log(("c2", None, customer("c2")))
    await rig.deliver()
    assert len(receiver.of("/old")) == 2
    assert [json.loads(r.body)["data"]["key"] for r in receiver.of("/new")] == ["c2"]


async def test_rotation_ends_when_the_overlap_does(rig: Rig, receiver: Receiver) -> None:
    from datetime import timedelta

    from penstockd.webhooks.endpoints import expire_secrets, put_secret
    from penstockd.webhooks.signing import new_secret

    name = await rig.endpoint(receiver.url + "/in")
    async with rig.database.transaction() as connection:
        await expire_secrets(connection, name, rig.clock() + timedelta(hours=1))
        fresh = new_secret(Scheme.HMAC, rig.clock())
        await put_secret(connection, name, fresh, rig.seal)
    for i in range(2):
        await rig.log((f"c{i}", None, customer(f"c{i}")))
        await rig.deliver()
        rig.clock.move(hours=1)
    counts = [len(r.headers["webhook-signature"].split()) for r in receiver.requests]
    assert counts == [2, 1]


async def test_what_is_due_later_waits(rig: Rig, receiver: Receiver) -> None:
    receiver.answers["/in"] = status(500)
    await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    assert await rig.deliver() == 1
    assert await rig.deliver() == 0
    rig.clock.move(seconds=4.9)
    assert await rig.deliver() == 0
    rig.clock.move(seconds=0.2)
    assert await rig.deliver() == 1
