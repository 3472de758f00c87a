"""Commands of subscriptions: which ones a caller may use, and what they refuse before any query."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from fake_organs import CALLER, NOBODY, CommitFailed, HubLike, Row
from penstockd.auth.tickets import ShownTicket
from penstockd.commands.create_stream_ticket import create_stream_ticket
from penstockd.commands.subscriptions.acknowledge_changes import acknowledge_changes
from penstockd.commands.subscriptions.create_subscription import create_subscription
from penstockd.commands.subscriptions.delete_subscription import delete_subscription
from penstockd.commands.subscriptions.extend_lease import extend_lease
from penstockd.commands.subscriptions.get_subscription import get_subscription
from penstockd.commands.subscriptions.list_subscriptions import list_subscriptions
from penstockd.commands.subscriptions.pull_changes import pull_changes
from penstockd.commands.subscriptions.release_lease import release_lease
from penstockd.commands.subscriptions.reset_subscription import reset_subscription
from penstockd.commands.subscriptions.watch_subscription import watch_subscription
from penstockd.errors import (
    LeaseUnknown,
    PermissionDenied,
    SubscriptionNotFound,
    ValueInvalid,
)
from penstockd.policy.model import Action, Grant, Role
from penstockd.store.subscriptions import SubscriptionTerms
from penstockd.subscriptions.stream import Flow
from penstockd.subscriptions.take import Pull
from places import PLACES

NOW = datetime(2026, 3, 1, tzinfo=UTC)
READER = Role("reader", "", (Grant("reader", "customers", frozenset({Action.READ}), {}, {}, ""),))
ELSEWHERE = frozenset({"orders:read"})
#: A lease of another subscription, in the form that its holder has.
LEASE = PLACES.seal_lease(f"{'f' * 16}-1-7-{'0' * 16}")


@pytest.fixture
def hub(make_hub: Any) -> HubLike:
    """A hub whose caller owns the subscription "line" of customers."""
    hub = make_hub(READER)
    place = hub.feed.cursor.stored
    row = Row.of(
        consumer_id=CALLER, subscription_id="line", lineage="0" * 16, datasets=["customers"],
        filter="", fields="", operations=[], include_before=False, ordered=True, shapes=[],
        position=place,
        epoch=1, next_lease=1, create_time=NOW, update_time=NOW, undone=False, starts=None,
        lease_count=0, outstanding=0,
    )  # fmt: skip
    hub.give(
        {
            "FROM hub.epoch_head AS h CROSS JOIN": lambda *a: [] if "none" in a else [row],
            "AS undone FROM hub.subscription": lambda *a: [] if "none" in a else [row],
        }
    )
    return hub


async def test_get_subscription(hub: HubLike) -> None:
    found = await get_subscription(hub, call := hub.call(), "line")
    assert (found.subscription_id, call.entry.record_key) == ("line", "line")
    for name in ("none", "No such id"):
        with pytest.raises(SubscriptionNotFound):
            await get_subscription(hub, hub.call(), name)


async def test_list_subscriptions_of_what_the_token_may_read(hub: HubLike) -> None:
    found, token = await list_subscriptions(hub, call := hub.call(), 0, "")
    assert (len(found), token) == (1, "")
    assert call.entry.row_count == 1
    with pytest.raises(PermissionDenied):  # it may read nothing at all
        await list_subscriptions(hub, hub.call(scopes=ELSEWHERE), 0, "")


async def test_create_subscription(hub: HubLike) -> None:
    hub.give({"SELECT count(*) FROM hub.subscription": [(0,)]})
    terms = SubscriptionTerms(["customers"])
    made = await create_subscription(hub, call := hub.call(), "line", terms, "now")
    assert made.terms.datasets == ["customers"] and call.recorded
    assert hub.asked("INSERT INTO hub.subscription")[0][:2] == (CALLER, "line")
    for name, bad in (("Not an id", terms), ("line", SubscriptionTerms([], filter="name = 'x'"))):
        with pytest.raises(ValueInvalid):
            await create_subscription(hub, hub.call(), name, bad, "now")
    with pytest.raises(PermissionDenied):
        await create_subscription(hub, hub.call(), "line", SubscriptionTerms(["orders"]), "now")


async def test_delete_subscription(hub: HubLike) -> None:
    await delete_subscription(hub, call := hub.call(), "line")
    assert hub.asked("DELETE FROM hub.subscription") == [(CALLER, "line")]
    # Waiting callers learn that it is gone.
    assert call.recorded and hub.announcements.made
    hub.database.commits_fail = True
    with pytest.raises(CommitFailed):
        await delete_subscription(hub, call := hub.call(), "line")
    assert not call.recorded


async def test_a_token_that_may_not_read_the_dataset_changes_nothing(hub: HubLike) -> None:
    for work in (
        delete_subscription(hub, hub.call(scopes=ELSEWHERE), "line"),
        acknowledge_changes(hub, hub.call(scopes=ELSEWHERE), "line", LEASE, ""),
        extend_lease(hub, hub.call(scopes=ELSEWHERE), "line", LEASE, 0),
        release_lease(hub, hub.call(scopes=ELSEWHERE), "line", LEASE),
        reset_subscription(hub, hub.call(scopes=ELSEWHERE), "line", "now"),
    ):
        with pytest.raises(PermissionDenied):
            await work
    assert hub.database.committed == 0


async def test_acknowledge_changes_takes_a_lease_or_a_cursor(hub: HubLike) -> None:
    for lease, cursor in (("", ""), (LEASE, hub.places.seal(hub.feed.cursor))):
        with pytest.raises(ValueInvalid):
            await acknowledge_changes(hub, hub.call(), "line", lease, cursor)
    with pytest.raises(LeaseUnknown):
        await acknowledge_changes(hub, call := hub.call(), "line", LEASE, "")
    assert not call.recorded


async def test_extend_lease(hub: HubLike) -> None:
    with pytest.raises(LeaseUnknown):
        await extend_lease(hub, hub.call(), "line", LEASE, 60)
    with pytest.raises(ValueInvalid):
        await extend_lease(hub, hub.call(), "line", LEASE, 3601)


async def test_release_lease(hub: HubLike) -> None:
    with pytest.raises(LeaseUnknown):
        await release_lease(hub, hub.call(), "line", LEASE)


async def test_reset_subscription(hub: HubLike) -> None:
    found = await reset_subscription(hub, call := hub.call(), "line", "now")
    assert found.subscription_id == "line" and call.recorded
    assert hub.asked("DELETE FROM hub.subscription_lease")


async def test_pull_changes_checks_what_is_asked(hub: HubLike) -> None:
    for pull in (Pull(wait=31), Pull(max_changes=-1), Pull(ack_seconds=3601)):
        with pytest.raises(ValueInvalid):
            await pull_changes(hub, hub.call(), "line", pull)
    with pytest.raises(SubscriptionNotFound):
        await pull_changes(hub, hub.call(), "none", Pull())
    with pytest.raises(PermissionDenied):
        await pull_changes(hub, hub.call(caller="nobody"), "line", Pull())


async def test_watch_subscription_sends_nothing_that_is_refused(hub: HubLike) -> None:
    reply: Any = SimpleNamespace()
    with pytest.raises(ValueInvalid):
        await watch_subscription(hub, hub.call(), "line", Flow(heartbeat_seconds=-1), reply)
    with pytest.raises(SubscriptionNotFound):
        await watch_subscription(hub, hub.call(), "none", Flow(), reply)


def test_create_stream_ticket(make_hub: Any) -> None:
    """For one feed and its caller; who may read nothing gets none."""
    hub, feed = make_hub(READER), "/v1/customers:watch"
    text, made = create_stream_ticket(hub, hub.call(), feed, "a token")
    assert hub.tickets.open(ShownTicket(text, feed)) == made
    assert (made.consumer_id, made.token) == (CALLER, "a token")
    assert hub.tickets.open(ShownTicket(text, "/v1/orders:watch")) is None
    with pytest.raises(PermissionDenied):
        create_stream_ticket(hub, hub.call(caller=NOBODY), feed, "")
