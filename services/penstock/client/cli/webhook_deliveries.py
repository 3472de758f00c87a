"""Commands on deliveries: what was sent, how each attempt went, and sending again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from penstock.client.cli.access_terms import time_of
from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.printing import Column, print_document, print_outcome, print_rows
from penstock.client.cli.records import wrong_arguments
from penstock.client.cli.webhook_calls import call_webhooks, read_pages

WebhookId = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help="The webhook's id, such as wh_….")
]
DeliveryId = Annotated[
    str, typer.Argument(metavar="DELIVERY", help="The delivery's id, such as msg_….")
]
Since = Annotated[str, typer.Option("--since", help="From this day or time on.")]
Until = Annotated[str, typer.Option("--until", help="Before this day or time.")]
Reason = Annotated[str, typer.Option(help="Only with this reason, such as STATUS.")]
Limit = Annotated[int, typer.Option(min=0, help="At most so many; 0 means no limit.")]


def register(group: typer.Typer) -> None:
    """Adds the commands to the group."""
    commands: dict[str, Callable[..., None]] = {
        "test": send_test,
        "deliveries": list_deliveries,
        "delivery": show_delivery,
        "resend": resend_delivery,
        "recover": recover_deliveries,
        "replay": replay_changes,
        "dead-letters": dead_letters,
        "notices": list_notices,
    }
    for name, command in commands.items():
        group.command(name)(command)


def send_test(
    webhook: WebhookId,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the first attempt.")] = 20,
) -> None:
    """Send a test event, and print how the first attempt went; exit with 1 unless it was taken."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        sent = call_webhooks(
            client, "TestWebhook", pb.TestWebhookRequest(webhook_id=webhook), safe=False
        )
        request = pb.GetDeliveryRequest(webhook_id=webhook, delivery_id=sent.delivery_id)
        deadline = time.monotonic() + wait
        while not (found := call_webhooks(client, "GetDelivery", request)).attempts:
            if found.state == pb.Delivery.State.DEAD:
                break
            if time.monotonic() > deadline:
                raise Failure(f"{sent.delivery_id} was not sent within {wait:g} s")
            time.sleep(0.1)
        print_document(found)
    if found.state != pb.Delivery.State.DELIVERED:
        raise Failure(f"the receiver did not accept the test: {found.reason}")


def list_deliveries(
    webhook: WebhookId,
    state: Annotated[
        str, typer.Option(help="Only pending, sending, parked, delivered or dead ones.")
    ] = "",
    reason: Reason = "",
    event: Annotated[str, typer.Option(help="Only of this type, such as customer.created.")] = "",
    key: Annotated[str, typer.Option(help="Only about this record.")] = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 100,
) -> None:
    """Show deliveries, the newest first."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with wrong_arguments():
        request = pb.ListDeliveriesRequest(
            webhook_id=webhook,
            state=state.upper() or None,
            reason=reason,
            event_type=event,
            key=key,
            page_size=min(limit, 1000),
        )
    _set_times(request, since, until)
    with connect_client() as client:
        found = read_pages(client, "ListDeliveries", request, "deliveries")
        _print_deliveries(islice(found, limit or None))


def show_delivery(webhook: WebhookId, delivery: DeliveryId) -> None:
    """Print one delivery with all its attempts, by default as JSON."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        request = pb.GetDeliveryRequest(webhook_id=webhook, delivery_id=delivery)
        print_document(call_webhooks(client, "GetDelivery", request))


def resend_delivery(webhook: WebhookId, delivery: DeliveryId) -> None:
    """Send a delivery again, under its id."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        request = pb.ResendDeliveryRequest(webhook_id=webhook, delivery_id=delivery)
        print_document(call_webhooks(client, "ResendDelivery", request, safe=False))


def recover_deliveries(
    webhook: WebhookId,
    since: Annotated[str, typer.Option("--since", help="From this day or time on.")],
    until: Until = "",
) -> None:
    """Send again everything that was given up since a time."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    request = pb.RecoverDeliveriesRequest(webhook_id=webhook)
    _set_times(request, since, until)
    with connect_client() as client:
        count = call_webhooks(client, "RecoverDeliveries", request, safe=False).delivery_count
    print_outcome({"delivery_count": count}, f"{count} deliveries are sent again")


def replay_changes(
    webhook: WebhookId,
    cursor: Annotated[str, typer.Argument(help="Send the changes after this cursor.")],
    end: Annotated[str, typer.Option("--to", help="Up to this cursor; by default up to now.")] = "",
) -> None:
    """Send a stretch of the change log once more, as new deliveries."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        request = pb.ReplayChangesRequest(webhook_id=webhook, cursor=cursor, end_cursor=end)
        print_document(call_webhooks(client, "ReplayChanges", request, safe=False))


def dead_letters(
    reason: Reason = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 100,
) -> None:
    """Show what was given up, of all webhooks, with the reasons."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    request = pb.ListDeadLettersRequest(reason=reason, page_size=min(limit, 1000))
    _set_times(request, since, until)
    with connect_client() as client:
        found = read_pages(client, "ListDeadLetters", request, "deliveries")
        _print_deliveries(islice(found, limit or None))


def list_notices(limit: Limit = 100) -> None:
    """Show the hub's notices: a webhook that fails for days or is off, failed sign-ins, a full
    disk."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        found = read_pages(client, "ListNotices", pb.ListNoticesRequest(), "notices")
        columns: list[str | Column] = [
            "create_time",
            "type",
            "webhook_id",
            Column("data", _describe_notice),
        ]
        print_rows(islice(found, limit or None), columns)


def _describe_notice(notice: Mapping[str, Any]) -> str:
    data = notice.get("data", {})
    return ", ".join(f"{name} {value}" for name, value in data.items() if name != "webhookId")


def _print_deliveries(found: Iterable[Any]) -> None:
    print_rows(
        found,
        [
            "delivery_id",
            "webhook_id",
            "create_time",
            "event_type",
            "key",
            "state",
            "reason",
            "attempt_count",
            "next_time",
        ],
    )


def _set_times(request: Any, since: str, until: str) -> None:
    for name, moment in (("start_time", time_of(since)), ("end_time", time_of(until))):
        if moment is not None:
            getattr(request, name).FromDatetime(moment)
