"""The command ``penstock limits``: what a consumer may use, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.printing import Column, print_rows


def register(app: typer.Typer) -> None:
    """Adds the command to the app."""
    app.command("limits")(show_limits)


def show_limits(
    consumer: Annotated[
        str, typer.Option(help="Those of this consumer, with plans.read; your own by default.")
    ] = "",
) -> None:
    """Show your limits, what is left of them, and when each will be used up at this pace."""
    with connect_client() as client:
        found = client.plans.limits(consumer)
    who = f"{found.consumer_id}: " + (f"plan {found.plan}" if found.plan else "no plan")
    typer.echo(f"{who}, {found.time_zone}" if found.limits else f"{who}, no limits", err=True)
    soft = Column("soft", _format_soft)
    print_rows(
        found.limits,
        ["name", "limit", "used", "remaining", soft, "reset_time", "exhausted_time"],
    )


def _format_soft(limit: Mapping[str, Any]) -> str:
    return "yes" if limit.get("soft") else ""
