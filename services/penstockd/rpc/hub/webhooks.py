"""Webhooks and their deliveries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

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
from penstockd.commands.webhooks.rotate_secret import USUAL_OVERLAP, rotate_secret
from penstockd.commands.webhooks.send_test import send_test
from penstockd.commands.webhooks.update_webhook import update_webhook
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.messages import duration_of, time_of
from penstockd.rpc.hub.webhook_messages import (
    change_of,
    delivery_message,
    metrics_message,
    notice_message,
    scheme_of,
    set_paths,
    webhook_message,
    webhook_of,
)
from penstockd.rpc.routes import routes_of
from penstockd.webhooks.endpoints import Stored
from penstockd.webhooks.model import DeliveryState, read_clock
from penstockd.webhooks.pulling import Outcome
from penstockd.webhooks.search import Filter

#: The fields that every reply about a webhook shows.
_ALWAYS_SHOWN = ("webhook_id", "consumer_id", "kind", "state", "update_time")
_SERVICE = pb.DESCRIPTOR.services_by_name["Webhooks"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListWebhooks": _list_webhooks,
            "GetWebhook": _get_webhook,
            "CreateWebhook": _create_webhook,
            "UpdateWebhook": _update_webhook,
            "DeleteWebhook": _delete_webhook,
            "TestWebhook": _send_test,
            "PauseWebhook": _pause_webhook,
            "ResumeWebhook": _resume_webhook,
            "RotateSecret": _rotate_secret,
            "ListDeliveries": _list_deliveries,
            "GetDelivery": _get_delivery,
            "ResendDelivery": _resend_delivery,
            "RecoverDeliveries": _recover_deliveries,
            "ReplayChanges": _replay_changes,
            "ListDeadLetters": _list_dead,
            "ListNotices": _list_notices,
            "GetWebhookMetrics": _get_metrics,
            "PullDeliveries": _pull_deliveries,
            "AcknowledgeDeliveries": _acknowledge_deliveries,
        },
    )


async def _list_webhooks(
    request: pb.ListWebhooksRequest, call: ServedCall
) -> pb.ListWebhooksResponse:
    found, token = await list_webhooks(
        call.hub,
        call,
        request.page_size,
        request.page_token,
        everybody=request.everybody,
    )
    messages = [_webhook_message(call, stored) for stored in found]
    return pb.ListWebhooksResponse(webhooks=messages, next_page_token=token)


async def _get_webhook(request: pb.GetWebhookRequest, call: ServedCall) -> pb.Webhook:
    return _webhook_message(call, await get_webhook(call.hub, call, request.webhook_id))


async def _create_webhook(request: pb.CreateWebhookRequest, call: ServedCall) -> pb.IssuedSecret:
    draft = webhook_of(request.webhook)
    scheme = scheme_of(request.webhook.options.signature)
    made, secret = await create_webhook(call.hub, call, draft, scheme)
    return pb.IssuedSecret(webhook=_webhook_message(call, made), secret=secret.text)


async def _update_webhook(request: pb.UpdateWebhookRequest, call: ServedCall) -> pb.Webhook:
    name, change = request.webhook.webhook_id, change_of(request)
    found, secret = await update_webhook(call.hub, call, name, change)
    message = _webhook_message(call, found, set_paths(request))
    if secret is not None:
        message.secret = secret.text
    return message


async def _delete_webhook(request: pb.DeleteWebhookRequest, call: ServedCall) -> Empty:
    await delete_webhook(call.hub, call, request.webhook_id)
    return Empty()


async def _send_test(request: pb.TestWebhookRequest, call: ServedCall) -> pb.Delivery:
    return delivery_message(await send_test(call.hub, call, request.webhook_id))


async def _pause_webhook(request: pb.PauseWebhookRequest, call: ServedCall) -> pb.Webhook:
    return _webhook_message(call, await pause_webhook(call.hub, call, request.webhook_id), ())


async def _resume_webhook(request: pb.ResumeWebhookRequest, call: ServedCall) -> pb.Webhook:
    return _webhook_message(call, await resume_webhook(call.hub, call, request.webhook_id), ())


async def _rotate_secret(request: pb.RotateSecretRequest, call: ServedCall) -> pb.IssuedSecret:
    overlap = duration_of(request, "overlap", USUAL_OVERLAP)
    found, secret = await rotate_secret(
        call.hub, call, request.webhook_id, overlap, scheme_of(request.signature)
    )
    return pb.IssuedSecret(webhook=_webhook_message(call, found, ()), secret=secret.text)


async def _list_deliveries(
    request: pb.ListDeliveriesRequest, call: ServedCall
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
        call.hub,
        call,
        request.webhook_id,
        wanted,
        request.page_size,
        request.page_token,
    )
    messages = map(delivery_message, found)
    return pb.ListDeliveriesResponse(deliveries=messages, next_page_token=token)


async def _list_dead(
    request: pb.ListDeadLettersRequest, call: ServedCall
) -> pb.ListDeliveriesResponse:
    wanted = Filter(
        DeliveryState.DEAD,
        request.reason,
        start=time_of(request, "start_time"),
        end=time_of(request, "end_time"),
    )
    found, token = await list_dead_letters(
        call.hub, call, wanted, request.page_size, request.page_token
    )
    messages = map(delivery_message, found)
    return pb.ListDeliveriesResponse(deliveries=messages, next_page_token=token)


async def _get_delivery(request: pb.GetDeliveryRequest, call: ServedCall) -> pb.Delivery:
    return delivery_message(
        *await get_delivery(call.hub, call, request.webhook_id, request.delivery_id)
    )


async def _resend_delivery(request: pb.ResendDeliveryRequest, call: ServedCall) -> pb.Delivery:
    return delivery_message(
        await resend_delivery(call.hub, call, request.webhook_id, request.delivery_id)
    )


async def _recover_deliveries(
    request: pb.RecoverDeliveriesRequest, call: ServedCall
) -> pb.RecoverDeliveriesResponse:
    start = time_of(request, "start_time")
    count = await recover_deliveries(
        call.hub, call, request.webhook_id, start, time_of(request, "end_time")
    )
    return pb.RecoverDeliveriesResponse(delivery_count=count)


async def _replay_changes(request: pb.ReplayChangesRequest, call: ServedCall) -> pb.Webhook:
    found = await replay_changes(
        call.hub, call, request.webhook_id, request.cursor, request.end_cursor
    )
    return _webhook_message(call, found, ())


async def _list_notices(request: pb.ListNoticesRequest, call: ServedCall) -> pb.ListNoticesResponse:
    found, token = await list_notices(call.hub, call, request.page_size, request.page_token)
    return pb.ListNoticesResponse(notices=map(notice_message, found), next_page_token=token)


async def _get_metrics(request: pb.GetWebhookMetricsRequest, call: ServedCall) -> pb.WebhookMetrics:
    start = time_of(request, "start_time")
    figures = await get_metrics(call.hub, call, request.webhook_id, start)
    return metrics_message(figures, read_clock())


async def _pull_deliveries(
    request: pb.PullDeliveriesRequest, call: ServedCall
) -> pb.PullDeliveriesResponse:
    wait = duration_of(request, "wait", timedelta())
    found = await pull_deliveries(call.hub, call, request.webhook_id, request.max_deliveries, wait)
    return pb.PullDeliveriesResponse(
        deliveries=[
            pb.PulledDelivery(
                delivery_id=p.delivery_id, event_type=p.event_type, headers=p.headers, body=p.body
            )
            for p in found
        ]
    )


async def _acknowledge_deliveries(
    request: pb.AcknowledgeDeliveriesRequest, call: ServedCall
) -> Empty:
    outcomes = [
        Outcome(o.delivery_id, o.status, duration_of(o, "latency", timedelta()), o.response_head)
        for o in request.outcomes
    ]
    await acknowledge_deliveries(call.hub, call, request.webhook_id, outcomes)
    return Empty()


def _webhook_message(
    call: ServedCall, stored: Stored, given: Sequence[str] | None = None
) -> pb.Webhook:
    """A webhook as the caller may see it.

    ``given`` are the paths that the call itself has set, None for all. A caller that may change
    webhooks but not see them gets only these and _ALWAYS_SHOWN: permission to write is not
    permission to read.
    """
    message = webhook_message(stored, call.hub.places)
    if given is None or stored.readable:
        return message
    shown = pb.Webhook()
    FieldMask(paths=[*_ALWAYS_SHOWN, *given]).MergeMessage(message, shown)
    return shown
