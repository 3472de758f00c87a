"""What receivers and owners are told about changes that are gone and webhooks that pause."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from penstockd.errors import CursorExpired
from penstockd.shapes.model import ShapeColumn, ShapeDefinition
from penstockd.store.cursor import Cursor
from penstockd.store.shapes import insert_shape
from penstockd.webhooks.model import Selection, State
from penstockd.webhooks.settling import PAUSED, SKIPPED
from places import PLACES
from webhook_rig import Receiver, Rig, customer

from .test_views import GRANT, narrow


async def close_log(rig: Rig) -> int:
    """Prune the whole log; returns the last number."""
    async with rig.database.transaction() as connection:
        last: int = await connection.fetchval("SELECT last_number FROM hub.log_head")
        await connection.execute("SELECT hub.prune_log($1)", last)
    return last


async def skip(rig: Rig) -> None:
    """What the organ does when the log no longer has what the intake wants next."""
    with pytest.raises(CursorExpired) as caught:
        await rig.take_in()
    await rig.intake.skip_expired(caught.value.places["oldest"])


def notices(receiver: Receiver, path: str) -> list[Any]:
    bodies = [orjson.loads(r.body) for r in receiver.of(path)]
    return [b["data"] for b in bodies if b["type"] == SKIPPED]


async def start_at(rig: Rig, name: str, number: int) -> None:
    async with rig.database.transaction() as connection:
        await connection.execute(
            "UPDATE hub.webhook SET start_number = $2, title = 'x' WHERE webhook_id = $1",
            name,
            number,
        )


async def test_receivers_learn_which_changes_a_closed_log_has_dropped(
    rig: Rig, receiver: Receiver
) -> None:
    name = await rig.endpoint(receiver.url + "/behind")
    late = await rig.endpoint(receiver.url + "/late")
    await rig.log(("c1", None, customer("c1")))
    assert await rig.deliver() == 2
    # The notice needs no right to read webhooks.
    await narrow(rig, "UPDATE hub.role SET permissions = '{webhooks.write}' WHERE role_id = 'crm'")
    (before,) = (await rig.rows("SELECT last_number FROM hub.log_head"))[0]
    await rig.log(("c2", None, customer("c2")), ("c3", None, customer("c3")))
    after = await close_log(rig)
    await start_at(rig, late, after)  # as if it had been made after the log was closed
    await skip(rig)
    await rig.log(("c4", None, customer("c4")))
    assert await rig.deliver() == 3
    (told,) = notices(receiver, "/behind")
    assert (told["webhookId"], told["replay"], told["reconcile"]) == (name, False, "REPAIR")
    sequences = PLACES.sequences
    assert told["afterRevision"] == str(sequences.sequence(before))
    assert told["revision"] == str(sequences.sequence(after))
    assert PLACES.open(told["cursor"]).number == after
    assert not notices(receiver, "/late")  # the control: it misses nothing
    keys = [orjson.loads(r.body)["data"].get("key") for r in receiver.of("/behind")]
    assert [k for k in keys if k] == ["c1", "c4"]
    kept = await rig.rows("SELECT webhook_id, type FROM hub.webhook_notice")
    assert kept == [(name, SKIPPED)]


async def test_a_log_that_is_closed_behind_the_intake_is_no_news(
    rig: Rig, receiver: Receiver
) -> None:
    """Negative control."""
    await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    assert await rig.deliver() == 1
    await close_log(rig)
    await rig.log(("c2", None, customer("c2")))
    assert await rig.deliver() == 1
    assert await rig.rows("SELECT 1 FROM hub.webhook_notice") == []


async def test_a_replay_that_the_log_cannot_give_ends_alone_and_says_so(
    rig: Rig, receiver: Receiver
) -> None:
    """It does not send the intake back: others would get changes twice."""
    name = await rig.endpoint(receiver.url + "/replayed")
    other = await rig.endpoint(receiver.url + "/other")
    await rig.log(*[(f"c{n}", None, customer(f"c{n}")) for n in range(3)])
    assert await rig.deliver() == 6
    last = await close_log(rig)
    await rig.log(("c9", None, customer("c9")))
    assert await rig.deliver() == 2
    async with rig.database.transaction() as connection:
        await connection.execute(
            "UPDATE hub.webhook SET replay_number = 0, replay_end = $2, title = 'x'"
            " WHERE webhook_id = $1",
            name,
            last,
        )
    place = await rig.rows("SELECT cursor FROM hub.webhook_head")
    await skip(rig)
    assert await rig.rows("SELECT cursor FROM hub.webhook_head") == place
    assert Cursor.parse(place[0][0]).number > last
    assert await rig.deliver() == 1
    (told,) = notices(receiver, "/replayed")
    assert (told["replay"], told["afterRevision"]) == (True, str(PLACES.sequences.sequence(0)))
    assert not notices(receiver, "/other") and len(await rig.states(other)) == 4
    assert await rig.rows("SELECT 1 FROM hub.webhook WHERE replay_end IS NOT NULL") == []


async def test_the_owner_learns_that_a_webhook_pauses_for_its_shape(
    rig: Rig, receiver: Receiver
) -> None:
    columns = [ShapeColumn("Name", field="name")]
    document = ShapeDefinition("customers", columns).document().decode()
    async with rig.database.transaction() as connection:
        await insert_shape(connection, "crm", "names", document)
    shaped = [Selection("customers", shape="names")]
    name = await rig.endpoint(receiver.url + "/shaped", selections=shaped)
    await rig.endpoint(receiver.url + "/hears", selections=[Selection("orders")], notices=True)
    await rig.deliver()
    assert await rig.rows("SELECT 1 FROM hub.webhook_notice") == []  # the control: it fits
    await narrow(rig, GRANT.format("""field_masks = '{"name": "hide"}'"""))
    for _ in range(2):
        await rig.deliver()
    webhook = await rig.webhook(name)
    assert webhook.state is State.PAUSED and "'name'" in webhook.reason
    kept = await rig.rows("SELECT webhook_id, type, data::jsonb->>'reason' FROM hub.webhook_notice")
    assert kept == [(name, PAUSED, webhook.reason)]
    (post,) = receiver.of("/hears")
    assert orjson.loads(post.body)["type"] == PAUSED
