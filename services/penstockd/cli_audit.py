"""``penstock audit verify``, ``archive`` and ``archives``: they read the database itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.printing import Column, print_outcome, print_rows
from penstockd.cli_settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstockd.audit.stored_archives import StoredArchive
    from penstockd.audit.verify import DaySpan


def add_audit_commands(group: typer.Typer) -> None:
    """Add the commands to the group of the client's commands."""
    group.command("verify")(verify_audit)
    group.command("archive")(archive_audit)
    group.command("archives")(list_archives)


def verify_audit(
    copy: Annotated[
        Path | None,
        typer.Option(help="Verify this copy (see audit export), not the database."),
    ] = None,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file of checkpoints that a node has written; by default this host's. May be "
            "given several times."
        ),
    ] = None,
    public_key: Annotated[
        list[str] | None,
        typer.Option(help="Trust this key (see audit checkpoint) instead of the host's."),
    ] = None,
    archive: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder with archived days, by default PENSTOCK_AUDIT_ARCHIVE. May be given "
            "several times, for example for folders of several nodes."
        ),
    ] = None,
    no_archive: Annotated[
        bool, typer.Option("--no-archive", help="Verify only the days in the database.")
    ] = False,
    max_age: Annotated[
        float,
        typer.Option(
            min=0, help="The greatest age of the newest checkpoint in seconds; 0 means any age."
        ),
    ] = 120.0,
) -> None:
    """Prove that nobody has changed the audit; exit with 1 if somebody has.

    It reads the database itself, whether the hub runs or not, and the files of archived days; with
    --copy, one copy or archive file instead. The first finding is the first place that was tampered
    with.
    """
    import asyncio

    from penstockd import auditor

    settings = load_settings()
    try:
        given = auditor.collect_evidence(
            settings, public_key or [], checkpoints or [], copy=copy is not None
        )
        if copy is not None:
            report = auditor.verify_file(copy, given)
        else:
            folders = [] if no_archive else archive
            stored = asyncio.run(auditor.verify_stored(settings, given, max_age, folders))
            report = stored.report
            for name in stored.spare:
                typer.echo(
                    f"{name}: its day was not dropped, so the database is verified", err=True
                )
            if stored.workers_may_change:
                typer.echo(auditor.ONE_ROLE, err=True)
    except auditor.FAILURES as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(2) from exc
    findings = [str(finding) for finding in report.findings]
    summary = auditor.summarise_report(report, given)
    document = {"intact": report.intact, "findings": findings, "summary": summary} | {
        name: _format_span(span)
        for name, span in (("stored", report.in_store), ("archived", report.archived))
        if span is not None
    }
    print_outcome(document, [*findings, summary])
    if not report.intact:
        raise typer.Exit(1)


def _format_span(span: DaySpan) -> dict[str, Any]:
    """Days that were verified, as a document."""
    return {
        "first_day": span.first.isoformat(),
        "last_day": span.last.isoformat(),
        "entries": span.entries,
        "files": span.files,
    }


def archive_audit(
    days: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Keep this many days before today in the database; default: PENSTOCK_AUDIT_DAYS.",
        ),
    ] = None,
) -> None:
    """Archive old days of the audit to files, drop them from the database, and print them.

    With PENSTOCK_AUDIT_DAYS the hub does so by itself. The command works on the database itself,
    whether the hub runs or not, and writes the files on this host.
    """
    import asyncio

    from penstockd import auditor
    from penstockd.up import StartRefused

    settings = load_settings()
    kept = settings.audit_days if days is None else days
    if not kept:
        typer.echo("penstock: PENSTOCK_AUDIT_DAYS is not set; give --days", err=True)
        raise typer.Exit(2)
    try:
        archives = asyncio.run(auditor.archive_days(settings, kept))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    _print_archives(archives)


def list_archives() -> None:
    """Print the archived and dropped days of the audit, with their files."""
    import asyncio

    from penstockd import auditor
    from penstockd.up import StartRefused

    try:
        archives = asyncio.run(auditor.list_archived(load_settings()))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    _print_archives(archives)


def _print_archives(archives: Sequence[StoredArchive]) -> None:
    columns: list[str | Column] = [
        "day", "entries", "size", "file", "host", "folder", "node_id", "checkpoint", "archive_time",
    ]  # fmt: skip
    print_rows(map(_describe_archive, archives), columns)


def _describe_archive(archive: StoredArchive) -> dict[str, Any]:
    """An archive as a document."""
    time = archive.archive_time
    return {
        "day": archive.day.isoformat(),
        "entries": archive.entries,
        "size": archive.size,
        "file": archive.file,
        "host": archive.host,
        "folder": archive.folder,
        "node_id": archive.node_id,
        "checkpoint": archive.checkpoint,
        "archive_time": time.isoformat() if time is not None else None,
    }
