"""Commands of webhooks: which ones a caller may use, what they write, and what they disclose."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from fake_organs import CommitFailed, HubLike, Row
from penstockd.commands.webhooks.acknowledge_deliveries import acknowledge_deliveries
from penstockd.commands.webhooks.create_webhook import MAX_WEBHOOKS, create_webhook
from penstockd.commands.webhooks.delete_webhook import delete_webhook
from penstockd.commands.webhooks.get_delivery import get_delivery
from penstockd.commands.webhooks.get_metrics import get_metrics
from penstockd.commands.webhooks.get_webhook import get_webhook
from penstockd.commands.webhooks.list_dead_letters import list_dead_letters
from penstockd.commands.webhooks.list_deliveries import list_deliveries
from penstockd.commands.webhooks.list_notices import list_notices
from penstockd.commands.webhooks.list_webhooks import list_webhooks
from penstockd.commands.webhooks.pause_webhook import pause_webhook
from penstockd.commands.webhooks.pull_deliveries import pull_deliveries
from penstockd.commands.webhooks.recover_deliveries import recover_deliveries
from penstockd.commands.webhooks.replay_changes import replay_changes
from penstockd.commands.webhooks.resend_delivery import resend_delivery
from penstockd.commands.webhooks.resume_webhook import resume_webhook
from penstockd.commands.webhooks.rotate_secret import rotate_secret
from penstockd.commands.webhooks.send_test import send_test
from penstockd.commands.webhooks.update_webhook import update_webhook
from penstockd.errors import PermissionDenied, ValueInvalid
from penstockd.policy.model import Action, Grant, Mask, Permission, Role
from penstockd.webhooks.errors import (
    DeliveryNotFound,
    ReplayUnderWay,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookKindUnfit,
    WebhookNotFound,
)
from penstockd.webhooks.model import Options, Scheme, Selection, Webhook, WebhookKind
from penstockd.webhooks.pulling import Outcome
from penstockd.webhooks.search import Filter
from places import PLACES

NOW = datetime(2026, 3, 1, tzinfo=UTC)
URL = "https://receiver.example/hook"
READER = Role(
    "reader",
    "",
    (Grant("reader", "customers", frozenset({Action.READ}), {}, {"name": Mask.CLEAR}, ""),),
    frozenset({Permission.WEBHOOKS_READ, Permission.WEBHOOKS_WRITE}),
)


def webhook_row(**changes: Any) -> Row:
    known: dict[str, Any] = {
        "webhook_id": "w", "consumer_id": "caller", "kind": "HTTP",
        "selections": orjson.dumps([Selection("customers").document()]),
        "options": orjson.dumps(Options().document()), "title": "", "url": URL, "headers": None,
        "scopes": None, "claims": "{}", "state": "ACTIVE", "reason": "", "failing_time": None,
        "warned": 0, "start_number": 0, "replay_number": None, "replay_end": None,
        "create_time": NOW, "update_time": NOW, "expire_time": None,
    }  # fmt: skip
    return Row.of(**(known | changes))


def delivery_row() -> Row:
    names = (
        "delivery_id", "webhook_id", "cause", "event_type", "event_count", "dataset", "key",
        "state", "reason", "attempt_count", "event_time", "create_time", "next_time",
        "finish_time",
    )  # fmt: skip
    values = ("d", "w", "EVENT", "customer.created", 1, "customers", "c1", "DEAD", "", 1)
    return Row.of(**dict(zip(names, (*values, NOW, NOW, None, NOW), strict=True)))


def taken_row(cause: str = "TEST") -> tuple[Any, ...]:
    notice = '{"message": "It works."}'
    return ("d", "w", cause, "webhook.test", [], [], notice, None, 1, 1, NOW)


@pytest.fixture
def hub(make_hub: Any) -> HubLike:
    """A hub with the caller's webhook, and a delivery that has failed for good."""
    hub = make_hub(READER)
    with_webhook(hub)
    hub.give(
        {
            "cardinality(d.event_ids)": lambda *a: [delivery_row()] if "none" not in a else [],
            "SELECT epoch FROM hub.log_head": [("0" * 16,)],
            "last_number": [(9,)],
        }
    )
    return hub


def with_webhook(hub: HubLike, **changes: Any) -> None:
    hub.give({"FROM hub.webhook ": lambda *a: [webhook_row(**changes)] if "no" not in a else []})


async def test_get_webhook(hub: HubLike) -> None:
    stored = await get_webhook(hub, call := hub.call(), "w")
    assert (stored.webhook.url, stored.replay) == (URL, None)
    assert (call.entry.record_key, call.entry.row_count) == ("webhooks/w", 1)


async def test_a_webhook_of_another_consumer_is_as_one_that_is_not_there(hub: HubLike) -> None:
    with_webhook(hub, consumer_id="other")
    texts = set()
    for name in ("w", "no"):
        with pytest.raises(WebhookNotFound) as raised:
            await get_webhook(hub, hub.call(), name)
        texts.add(str(raised.value).replace(f"'{name}'", "?"))
    assert len(texts) == 1


async def test_list_webhooks(hub: HubLike) -> None:
    found, token = await list_webhooks(hub, hub.call(), 0, "", everybody=False)
    assert ([s.webhook.webhook_id for s in found], token) == (["w"], "")
    with pytest.raises(PermissionDenied):
        await list_webhooks(hub, hub.call(), 0, "", everybody=True)


def draft(**changes: Any) -> Webhook:
    return replace(Webhook("", "", WebhookKind.HTTP, (Selection("customers"),), url=URL), **changes)


async def test_create_webhook(hub: HubLike) -> None:
    hub.give({"SELECT count(*) FROM hub.webhook": [(3,)]})
    _, secret = await create_webhook(hub, call := hub.call(), draft(), Scheme.HMAC)
    assert secret.text.startswith("whsec_") and call.recorded
    (kept,) = hub.asked("INSERT INTO hub.webhook_secret")
    assert secret.key not in kept  # the store has it sealed
    asked = orjson.loads(call.entry.query or "{}")
    assert asked == {"url": "https://receiver.example", "datasets": ["customers"]}
    with pytest.raises(PermissionDenied):  # for somebody else
        await create_webhook(hub, hub.call(), draft(consumer_id="other"), Scheme.HMAC)
    hub.give({"SELECT count(*) FROM hub.webhook": [(MAX_WEBHOOKS,)]})
    with pytest.raises(TooManyWebhooks):
        await create_webhook(hub, hub.call(), draft(), Scheme.HMAC)


async def test_create_webhook_of_what_the_owner_may_not_read(hub: HubLike) -> None:
    with pytest.raises(PermissionDenied):
        selections = (Selection("orders"),)
        await create_webhook(hub, hub.call(), draft(selections=selections), Scheme.HMAC)
    assert hub.asked("INSERT INTO hub.webhook") == []


async def test_update_webhook_at_another_origin_forgets_secrets_and_headers(hub: HubLike) -> None:
    def moved(webhook: Webhook) -> Webhook:
        return replace(webhook, url="https://elsewhere.example/hook")

    _, secret = await update_webhook(hub, call := hub.call(), "w", moved)
    assert secret is not None and call.recorded
    assert hub.asked("DELETE FROM hub.webhook_secret") == [("w",)]
    _, none = await update_webhook(hub, hub.call(), "w", lambda w: replace(w, title="New"))
    assert none is None and len(hub.asked("DELETE FROM hub.webhook_secret")) == 1


async def test_a_token_that_reads_less_changes_nothing(hub: HubLike) -> None:
    scopes = frozenset({"webhooks.write", "orders:read"})
    for change in (pause_webhook, resume_webhook, delete_webhook, send_test):
        with pytest.raises(PermissionDenied, match="customers"):
            await change(hub, hub.call(scopes=scopes), "w")
    assert hub.database.committed == 0


async def test_delete_webhook(hub: HubLike) -> None:
    await delete_webhook(hub, call := hub.call(), "w")
    assert hub.asked("DELETE FROM hub.webhook WHERE") == [("w",)] and call.recorded


async def test_pause_webhook(hub: HubLike) -> None:
    await pause_webhook(hub, call := hub.call(), "w")
    assert hub.asked("UPDATE hub.webhook SET state") == [("w", "PAUSED", "")] and call.recorded
    with_webhook(hub, state="DISABLED", reason="GONE")
    with pytest.raises(WebhookDisabled):
        await pause_webhook(hub, hub.call(), "w")


async def test_resume_webhook(hub: HubLike) -> None:
    with_webhook(hub, state="DISABLED", reason="GONE")
    await resume_webhook(hub, hub.call(), "w")
    assert hub.asked("UPDATE hub.webhook SET state") == [("w", "ACTIVE", "")]


async def test_rotate_secret(hub: HubLike) -> None:
    _, secret = await rotate_secret(hub, hub.call(), "w", timedelta(days=1), Scheme.ED25519)
    assert secret.text.startswith("whpk_")
    assert len(hub.asked("SET expire_time = least")) == 1
    with pytest.raises(ValueInvalid):
        await rotate_secret(hub, hub.call(), "w", timedelta(days=31), None)


async def test_list_deliveries(hub: HubLike) -> None:
    found, _ = await list_deliveries(hub, hub.call(), "w", Filter(), 0, "")
    assert found[0].values["key"] == "c1"
    narrow = frozenset({"webhooks.read", "orders:read"})
    found, _ = await list_deliveries(hub, hub.call(scopes=narrow), "w", Filter(), 0, "")
    assert found[0].values["key"] is None
    with pytest.raises(PermissionDenied):
        await list_deliveries(hub, hub.call(scopes=narrow), "w", Filter(key="c1"), 0, "")


async def test_list_dead_letters(hub: HubLike) -> None:
    found, _ = await list_dead_letters(hub, call := hub.call(), Filter(), 0, "")
    assert [d.delivery_id for d in found] == ["d"] and call.entry.row_count == 1


async def test_get_delivery(hub: HubLike) -> None:
    hub.give({"attempt_count + 1, tries + 1": [taken_row()]})
    listed, attempts, body = await get_delivery(hub, call := hub.call(), "w", "d")
    assert (listed.delivery_id, attempts) == ("d", []) and b"It works." in body
    assert call.disclosed == 0  # a test message shows no record
    narrow = frozenset({"webhooks.read", "orders:read"})
    listed, _, body = await get_delivery(hub, hub.call(scopes=narrow), "w", "d")
    assert (listed.values["key"], body) == (None, b"")
    with pytest.raises(DeliveryNotFound):
        await get_delivery(hub, hub.call(), "w", "none")


async def test_get_metrics(hub: HubLike) -> None:
    hub.give({"percentile_disc": [(4, 3, 1, [1.0])], "count(*), min(create_time)": [(0, None)]})
    figures = await get_metrics(hub, hub.call(), "w", None)
    assert (figures.attempts, figures.delivered) == (4, 3)


async def test_list_notices(hub: HubLike) -> None:
    hub.give({"FROM hub.webhook_notice": [Row.of(notice_id=1, type="webhook.failing")]})
    found, token = await list_notices(hub, hub.call(), 0, "")
    assert (found[0]["notice_id"], token) == (1, "")
    assert hub.asked("FROM hub.webhook_notice")[0][0] == "caller"


async def test_resend_delivery(hub: HubLike) -> None:
    listed = await resend_delivery(hub, call := hub.call(), "w", "d")
    assert listed.delivery_id == "d" and call.recorded and hub.announcements.made
    with pytest.raises(DeliveryNotFound):
        await resend_delivery(hub, hub.call(), "w", "none")
    assert hub.database.transactions[-1] == "rolled back"


async def test_recover_deliveries(hub: HubLike) -> None:
    await recover_deliveries(hub, call := hub.call(), "w", NOW, None)
    assert call.recorded and hub.announcements.made
    with pytest.raises(ValueInvalid):
        await recover_deliveries(hub, hub.call(), "w", None, None)
    with_webhook(hub, state="DISABLED", reason="GONE")
    with pytest.raises(WebhookDisabled):
        await recover_deliveries(hub, hub.call(), "w", NOW, None)


async def test_send_test(hub: HubLike) -> None:
    await send_test(hub, call := hub.call(), "w")
    ((record,),) = hub.asked("COPY webhook_delivery")
    assert "webhook.test" in record and call.recorded and hub.announcements.made
    hub.database.commits_fail = True
    with pytest.raises(CommitFailed):
        await send_test(hub, call := hub.call(), "w")
    assert not call.recorded


async def test_replay_changes_is_refused_while_one_runs(hub: HubLike) -> None:
    cursor = PLACES.seal(hub.feed.cursor)
    with_webhook(hub, replay_end=9)
    with pytest.raises(ReplayUnderWay):
        await replay_changes(hub, hub.call(), "w", cursor, "")
    with_webhook(hub, state="DISABLED", reason="GONE")
    with pytest.raises(WebhookDisabled):
        await replay_changes(hub, hub.call(), "w", cursor, "")


async def test_pull_deliveries(hub: HubLike) -> None:
    with pytest.raises(WebhookKindUnfit):
        await pull_deliveries(hub, hub.call(), "w", 1, timedelta())
    with_webhook(hub, kind="LISTEN", url="")
    hub.give({"FOR UPDATE OF d": [("d", "w", 100)], "SET state = 'SENDING'": [taken_row()]})
    (pulled,) = await pull_deliveries(hub, call := hub.call(), "w", 1, timedelta())
    assert b"It works." in pulled.body and call.entry.row_count == 1
    assert len(hub.asked("UPDATE hub.webhook_delivery SET next_time = $2")) == 1  # leased
    assert len(hub.asked("hub.audit_entry")) == 1 or hub.asked("COPY audit_entry")


async def test_acknowledge_deliveries(hub: HubLike) -> None:
    with_webhook(hub, kind="LISTEN", url="")
    hub.give({"FOR UPDATE": [taken_row()], "FOR KEY SHARE": [("w",)]})
    outcome = Outcome("d", 200, timedelta(milliseconds=5), "HTTP/1.1 200 OK")
    with_webhook(hub, kind="LISTEN", url="")
    await acknowledge_deliveries(hub, call := hub.call(), "w", [outcome])
    assert call.entry.row_count == 1 and call.recorded
    (settled,) = hub.asked("UPDATE hub.webhook_delivery AS d\nSET state = s.state")
    assert settled[:2] == (["d"], ["DELIVERED"])
