"""Webhooks and what they were sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from google.protobuf.empty_pb2 import Empty

from penstock.hub.v1 import webhooks_pb2 as pb
from penstockd.commands.webhooks.acknowledge_deliveries import acknowledge_deliveries
from penstockd.commands.webhooks.create_webhook import create_webhook
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
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange
from penstockd.rpc.hub.messages import duration_of, routes_of, time_of
from penstockd.rpc.hub.webhook_messages import (
    change_of,
    delivery_message,
    metrics_message,
    notice_message,
    scheme_of,
    webhook_message,
    webhook_of,
)
from penstockd.webhooks.endpoints import Stored
from penstockd.webhooks.model import DeliveryState, Scheme, now
from penstockd.webhooks.owners import problems
from penstockd.webhooks.pulling import Outcome
from penstockd.webhooks.search import Filter
from penstockd.webhooks.signing import Secret

_SERVICE = pb.DESCRIPTOR.services_by_name["Webhooks"]


def routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListWebhooks": _list,
            "GetWebhook": _get,
            "CreateWebhook": _create,
            "UpdateWebhook": _update,
            "DeleteWebhook": _delete,
            "TestWebhook": _test,
            "PauseWebhook": _pause,
            "ResumeWebhook": _resume,
            "RotateSecret": _rotate,
            "ListDeliveries": _list_deliveries,
            "GetDelivery": _get_delivery,
            "ResendDelivery": _resend,
            "RecoverDeliveries": _recover,
            "ReplayChanges": _replay,
            "ListDeadLetters": _list_dead,
            "ListNotices": _list_notices,
            "GetWebhookMetrics": _get_metrics,
            "PullDeliveries": _pull,
            "AcknowledgeDeliveries": _acknowledge,
        },
    )


async def _list(request: pb.ListWebhooksRequest, exchange: Exchange) -> pb.ListWebhooksResponse:
    found, token = await list_webhooks(
        exchange.hub,
        exchange.call,
        request.page_size,
        request.page_token,
        everybody=request.everybody,
    )
    messages = [_message(exchange, stored) for stored in found]
    return pb.ListWebhooksResponse(webhooks=messages, next_page_token=token)


async def _get(request: pb.GetWebhookRequest, exchange: Exchange) -> pb.Webhook:
    return _message(exchange, await get_webhook(exchange.hub, exchange.call, request.webhook_id))


async def _create(request: pb.CreateWebhookRequest, exchange: Exchange) -> pb.IssuedSecret:
    draft = webhook_of(request.webhook)
    scheme = scheme_of(request.webhook.options.signature) or Scheme.HMAC
    made, secret = await create_webhook(exchange.hub, exchange.call, draft, scheme)
    return _issued(exchange, made, secret)


async def _update(request: pb.UpdateWebhookRequest, exchange: Exchange) -> pb.Webhook:
    name, change = request.webhook.webhook_id, change_of(request)
    found, secret = await update_webhook(exchange.hub, exchange.call, name, change)
    message = _message(exchange, found)
    if secret is not None:
        message.secret = secret.text
    return message


async def _delete(request: pb.DeleteWebhookRequest, exchange: Exchange) -> Empty:
    await delete_webhook(exchange.hub, exchange.call, request.webhook_id)
    return Empty()


async def _test(request: pb.TestWebhookRequest, exchange: Exchange) -> pb.Delivery:
    return delivery_message(await send_test(exchange.hub, exchange.call, request.webhook_id))


async def _pause(request: pb.PauseWebhookRequest, exchange: Exchange) -> pb.Webhook:
    return _message(exchange, await pause_webhook(exchange.hub, exchange.call, request.webhook_id))


async def _resume(request: pb.ResumeWebhookRequest, exchange: Exchange) -> pb.Webhook:
    return _message(exchange, await resume_webhook(exchange.hub, exchange.call, request.webhook_id))


async def _rotate(request: pb.RotateSecretRequest, exchange: Exchange) -> pb.IssuedSecret:
    overlap = duration_of(request, "overlap", timedelta(days=1))
    found, secret = await rotate_secret(
        exchange.hub, exchange.call, request.webhook_id, overlap, scheme_of(request.signature)
    )
    return _issued(exchange, found, secret)


async def _list_deliveries(
    request: pb.ListDeliveriesRequest, exchange: Exchange
) -> pb.ListDeliveriesResponse:
    state = None
    if request.state:
        state = DeliveryState(pb.Delivery.State.Name(request.state))
    wanted = Filter(
        state,
        request.reason,
        request.event_type,
        request.key,
        time_of(request, "start_time"),
        time_of(request, "end_time"),
    )
    found, token = await list_deliveries(
        exchange.hub,
        exchange.call,
        request.webhook_id,
        wanted,
        request.page_size,
        request.page_token,
    )
    messages = map(delivery_message, found)
    return pb.ListDeliveriesResponse(deliveries=messages, next_page_token=token)


async def _list_dead(
    request: pb.ListDeadLettersRequest, exchange: Exchange
) -> pb.ListDeliveriesResponse:
    wanted = Filter(
        DeliveryState.DEAD,
        request.reason,
        start=time_of(request, "start_time"),
        end=time_of(request, "end_time"),
    )
    found, token = await list_dead_letters(
        exchange.hub, exchange.call, wanted, request.page_size, request.page_token
    )
    messages = map(delivery_message, found)
    return pb.ListDeliveriesResponse(deliveries=messages, next_page_token=token)


async def _get_delivery(request: pb.GetDeliveryRequest, exchange: Exchange) -> pb.Delivery:
    return delivery_message(
        *await get_delivery(exchange.hub, exchange.call, request.webhook_id, request.delivery_id)
    )


async def _resend(request: pb.ResendDeliveryRequest, exchange: Exchange) -> pb.Delivery:
    return delivery_message(
        await resend_delivery(exchange.hub, exchange.call, request.webhook_id, request.delivery_id)
    )


async def _recover(
    request: pb.RecoverDeliveriesRequest, exchange: Exchange
) -> pb.RecoverDeliveriesResponse:
    start = time_of(request, "start_time")
    count = await recover_deliveries(
        exchange.hub, exchange.call, request.webhook_id, start, time_of(request, "end_time")
    )
    return pb.RecoverDeliveriesResponse(delivery_count=count)


async def _replay(request: pb.ReplayChangesRequest, exchange: Exchange) -> pb.Webhook:
    found = await replay_changes(
        exchange.hub, exchange.call, request.webhook_id, request.cursor, request.end_cursor
    )
    return _message(exchange, found)


async def _list_notices(
    request: pb.ListNoticesRequest, exchange: Exchange
) -> pb.ListNoticesResponse:
    found, token = await list_notices(
        exchange.hub, exchange.call, request.page_size, request.page_token
    )
    return pb.ListNoticesResponse(notices=map(notice_message, found), next_page_token=token)


async def _get_metrics(
    request: pb.GetWebhookMetricsRequest, exchange: Exchange
) -> pb.WebhookMetrics:
    start = time_of(request, "start_time")
    figures = await get_metrics(exchange.hub, exchange.call, request.webhook_id, start)
    return metrics_message(figures, now())


async def _pull(request: pb.PullDeliveriesRequest, exchange: Exchange) -> pb.PullDeliveriesResponse:
    wait = duration_of(request, "wait", timedelta())
    found = await pull_deliveries(
        exchange.hub, exchange.call, request.webhook_id, request.max_deliveries, wait
    )
    return pb.PullDeliveriesResponse(
        deliveries=[
            pb.PulledDelivery(
                delivery_id=p.delivery_id, event_type=p.event_type, headers=p.headers, body=p.body
            )
            for p in found
        ]
    )


async def _acknowledge(request: pb.AcknowledgeDeliveriesRequest, exchange: Exchange) -> Empty:
    outcomes = [
        Outcome(o.delivery_id, o.status, duration_of(o, "latency", timedelta()), o.response_head)
        for o in request.outcomes
    ]
    await acknowledge_deliveries(exchange.hub, exchange.call, request.webhook_id, outcomes)
    return Empty()


def _message(exchange: Exchange, stored: Stored) -> pb.Webhook:
    found = problems(exchange.call.policy, exchange.hub.catalog, stored.webhook)
    return webhook_message(stored, found)


def _issued(exchange: Exchange, stored: Stored, secret: Secret) -> pb.IssuedSecret:
    return pb.IssuedSecret(webhook=_message(exchange, stored), secret=secret.text)
