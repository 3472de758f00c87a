"""Restores the embedded PostgreSQL from a vault into an empty data folder (see ``backup``)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import asyncpg
import orjson

from penstockd.node.account import find_account
from penstockd.node.backup import (
    ARCHIVE,
    BASE,
    GZIP_ERRORS,
    SEGMENT,
    WAL,
    BackupFailed,
    Inventory,
    Label,
)
from penstockd.node.errors import ProcessFailed
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.process import Account
from penstockd.node.vault import Vault

#: Within the cluster: the log from the vault, until the server has recovered.
_LOG = "penstock-wal"
#: Bytes that are read at a time.
_STEP = 1024 * 1024
#: Settings of the recovery, which the server keeps in a file of its own until they are reset.
_RECOVERY = (
    "restore_command",
    "recovery_target_time",
    "recovery_target_action",
    "recovery_target_timeline",
)


def choose_label(found: Inventory, to: datetime | None, where: str) -> Label:
    """The newest usable backup from which a time can be reached, by default the newest of all.

    Raises BackupFailed if there is none.
    """
    fit = [label for label in found.labels if to is None or label.time <= to]
    if fit:
        return fit[-1]
    others = "".join(f"; {name} cannot be used: {why}" for name, why in found.unusable.items())
    if not found.labels:
        raise BackupFailed(f"{where}: there is no finished backup{others}")
    first = found.labels[0].time.isoformat(timespec="seconds")
    raise BackupFailed(f"{where}: the oldest backup reaches back to {first}{others}")


def check_no_cluster(postgres: EmbeddedPostgres) -> None:
    """Raise BackupFailed if the data folder has a database already."""
    if postgres.cluster.exists():
        raise BackupFailed(
            f"{postgres.cluster} already exists: restore into another data folder, or move the"
            " folder 'postgres' away first"
        )


async def restore_server(
    vault: Vault, label: Label, to: datetime | None, postgres: EmbeddedPostgres
) -> None:
    """Create the cluster of a backup, and let it recover to a time, or to the end of the log.

    There must be no cluster yet; the caller holds the data folder. The server does not run
    afterwards. If this fails, it removes what it created. Raises BackupFailed, VaultUnusable,
    FolderUnusable and ProcessFailed.
    """
    check_no_cluster(postgres)
    fresh = postgres.cluster.with_name("postgres.restored")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        await asyncio.to_thread(_unpack_base, vault, label, fresh)
        await asyncio.to_thread(_fetch_log, vault, label, fresh / _LOG)
        _write_recovery(fresh, to)
        account = find_account(fresh)
        if account is not None:
            _give_tree(fresh, account)
        fresh.rename(postgres.cluster)
        await _recover_server(postgres, to)
    except BaseException:
        for made in (fresh, postgres.cluster):
            shutil.rmtree(made, ignore_errors=True)
        raise
    shutil.rmtree(postgres.cluster / _LOG)


def _unpack_base(vault: Vault, label: Label, cluster: Path) -> None:
    """Unpack the base backup, and verify each file by the checksums in the backup's manifest."""
    cluster.mkdir(parents=True, mode=0o700)
    name = f"{BASE}/{label.name}/{ARCHIVE}"
    with vault.opened(name) as stream, gzip.GzipFile(fileobj=stream) as plain:
        try:
            with tarfile.open(fileobj=plain, mode="r|") as archive:
                archive.extractall(cluster, filter="tar")
            # The checksum of all files is last; the manifest omits the log.
            while plain.read(_STEP):
                pass
        except (tarfile.TarError, *GZIP_ERRORS) as exc:
            raise BackupFailed(f"{vault.where}/{name} is damaged: {exc}") from exc
    for path in _find_damaged(cluster):
        raise BackupFailed(f"{vault.where}/{name} is damaged: {path}")


def _find_damaged(cluster: Path) -> Iterator[str]:
    """The files of a cluster that differ from its backup's manifest."""
    try:
        manifest = orjson.loads((cluster / "backup_manifest").read_bytes())
        stated = [(f["Path"], f["Size"], f["Checksum"]) for f in manifest["Files"] if "Path" in f]
    except (OSError, ValueError, KeyError, TypeError):
        yield "its manifest"
        return
    for path, size, checksum in stated:
        try:
            with (cluster / path).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                if (file.tell(), found) != (size, checksum):
                    yield path
        except OSError:
            yield path


def _fetch_log(vault: Vault, label: Label, folder: Path) -> None:
    """Fetch the segments of the log that the backup needs, and all later ones of its timeline.

    The history of other timelines comes too: the server then begins one that is new to the vault.
    """
    folder.mkdir(mode=0o700)
    for name in vault.names(WAL):
        path = Path(name)
        plain = path.name.removesuffix(".gz")
        segment = SEGMENT.fullmatch(plain)
        if segment and (segment[1] != label.segment[:8] or plain < label.segment):
            continue
        with vault.opened(name) as stream, (folder / plain).open("wb") as sink:
            source = gzip.GzipFile(fileobj=stream) if path.suffix == ".gz" else stream
            try:
                shutil.copyfileobj(source, sink)
            except GZIP_ERRORS as exc:
                raise BackupFailed(f"{vault.where}/{name} is damaged: {exc}") from exc


def _write_recovery(cluster: Path, to: datetime | None) -> None:
    (cluster / "recovery.signal").touch(mode=0o600)
    settings = [
        f'restore_command = \'cp "{_LOG}/%f" "%p"\'',
        "recovery_target_action = 'promote'",
        # The backup's own timeline: the newest one may belong to a copy.
        "recovery_target_timeline = 'current'",
    ]
    if to is not None:
        settings.append(f"recovery_target_time = '{to.isoformat()}'")
    with (cluster / "postgresql.auto.conf").open("a") as file:
        file.write("".join(f"{line}\n" for line in settings))


def _give_tree(tree: Path, account: Account) -> None:
    """Let the server's account own everything in a tree."""
    for path in (tree, *tree.rglob("*")):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


async def _recover_server(postgres: EmbeddedPostgres, to: datetime | None) -> None:
    """Start the server, wait until it takes writes, and stop it."""
    try:
        await postgres.start()
        connection = await asyncpg.connect(postgres.dsn)
        try:
            while await connection.fetchval("SELECT pg_is_in_recovery()"):  # noqa: ASYNC110 - another process ends it
                await asyncio.sleep(0.1)
            for name in _RECOVERY:
                await connection.execute(f"ALTER SYSTEM RESET {name}")
        finally:
            await connection.close()
    except (ProcessFailed, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        end = postgres.log.tail
        if to is not None and "recovery ended before configured recovery target" in end:
            raise BackupFailed(
                f"the log in the vault ends before {to.isoformat()}, or has a gap: choose an"
                " earlier time, or none for the end of the log"
            ) from exc
        raise BackupFailed(f"the restored database does not start: {exc}\n{end}") from exc
    finally:
        await postgres.stop()
