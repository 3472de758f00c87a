"""``penstock usage reconcile``: proves what was metered. Registered by ``cli``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.client.cli.printing import print_outcome
from penstock.client.cli.usage import group_of
from penstockd.cli_settings import load_settings

if TYPE_CHECKING:
    from penstockd.metering.reconcile import Reconciliation


def add_usage_commands(app: typer.Typer) -> None:
    """Add the server's commands to the group."""
    group_of(app).command("reconcile")(reconcile_usage)


def reconcile_usage(
    first: Annotated[
        str,
        typer.Option(
            "--from", help="The first day (UTC), such as 2025-03-01; the oldest, if left out."
        ),
    ] = "",
    last: Annotated[str, typer.Option("--to", help="The last day; today, if left out.")] = "",
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            help="A kept file of checkpoints, of any node; by default this host's. May be given "
            "several times."
        ),
    ] = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option(help="Trust this key (see audit checkpoint) instead of the host's."),
    ] = None,
) -> None:
    """Prove that usage agrees with the audit; exit with 1 if it does not.

    The command reads the database itself, whether the hub runs or not, and counts the entries of
    the audit again. Where entries were archived, it compares usage with its signed digest.
    """
    import asyncio

    from penstockd import auditor

    begin, end = _parse_day("--from", first, dt.date.min), _parse_day("--to", last, dt.date.max)
    settings = load_settings()
    try:
        given = auditor.collect_evidence(settings, public_key or [], checkpoints or [], copy=False)
        result = asyncio.run(auditor.reconcile_stored(settings, given, begin, end))
    except auditor.FAILURES as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(2) from exc
    findings = [str(finding) for finding in result.findings]
    difference = result.metered.minus(result.audited)
    print_outcome(
        {
            "reconciled": not findings,
            "metered": result.metered._asdict(),
            "audited": result.audited._asdict(),
            "difference": difference._asdict(),
            "signed": result.signed._asdict(),
            "entries": result.entries,
            "unfolded": result.unfolded,
            "compared_days": _name_days(result.compared),
            "signed_days": _name_days(result.proved),
            "findings": findings,
        },
        [*findings, *_summarise_result(result)],
    )
    if findings:
        raise typer.Exit(1)


def _parse_day(option: str, text: str, absent: dt.date) -> dt.date:
    if not text:
        return absent
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        typer.echo(f"penstock: {option}: '{text}' is not a day such as 2025-03-01", err=True)
        raise typer.Exit(2) from None


def _name_days(days: Sequence[dt.date]) -> list[str]:
    return [day.isoformat() for day in days]


def _summarise_result(result: Reconciliation) -> Sequence[str]:
    """The result in lines for people."""
    lines = []
    if result.found > len(result.findings):
        lines.append(f"{result.found - len(result.findings):,} more differences are not listed")
    for name, own, right in zip(
        result.metered._fields, result.metered, result.audited, strict=True
    ):
        lines.append(f"{name}: metered {own:,}, audited {right:,}, difference {own - right:,}")
    state = f"NOT RECONCILED, {result.found:,} findings" if result.found else "reconciled"
    lines.append(
        f"{state}; {result.entries:,} entries of {len(result.compared):,} days were counted again;"
        f" {result.unfolded:,} sealed entries are not counted yet"
    )
    if result.proved:
        calls = result.signed.calls
        lines.append(
            f"{len(result.proved):,} days whose entries were archived agree with what was signed:"
            f" {calls:,} calls"
        )
    return lines
