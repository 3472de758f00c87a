"""``penstock plans rehearse``: a plan tried on recorded usage. Registered by ``plans``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.files import read_document
from penstock.client.cli.printing import Column, print_rows
from penstock.client.cli.records import wrong_arguments


def rehearse_plan(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The plan in JSON or TOML; - reads JSON.")
    ],
    days: Annotated[
        int, typer.Option(min=1, max=366, help="The number of days of recent usage to judge.")
    ] = 30,
    consumer: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge this consumer. May be given several times; by default those that have "
            "the plan of this name now."
        ),
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Judge all consumers.")] = False,
) -> None:
    """Show who would have been refused under a plan, when, how often and by which limit.

    Changes nothing. JSON, YAML and NDJSON also list the times of the refusals.
    """
    if consumer and everybody:
        raise Failure("give either --consumer or --all")
    with connect_client() as client, wrong_arguments():
        plan = read_document(file, "plan")
        reply = client.plans.rehearse(
            plan, days=days, consumers=consumer or (), everybody=everybody
        )
    typer.echo("\n".join(_describe_reply(reply)), err=True)
    print_rows(
        reply.limits,
        [
            "consumer", "limit", "verdict", Column("refused", _format_refused), "refused_at_most",
            "occurrences", Column("first_time", _format_first), Column("last_time", _format_last),
            "near_hours", "peak", "allowed", "resolution", "reason",
        ],
    )  # fmt: skip


def _describe_reply(reply: Any) -> list[str]:
    """What the answer rests on, in lines."""
    start, end, counted, fresh = (
        getattr(reply, f"{name}_time").ToDatetime(dt.UTC)
        for name in ("start", "end", "counted", "fresh")
    )
    lines = [f"usage from {start:%Y-%m-%d %H:%M}Z to {end:%Y-%m-%d %H:%M}Z, each limit by itself"]
    if counted > start:
        lines.append(f"usage before {counted:%Y-%m-%d %H:%M}Z is dropped, and not judged")
    if fresh < end - dt.timedelta(minutes=1):
        lines.append(f"calls after {fresh:%Y-%m-%d %H:%M:%S}Z may not be counted yet")
    if not reply.limits:
        lines.append("no consumer has this plan; name some with --consumer, or give --all")
    return lines


def _format_refused(row: Mapping[str, Any]) -> str:
    """The number of calls, marked where it is the least of what is possible."""
    more = row["refused_at_most"] != row["refused"]
    return f"{row['refused']}{'+' * more}"


def _format_first(row: Mapping[str, Any]) -> str:
    return _format_minute(row.get("first_time"))


def _format_last(row: Mapping[str, Any]) -> str:
    return _format_minute(row.get("last_time"))


def _format_minute(text: str | None) -> str:
    return f"{dt.datetime.fromisoformat(text):%Y-%m-%d %H:%M}Z" if text else ""
