"""``penstock audit verify`` proves the audit from the database itself, or from a copy of it;
``penstock usage reconcile`` proves that usage is what the audit says;
``penstock audit archive`` archives old days of the audit.

Nothing here asks the hub, since an auditor need not trust it. Only the public key is trusted, and
the file of checkpoints if one was kept.
"""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstockd.audit.archive import ArchiveFolders, open_lines
from penstockd.audit.checkpoint import (
    Checkpoint,
    CheckpointFile,
    RingSigners,
    fingerprint_key,
    parse_key,
)
from penstockd.audit.copy import CopyBroken, verify_copy
from penstockd.audit.proof import UNSEALED_SECONDS, verify_database
from penstockd.audit.retention import ArchivePlace, ArchiveRefused, AuditRetention
from penstockd.audit.stored_archives import StoredArchive, read_archives
from penstockd.audit.verify import DaySpan, VerificationReport
from penstockd.config import Settings
from penstockd.errors import Conflict, DatabaseUnavailable, DataLocked
from penstockd.installation import find_database, node_id, open_ring
from penstockd.metering.reconcile import Reconciliation, reconcile_usage
from penstockd.node.errors import NodeError
from penstockd.store.database import open_database
from penstockd.store.roles import may_change_audit
from penstockd.store.root_secrets import read_root_secrets
from penstockd.up import OPERATORS_ERRORS, StartRefused, explain_error, open_store

#: What an auditor should know about a database where all processes log in as one role.
ONE_ROLE = (
    "WARNING: workers have a role in the database that may change the audit; only checkpoints that "
    "were kept elsewhere tell (see PENSTOCK_DATABASE_OWNER_URL)"
)
#: Errors that keep a verification from running.
FAILURES = (CopyBroken, DatabaseUnavailable, NodeError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verification trusts: public keys, and checkpoints that were kept elsewhere.

    ``witnesses`` only state that a key follows another: a copy need not agree with them.
    """

    keys: Sequence[bytes]
    outside: Sequence[Checkpoint]
    witnesses: Sequence[Checkpoint] = ()


def collect_evidence(
    settings: Settings, keys: Sequence[str], files: Sequence[Path], *, copy: bool
) -> Evidence:
    """The given keys, or this installation's key, and the checkpoints of files: each node keeps
    one.

    Without ``files``, reads this installation's file if it has one; for a copy, its checkpoints are
    witnesses only. Raises ValueError if a key is malformed, OSError if a file cannot be read.
    """
    trusted = [parse_key(key) for key in keys]
    own = not files and settings.checkpoint_file.exists()
    if own:
        files = [settings.checkpoint_file]
    # A checkpoint in several files counts once; the order is that of the numbers.
    found = {c.digest: c for file in files for c in CheckpointFile(file).read()}
    outside = sorted(found.values(), key=lambda c: (c.number, c.digest))
    trusted = trusted or list(RingSigners(open_ring(settings)).public)
    return Evidence(trusted, [], outside) if own and copy else Evidence(trusted, outside)


@dataclass(frozen=True, slots=True)
class StoredReport:
    """The result of verifying the database with its archives. ``workers_may_change``: workers have
    the right to change the audit. ``spare`` names archive files that belong to no dropped day."""

    report: VerificationReport
    workers_may_change: bool
    spare: Sequence[str]


async def verify_stored(
    settings: Settings, given: Evidence, patience: float, folders: Sequence[Path] | None
) -> StoredReport:
    """Verify the audit in the database, and the archives in ``folders``: by default in the folder
    of the settings; an empty list leaves archives out. The newest checkpoint may have any age if
    ``patience`` is 0 or the hub does not run.

    Raises DatabaseUnavailable and NodeError, and OSError if a folder cannot be read.
    """
    if folders is None:
        folders = [settings.archive_folder]
    async with (
        find_database(settings) as found,
        open_database(found.url, size=1) as database,
        database.snapshot() as connection,
    ):
        wanted = patience if found.hub_runs and patience else None
        archives = ArchiveFolders(folders) if folders else None
        report = await verify_database(
            connection, given.keys, given.outside, patience=wanted, archives=archives
        )
        spare = archives.spare if archives is not None else []
        return StoredReport(report, await may_change_audit(connection), spare)


async def reconcile_stored(
    settings: Settings, given: Evidence, first: dt.date, last: dt.date
) -> Reconciliation:
    """Reconcile the usage of some days with the audit in the database.

    Raises DatabaseUnavailable and NodeError.
    """
    async with (
        find_database(settings) as found,
        open_database(found.url, size=1) as database,
        database.snapshot() as connection,
    ):
        return await reconcile_usage(connection, given.keys, given.outside, first, last)


def summarise_report(report: VerificationReport, given: Evidence) -> str:
    """A report in one line, after a line for each declared gap."""
    speed = report.entries / report.seconds if report.seconds else 0.0
    parts = [
        "intact" if report.intact else f"NOT INTACT, {len(report.findings)} findings",
        f"{report.entries:,} entries ({speed:,.0f}/s)",
        f"{report.unsealed:,} not sealed yet{_warn_late(report)}",
        f"{report.checkpoints:,} checkpoints, {report.outside:,} of the file",
        *_describe_spans(report),
        f"key {', '.join(map(fingerprint_key, given.keys))}",
    ]
    return "\n".join([*report.restores, "; ".join(parts)])


def _describe_spans(report: VerificationReport) -> list[str]:
    """The days that were verified in archives and in the database; empty without archived days."""
    archived = report.archived
    if archived is None:
        return []
    files = f"{archived.entries:,} entries in {archived.files:,} archives"
    told = files if archived.files else "dropped, their archives were NOT READ"
    parts = [f"{_name_days(archived)}: {told}"]
    if report.in_store is not None:
        parts.append(f"{_name_days(report.in_store)}: {report.in_store.entries:,} entries stored")
    return parts


def _name_days(span: DaySpan) -> str:
    return str(span.first) if span.first == span.last else f"{span.first} to {span.last}"


def _warn_late(report: VerificationReport) -> str:
    """A warning if entries have waited so long that no keeper seems to seal them."""
    if report.waiting is None or report.waiting < UNSEALED_SECONDS:
        return ""
    return f" (WARNING: for {report.waiting:,.0f} s; does a keeper run?)"


def verify_file(copy: Path, given: Evidence) -> VerificationReport:
    """Verify a copy, or an archive. Raises CopyBroken and OSError."""
    with open_lines(copy) as lines:
        return verify_copy(lines, given.keys, given.outside, witnesses=given.witnesses)


async def archive_days(settings: Settings, days: int) -> list[StoredArchive]:
    """Archive and drop the days that ended more than ``days`` days ago; returns their archives.

    It works on the database itself, whether the hub runs or not. Raises StartRefused.
    """
    try:
        login, ring = settings.database_keeper_url, open_ring(settings)
        async with open_store(settings, "hub.audit_archive", login) as database:
            async with database.connection() as connection:
                await read_root_secrets(connection, ring)
            place = ArchivePlace(settings.archive_folder, node_id(settings), socket.gethostname())
            retention = AuditRetention(database, RingSigners(ring), place, days)
            return await retention.archive_old(database)
    except (Conflict, DataLocked) as exc:
        raise StartRefused("others are reading or sealing the audit: try again") from exc
    except (ArchiveRefused, CopyBroken) as exc:
        raise StartRefused(str(exc)) from exc
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


async def list_archived(settings: Settings) -> list[StoredArchive]:
    """The archived days, in the order in which they were dropped. Raises StartRefused."""
    try:
        async with (
            open_store(settings, "hub.audit_archive") as database,
            database.connection() as connection,
        ):
            return await read_archives(connection)
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc
