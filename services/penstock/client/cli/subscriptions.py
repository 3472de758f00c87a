"""Commands of subscriptions: ``penstock subscriptions`` with create, pull, ack and others."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.feeds import Shapes, change_document, change_printer, seconds_of
from penstock.client.cli.options import Format
from penstock.client.cli.printing import print_outcome, print_rows

Name = Annotated[str, typer.Argument(metavar="NAME", help="The subscription's id, such as mail.")]
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
        typer.Argument(metavar="[DATASET]...", help="By default all datasets that you may read."),
    ] = None,
    start: Start = "now",
    filter: Annotated[str, typer.Option("--filter", help="Filter (AIP-160).")] = "",
    fields: Annotated[str, typer.Option("--fields", help="Field paths, separated by commas.")] = "",
    shape: Shapes = None,
    operations: Annotated[
        str, typer.Option(help="Operations, separated by commas, such as CREATED,DELETED.")
    ] = "",
    include_before: Annotated[
        bool,
        typer.Option("--include-before", help="Also give each record as it was before the change."),
    ] = False,
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Let workers process batches in parallel.")
    ] = False,
) -> None:
    """Make a subscription."""
    with connect_client() as client:
        try:
            made = client.subscription(name).create(
                datasets or (),
                start=start,
                filter=filter,
                fields=fields,
                shapes=shape or (),
                operations=operations,
                include_before=include_before,
                ordered=not unordered,
            )
        except ValueError as error:
            raise Failure(str(error)) from None
    typer.echo(f"{made.subscription_id}: {', '.join(made.datasets)}", err=True)


def list_subscriptions() -> None:
    """Print your subscriptions and their progress."""
    with connect_client() as client:
        found = client.subscriptions()
    print_rows(
        found,
        ["subscription_id", "datasets", "ordered", "lease_count", "outstanding_count", "cursor"],
    )


def delete_subscription(name: Name) -> None:
    """Delete a subscription."""
    with connect_client() as client:
        client.subscription(name).delete()


def reset_subscription(name: Name, start: Start = "now") -> None:
    """Continue a subscription from another place; voids its current leases."""
    with connect_client() as client:
        client.subscription(name).reset(start)


def pull_changes(
    name: Name,
    max_changes: Annotated[
        int, typer.Option(min=0, max=5000, help="The most changes to return.")
    ] = 0,
    ack_seconds: Annotated[
        int, typer.Option(min=0, max=3600, help="Seconds until the changes go to other workers.")
    ] = 0,
    wait: Annotated[str, typer.Option(help="How long to wait for changes, such as 20s.")] = "0s",
    acknowledge: Annotated[
        bool, typer.Option("--ack", help="Acknowledge the changes after printing them.")
    ] = False,
) -> None:
    """Print the next changes, by default as NDJSON, and their lease on standard error."""
    seconds = seconds_of(wait)
    with connect_client() as client:
        batch = client.subscription(name).pull(max_changes, ack_seconds=ack_seconds, wait=seconds)
        if batch is None:
            typer.echo("no changes", err=True)
            return
        printer = change_printer(sys.stdout, Format.ndjson)
        printer.write(change_document(change) for change in batch.changes)
        if acknowledge:
            batch.acknowledge()
        else:
            typer.echo(f"lease {batch.lease_id} until {batch.expire_time:%H:%M:%S} UTC", err=True)


def acknowledge_changes(
    name: Name,
    lease: Annotated[
        str, typer.Argument(metavar="LEASE", help="The lease's id, as pull prints it.")
    ] = "",
    cursor: Annotated[
        str,
        typer.Option(help="Instead of a lease: a cursor, up to which all leases are acknowledged."),
    ] = "",
) -> None:
    """Acknowledge that changes are processed; print the cursor up to which all are."""
    with connect_client() as client:
        reached = client.subscription(name).acknowledge(lease, cursor=cursor)
    print_outcome({"cursor": reached}, reached)
