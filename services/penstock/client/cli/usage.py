"""Commands about usage: ``penstock usage`` with report.

``penstock usage reconcile`` comes with the server: it reads the database itself.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.printing import Column, print_rows

if TYPE_CHECKING:
    from penstock.client.client import Client

#: The name of the group, to which the server adds ``reconcile``.
GROUP = "usage"
_PERIODS = ("minute", "hour", "day", "month")
_COUNTS = ("calls", "errors", "error_rate", "records", "bytes")


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the app."""
    group = typer.Typer(help="Show and prove who used what.", no_args_is_help=True)
    group.callback()(_describe_group)
    group.command("report")(report_usage)
    app.add_typer(group, name=GROUP)


def group_of(app: typer.Typer) -> typer.Typer:
    """The group in an app that it was added to."""
    found = next(g.typer_instance for g in app.registered_groups if g.name == GROUP)
    assert found is not None, "the group was added with an instance"
    return found


def _describe_group() -> None:
    """Show and prove who used what."""


def _make_filter(name: str) -> Any:
    return typer.Option(help=f"Only usage of this {name}.")


def report_usage(
    group_by: Annotated[
        str,
        typer.Option(
            "--by",
            help="What each row stands for, separated by commas: consumer, credential, plan, "
            "method, surface, dataset, status, field_class, and one of minute, hour, day, month.",
        ),
    ] = "consumer",
    first: Annotated[
        str,
        typer.Option(
            "--from",
            help="From this day of the zone or time on, such as 2025-03-01 or an RFC 3339 time; "
            "by default a day before the end.",
        ),
    ] = "",
    last: Annotated[
        str, typer.Option("--to", help="Before this day or time; by default now.")
    ] = "",
    zone: Annotated[str, typer.Option(help="The time zone, such as Europe/Berlin.")] = "UTC",
    consumer: Annotated[str, _make_filter("consumer")] = "",
    credential: Annotated[str, _make_filter("credential")] = "",
    plan: Annotated[str, _make_filter("plan")] = "",
    method: Annotated[str, _make_filter("method")] = "",
    surface: Annotated[str, _make_filter("surface")] = "",
    dataset: Annotated[str, _make_filter("dataset")] = "",
    status: Annotated[str, typer.Option(help="Only calls that ended so, such as OK.")] = "",
    field_class: Annotated[str, typer.Option(help="Only usage that showed this class.")] = "",
    top: Annotated[
        str, typer.Option(help="The largest first, by calls, errors, records or bytes.")
    ] = "",
    limit: Annotated[int, typer.Option(min=0, help="At most so many rows; 0: no limit.")] = 100,
) -> None:
    """Print calls, errors, records and bytes by group: your own, or with usage.read all."""
    from penstock.hub.v1 import usage_pb2

    groups = [name.strip() for name in group_by.split(",") if name.strip()]
    request = usage_pb2.ReportUsageRequest(
        group_by=groups, time_zone=zone, consumer=consumer, credential=credential, plan=plan,
        method=method, surface=surface, dataset=dataset, status=status, field_class=field_class,
        order_by=top, page_size=min(limit or 1000, 1000),
    )  # fmt: skip
    for name, text in (("start_time", first), ("end_time", last)):
        if text:
            getattr(request, name).FromDatetime(_parse_time(text, zone))
    with connect_client() as client:
        rows = islice(_read_rows(client, request), limit or None)
        print_rows(rows, _name_columns(groups, zone))


def _read_rows(client: Client, request: Any) -> Iterator[Any]:
    """The rows of all pages; tells how fresh the report is when it ends."""
    from penstock.hub.v1 import usage_pb2_grpc

    stub = usage_pb2_grpc.UsageStub(client.channel)
    reply = client.call(stub.ReportUsage, request, safe=True)
    fresh = reply.fresh_time.ToDatetime(dt.UTC)
    typer.echo(f"every call before {fresh:%Y-%m-%d %H:%M:%S}Z is counted", err=True)
    # The pages are of the range of the first: its end would move on by itself.
    request.start_time.CopyFrom(reply.start_time)
    request.end_time.CopyFrom(reply.end_time)
    while True:
        yield from reply.rows
        request.page_token = reply.next_page_token
        if not request.page_token:
            return
        reply = client.call(stub.ReportUsage, request, safe=True)


def _name_columns(groups: list[str], zone: str) -> list[str | Column]:
    shown = [
        Column("time", lambda row: _local_time(row, zone)) if name in _PERIODS else Column(name)
        for name in groups
    ]
    return [*shown, *_COUNTS]


def _local_time(row: Mapping[str, Any], zone: str) -> str:
    """The start of a period in the zone of the report."""
    time = dt.datetime.fromisoformat(str(row["time"]))
    return f"{time.astimezone(_find_zone(zone)):%Y-%m-%d %H:%M %z}"


def _find_zone(name: str) -> dt.tzinfo:
    try:
        return zoneinfo.ZoneInfo(name) if name != "UTC" else dt.UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise Failure(f"'{name}' is not a time zone such as Europe/Berlin") from None


def _parse_time(text: str, zone: str) -> dt.datetime:
    """The time of an option; a day means its start in the zone. Raises Failure."""
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise Failure(
            f"'{text}' is not a day or time such as 2025-03-01 or 2025-03-01T08:00:00Z"
        ) from None
    local = time if time.tzinfo is not None else time.replace(tzinfo=_find_zone(zone))
    return local.astimezone(dt.UTC)
