"""``penstock webhooks listen``: a developer's events, posted to a server on its own machine.

It creates a webhook of kind LISTEN, pulls its messages, posts them as the hub would, and prints the
replies. Nothing on the network has to reach the machine. The webhook ends with the command.
"""

from __future__ import annotations

import http.client
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import SplitResult, urlsplit

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure, one_line
from penstock.client.cli.options import Format, chosen_format
from penstock.client.cli.printing import Column, RowPrinter
from penstock.client.cli.webhook_calls import (
    Datasets,
    Events,
    Fields,
    Filter,
    Options,
    ShapeName,
    call_webhooks,
    make_selections,
    options_of,
)

if TYPE_CHECKING:
    from penstock.client.client import Client

#: Seconds that a server may take for one message, as with the hub.
TIMEOUT = 15.0
_WAIT = 15
_READ = 64 * 1024


def listen_locally(
    forward_to: Annotated[
        str,
        typer.Option(
            "--forward-to", metavar="URL", help="A URL such as http://localhost:3000/hooks."
        ),
    ],
    dataset: Datasets = None,
    event: Events = None,
    filter: Filter = "",
    fields: Fields = "",
    shape: ShapeName = "",
    option: Options = None,
    count: Annotated[
        int, typer.Option(min=0, help="Stop after so many events; 0 means never.")
    ] = 0,
) -> None:
    """Post events to a server on this machine as they happen, until Ctrl-C."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    target = _parse_target(forward_to)
    with connect_client() as client:
        webhook = pb.Webhook(
            kind=pb.Webhook.Kind.LISTEN,
            title=f"listen on {socket.gethostname()}"[:200],
            selections=make_selections(client, dataset, event, filter, fields, shape),
            options=options_of(option or ()),
        )
        with _open_webhook(client, webhook) as issued:
            typer.echo(f"secret {issued.secret}", err=True)
            typer.echo(f"forwarding to {forward_to}; Ctrl-C ends it", err=True)
            _forward_deliveries(client, issued.webhook.webhook_id, target, count)


@contextmanager
def _open_webhook(client: Client, webhook: Any) -> Iterator[Any]:
    """The webhook, for as long as the block lasts."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    request = pb.CreateWebhookRequest(webhook=webhook)
    issued = call_webhooks(client, "CreateWebhook", request, safe=False)
    try:
        yield issued
    finally:
        name = issued.webhook.webhook_id
        call_webhooks(client, "DeleteWebhook", pb.DeleteWebhookRequest(webhook_id=name), safe=False)


def _forward_deliveries(client: Client, webhook_id: str, target: SplitResult, count: int) -> None:
    from penstock.hub.v1 import webhooks_pb2 as pb

    columns = [Column("event_type"), Column("delivery_id"), Column("reply")]
    printer = RowPrinter(columns, sys.stdout, chosen_format(Format.table))
    done = 0
    request = pb.PullDeliveriesRequest(webhook_id=webhook_id, max_deliveries=10)
    request.wait.FromSeconds(_WAIT)
    while not count or done < count:
        pulled = call_webhooks(client, "PullDeliveries", request, safe=True).deliveries
        outcomes = [_post_delivery(target, delivery) for delivery in pulled]
        printer.write(map(_outcome_row, pulled, outcomes))
        if outcomes:
            told = pb.AcknowledgeDeliveriesRequest(webhook_id=webhook_id, outcomes=outcomes)
            call_webhooks(client, "AcknowledgeDeliveries", told, safe=False)
        done += len(outcomes)


def _post_delivery(target: SplitResult, delivery: Any) -> Any:
    """Post one message and return the outcome. No proxy, no redirect, as with the hub."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    start = time.monotonic()
    status, head = 0, ""
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    try:
        with closing(kind(target.hostname or "", target.port, timeout=TIMEOUT)) as connection:
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            connection.request("POST", path, delivery.body, dict(delivery.headers))
            reply = connection.getresponse()
            reply.read(_READ)
            status = reply.status
            lines = [f"{name}: {value}" for name, value in reply.getheaders()]
            head = "\n".join([f"HTTP/1.1 {status} {reply.reason}", *lines])[:4096].replace(
                "\0", " "
            )
    except (OSError, http.client.HTTPException) as error:
        head = f"{type(error).__name__}: {error}".replace("\0", " ")
    outcome = pb.PullOutcome(delivery_id=delivery.delivery_id, status=status, response_head=head)
    outcome.latency.FromMilliseconds(int((time.monotonic() - start) * 1000))
    return outcome


def _outcome_row(delivery: Any, outcome: Any) -> dict[str, Any]:
    status = outcome.status
    return {
        "event_type": delivery.event_type,
        "delivery_id": delivery.delivery_id,
        "status": status,
        "reply": str(status) if status else one_line(outcome.response_head),
    }


def _parse_target(url: str) -> SplitResult:
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise Failure(f"'{url}' is not a URL such as http://localhost:3000/hooks")
    return parts
