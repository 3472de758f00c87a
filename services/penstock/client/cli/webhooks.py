"""Commands on webhooks: ``penstock webhooks``. For deliveries see ``webhook_deliveries``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from penstock.client.cli import webhook_deliveries, webhook_listen
from penstock.client.cli.access_terms import span_of
from penstock.client.cli.connection import connect_client
from penstock.client.cli.printing import Column, print_document, print_rows
from penstock.client.cli.records import wrong_arguments
from penstock.client.cli.webhook_calls import (
    Datasets,
    Events,
    Fields,
    Filter,
    Headers,
    Options,
    ShapeName,
    Signature,
    call_webhooks,
    headers_of,
    make_selections,
    options_of,
    read_pages,
)

WebhookId = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help="The webhook's id, such as wh_….")
]


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the app."""
    group = typer.Typer(help="Receive events by HTTP, and see how deliveries go.",
                        no_args_is_help=True)  # fmt: skip
    commands: dict[str, Callable[..., None]] = {
        "list": list_webhooks,
        "get": get_webhook,
        "create": create_webhook,
        "update": update_webhook,
        "delete": delete_webhook,
        "pause": pause_webhook,
        "resume": resume_webhook,
        "rotate-secret": rotate_secret,
        "metrics": show_metrics,
    }
    for name, command in commands.items():
        group.command(name)(command)
    webhook_deliveries.register(group)
    group.command("listen")(webhook_listen.listen_locally)
    app.add_typer(group, name="webhooks")


def list_webhooks(
    everybody: Annotated[bool, typer.Option("--all", help="Webhooks of all consumers.")] = False,
) -> None:
    """Show the webhooks."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        request = pb.ListWebhooksRequest(everybody=everybody)
        found = list(read_pages(client, "ListWebhooks", request, "webhooks"))
    print_rows(
        found,
        [
            "webhook_id",
            "consumer_id",
            Column("url", lambda w: w["url"] or w["kind"]),
            Column("selections", lambda w: ", ".join(s["dataset"] for s in w["selections"])),
            "state",
            Column("reason", _explain_state),
            "failing_time",
        ],
    )


def get_webhook(webhook: WebhookId) -> None:
    """Print one webhook, by default as JSON."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        print_document(
            call_webhooks(client, "GetWebhook", pb.GetWebhookRequest(webhook_id=webhook))
        )


def create_webhook(
    target: Annotated[str, typer.Argument(metavar="URL", help="Where events are posted.")],
    dataset: Datasets = None,
    event: Events = None,
    filter: Filter = "",
    fields: Fields = "",
    shape: ShapeName = "",
    title: Annotated[str, typer.Option(help="Shown to people.")] = "",
    header: Headers = None,
    option: Options = None,
    signature: Signature = "HMAC_SHA256",
) -> None:
    """Create a webhook; print it with its secret, which is shown only this once."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client, wrong_arguments():
        webhook = pb.Webhook(
            url=target,
            title=title,
            selections=make_selections(client, dataset, event, filter, fields, shape),
            headers=headers_of(header),
            options=options_of([*(option or ()), f"signature={signature}"]),
        )
        request = pb.CreateWebhookRequest(webhook=webhook)
        print_document(call_webhooks(client, "CreateWebhook", request, safe=False))


def update_webhook(
    webhook: WebhookId,
    target: Annotated[str, typer.Option("--to", metavar="URL", help="Another URL.")] = "",
    dataset: Datasets = None,
    event: Events = None,
    filter: Filter = "",
    fields: Fields = "",
    shape: ShapeName = "",
    title: Annotated[str, typer.Option(help="Shown to people.")] = "",
    header: Headers = None,
    option: Options = None,
) -> None:
    """Change the given parts of a webhook, and print it.

    A URL of another origin (scheme, host, port) drops the headers that are not set again, and
    creates a new secret, which is printed only this once.
    """
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client, wrong_arguments():
        changed = pb.Webhook(
            webhook_id=webhook,
            url=target,
            title=title,
            headers=headers_of(header),
            options=options_of(option or ()),
        )
        if dataset or event or filter or fields or shape:
            changed.selections.extend(
                make_selections(client, dataset, event, filter, fields, shape)
            )
        if not option:
            changed.ClearField("options")
        request = pb.UpdateWebhookRequest(webhook=changed)
        print_document(call_webhooks(client, "UpdateWebhook", request, safe=False))


def delete_webhook(webhook: WebhookId) -> None:
    """Delete a webhook and its deliveries."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        call_webhooks(
            client, "DeleteWebhook", pb.DeleteWebhookRequest(webhook_id=webhook), safe=False
        )


def pause_webhook(webhook: WebhookId) -> None:
    """Pause sending; events wait."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        request = pb.PauseWebhookRequest(webhook_id=webhook)
        print_document(call_webhooks(client, "PauseWebhook", request, safe=False))


def resume_webhook(webhook: WebhookId) -> None:
    """Resume sending."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        request = pb.ResumeWebhookRequest(webhook_id=webhook)
        print_document(call_webhooks(client, "ResumeWebhook", request, safe=False))


def rotate_secret(
    webhook: WebhookId,
    overlap: Annotated[
        str, typer.Option(help="How long the old secret signs beside the new one.")
    ] = "24h",
    signature: Annotated[
        str, typer.Option(help="HMAC_SHA256 or ED25519; by default unchanged.")
    ] = "SIGNATURE_UNSPECIFIED",
) -> None:
    """Create another secret and print it."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client, wrong_arguments():
        request = pb.RotateSecretRequest(webhook_id=webhook, signature=signature.upper())
        request.overlap.FromTimedelta(span_of(overlap))
        print_document(call_webhooks(client, "RotateSecret", request, safe=False))


def show_metrics(
    webhook: WebhookId,
    last: Annotated[str, typer.Option(help="The period up to now, such as 24h.")] = "24h",
) -> None:
    """Print figures about the deliveries of a webhook."""
    import datetime as dt

    from penstock.hub.v1 import webhooks_pb2 as pb

    with connect_client() as client:
        request = pb.GetWebhookMetricsRequest(webhook_id=webhook)
        request.start_time.FromDatetime(dt.datetime.now(dt.UTC) - span_of(last))
        print_document(call_webhooks(client, "GetWebhookMetrics", request))


def _explain_state(webhook: Mapping[str, Any]) -> str:
    """Why a webhook does not send, or what it does not send."""
    problems = webhook.get("problems", {}).items()
    return webhook.get("reason") or "; ".join(f"{d}: {p}" for d, p in problems)
