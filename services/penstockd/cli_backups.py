"""``penstock backup`` and ``penstock restore``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.client.cli.printing import print_outcome
from penstockd.cli_settings import load_settings

if TYPE_CHECKING:
    from penstockd.audit.declared_epoch import Epoch
    from penstockd.backups import Taken


def back_up_hub(
    where: Annotated[str, typer.Argument(help="A folder, or s3://bucket/prefix.")],
    wal: Annotated[
        bool, typer.Option("--wal", help="Add only what was written since the last backup.")
    ] = False,
    keep: Annotated[
        int, typer.Option(min=0, help="Keep only the newest so many backups; 0 keeps all.")
    ] = 0,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Continue the backups of the installation that this one replaces."
        ),
    ] = False,
) -> None:
    """Back up the embedded database with its log (WAL), the secret, settings and audit files.

    It works whether the hub runs or not. The backup contains the secret: guard it as you guard the
    secret. If you use your own database, it backs up only the files: see the guide.
    """
    import asyncio

    from penstockd.backups import take_backup
    from penstockd.up import StartRefused

    try:
        taken = asyncio.run(
            take_backup(load_settings(), where, log_only=wal, keep=keep, take_over=take_over)
        )
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    document = {
        "backup": taken.label.name if taken.label is not None else None,
        "bytes": taken.size,
        "segments": taken.segments,
        "archives": taken.archives,
        "oldest_time": taken.oldest.isoformat() if taken.oldest is not None else None,
        "removed": list(taken.removed),
        "unusable": dict(taken.unusable),
    }
    print_outcome(document, _format_backup(taken))


def _format_backup(taken: Taken) -> Iterator[str]:
    """A backup for people."""
    if taken.label is not None:
        yield f"backup {taken.label.name}: {taken.size / 1e6:.1f} MB"
    if taken.oldest is None:
        yield "only secret, settings and audit file: back up the database with its own tools"
    else:
        since = taken.oldest.isoformat(timespec="seconds")
        yield f"{taken.segments} segments of the log; restorable to any time since {since}"
    if taken.archives:
        yield f"{taken.archives} archived days of the audit"
    yield from (f"removed {name}" for name in taken.removed)
    yield from _format_unusable(taken.unusable)


def _format_unusable(unusable: Mapping[str, str]) -> Iterator[str]:
    yield from (f"WARNING: backup {name} cannot be used: {why}" for name, why in unusable.items())


def restore_hub(
    where: Annotated[str, typer.Argument(help="Where the backups are: see backup.")],
    to: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"],
            help="Restore the state of this time, such as 2026-11-29T12:00:00Z; by default "
            "the newest.",
        ),
    ] = None,
) -> None:
    """Restore a backup into an empty data folder, and declare that the database has gone back.

    Consumers are told to repair what they have; the audit goes on from there with a signed entry.
    """
    import asyncio

    from penstockd.backups import restore_backup
    from penstockd.up import StartRefused

    try:
        restored = asyncio.run(restore_backup(load_settings(), where, to))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    name = restored.label.name
    document = {
        "backup": name,
        "epoch": restored.epoch.number,
        "unusable": dict(restored.unusable),
    }
    lines = [
        f"restored from backup {name}",
        *_format_unusable(restored.unusable),
        *format_epoch(restored.epoch),
        "back it up to another place; if it replaces the original for good, it may continue"
        " these backups: penstock backup --take-over",
    ]
    print_outcome(document, lines)


def format_epoch(epoch: Epoch) -> Iterator[str]:
    """A declared epoch for people."""
    yield f"epoch {epoch.number} begins after change {epoch.last_number} of the log"
    if epoch.checkpoint is None:
        yield "the audit has all that the file of checkpoints has: there is no gap to close"
        return
    after, number = epoch.checkpoint.sequence, epoch.checkpoint.number
    yield (
        f"the audit goes on with checkpoint {number}; what this host's file has behind"
        f" checkpoint {after} was undone"
    )
