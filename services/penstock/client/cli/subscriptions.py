"""Commands of subscriptions: ``penstock subscriptions`` with create, pull, ack and others."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from penstock.client.cli.connection import As, Url, connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.records import Shape

Name = Annotated[str, typer.Argument(metavar="NAME", help="The subscription, as mail.")]
Start = Annotated[str, typer.Option(help="Where it begins: now, oldest, or a cursor.")]


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the app."""
    group = typer.Typer(
        help="Feeds whose place the hub keeps, shared by several workers.", no_args_is_help=True
    )
    group.command("create")(create_subscription)
    group.command("list")(list_subscriptions)
    group.command("delete")(delete_subscription)
    group.command("reset")(reset_subscription)
    group.command("pull")(pull_changes)
    group.command("ack")(acknowledge_changes)
    app.add_typer(group, name="subscriptions")


def create_subscription(
    name: Name,
    datasets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATASET]...", help="All that you may read, if none are given."),
    ] = None,
    start: Start = "now",
    filter: Annotated[str, typer.Option("--filter", help="Which records (AIP-160).")] = "",
    fields: Annotated[str, typer.Option("--fields", help="Which fields, with commas.")] = "",
    operations: Annotated[
        str, typer.Option(help="Which operations, with commas, as CREATED,DELETED.")
    ] = "",
    include_before: Annotated[
        bool, typer.Option("--include-before", help="Give records as they were, too.")
    ] = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Let workers work on batches side by side.")
    ] = False,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Make a subscription."""
    with connect_client(url, consumer) as client:
        try:
            made = client.subscription(name).create(
                datasets or (),
                start=start,
                filter=filter,
                fields=fields,
                operations=operations,
                include_before=include_before,
                ordered=not unordered,
            )
        except ValueError as error:
            raise Failure(str(error)) from None
    typer.echo(f"{made.subscription_id}: {', '.join(made.datasets)}", err=True)


def list_subscriptions(
    format: Annotated[Shape, typer.Option(help="How they are printed.")] = Shape.table,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Print your subscriptions and their progress."""
    from google.protobuf import json_format

    from penstock.client.cli.tables import print_table

    with connect_client(url, consumer) as client:
        found = client.subscriptions()
    if format is Shape.table:
        print_table(
            ["subscription", "datasets", "ordered", "leases", "outstanding", "cursor"],
            [
                [
                    s.subscription_id,
                    ",".join(s.datasets),
                    "yes" if s.ordered else "no",
                    str(s.lease_count),
                    str(s.outstanding_count),
                    s.cursor,
                ]
                for s in found
            ],
        )
        return
    documents = list(map(json_format.MessageToDict, found))
    if format is Shape.json:
        typer.echo(json.dumps(documents, ensure_ascii=False, indent=2))
        return
    for document in documents:
        typer.echo(json.dumps(document, ensure_ascii=False))


def delete_subscription(name: Name, url: Url = "", consumer: As = "") -> None:
    """Delete a subscription."""
    with connect_client(url, consumer) as client:
        client.subscription(name).delete()


def reset_subscription(name: Name, start: Start = "now", url: Url = "", consumer: As = "") -> None:
    """Continue a subscription from another place; voids its current leases."""
    with connect_client(url, consumer) as client:
        client.subscription(name).reset(start)


def pull_changes(
    name: Name,
    max_changes: Annotated[int, typer.Option(min=0, max=5000, help="At most so many.")] = 0,
    ack_seconds: Annotated[
        int, typer.Option(min=0, max=3600, help="Seconds until others are given the changes.")
    ] = 0,
    wait: Annotated[float, typer.Option(min=0, max=30, help="Seconds to wait for changes.")] = 0,
    acknowledge: Annotated[
        bool, typer.Option("--ack", help="Acknowledge when all has been printed.")
    ] = False,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Print the next changes as NDJSON, and their lease on standard error."""
    with connect_client(url, consumer) as client:
        batch = client.subscription(name).pull(max_changes, ack_seconds=ack_seconds, wait=wait)
        if batch is None:
            typer.echo("no changes", err=True)
            return
        for change in batch.changes:
            typer.echo(json.dumps(change.to_json(), ensure_ascii=False))
        sys.stdout.flush()
        if acknowledge:
            batch.acknowledge()
        else:
            typer.echo(f"lease {batch.lease_id} until {batch.expire_time:%H:%M:%S} UTC", err=True)


def acknowledge_changes(
    name: Name,
    lease: Annotated[str, typer.Argument(metavar="LEASE", help="As pull has told it.")] = "",
    cursor: Annotated[
        str, typer.Option(help="Instead: the cursor of a lease; those before it, too.")
    ] = "",
    url: Url = "",
    consumer: As = "",
) -> None:
    """Acknowledge that changes are processed; print the cursor up to which all are."""
    with connect_client(url, consumer) as client:
        typer.echo(client.subscription(name).acknowledge(lease, cursor=cursor))
