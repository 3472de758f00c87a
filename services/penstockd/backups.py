"""``penstock backup`` and ``penstock restore``: the database of an installation with its files."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import orjson

from penstockd.audit.archive import list_archives, open_private
from penstockd.audit.declared_epoch import Epoch
from penstockd.auth.secret import SECOND_SECRET, SECRET, sync_folder
from penstockd.config import Settings
from penstockd.errors import DatabaseUnavailable
from penstockd.installation import find_database, forget_installation_id, installation_id
from penstockd.node import lock
from penstockd.node.backup import (
    BASE,
    LABEL,
    BackupFailed,
    Label,
    ServerBackup,
    claim_vault,
    make_name,
    put_files,
    read_cluster,
    read_inventory,
    read_timeline,
    remove_old,
)
from penstockd.node.errors import NodeError
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.restore import check_no_cluster, choose_label, restore_server
from penstockd.node.sockets import sockets_folder
from penstockd.node.vault import Vault, VaultUnusable
from penstockd.store.database import Connection, open_database
from penstockd.up import StartRefused, begin_epoch

#: Names of files in a backup. The settings decide where each belongs.
CHECKPOINTS, SETTINGS = "checkpoints.jsonl", "settings.json"
#: The folder in a vault for the archived days of the audit.
ARCHIVED = "audit"
_SECRETS = (SECRET, SECOND_SECRET)
#: In the data folder: segments of the log on their way to a vault.
STAGING = "backup"
_OPERATORS_ERRORS = (NodeError, DatabaseUnavailable, OSError)


@dataclass(frozen=True, slots=True)
class Taken:
    """What ``take_backup`` has put into the vault: the new backup (None for the log alone), its
    size in bytes, the numbers of new segments of the log and of new archived days of the audit,
    and the names of removed backups.
    ``oldest`` is the earliest time to which the database can be restored, None if the vault has no
    backup of it. ``unusable`` explains by name why other backups there cannot be used."""

    label: Label | None
    size: int
    segments: int
    archives: int
    removed: Sequence[str]
    oldest: datetime | None
    unusable: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Restored:
    """The backup that was restored, the epoch that was begun on it, and by name why other backups
    cannot be used."""

    label: Label
    epoch: Epoch
    unusable: Mapping[str, str]


async def take_backup(
    settings: Settings, where: str, *, log_only: bool, keep: int, take_over: bool = False
) -> Taken:
    """Back up the installation, whether the hub runs or not.

    ``log_only`` adds to the vault only the log since the last backup, without a new base backup.
    ``keep`` is the number of backups to keep, 0 for all. A vault of another installation is
    refused, unless ``take_over`` is set. Raises StartRefused.
    """
    try:
        vault = Vault(where)
        if settings.database_url is not None:
            return _back_up_files(settings, vault, keep, log_only=log_only, take_over=take_over)
        async with _open_server(settings, vault) as (server, connection):
            cluster = await read_cluster(connection)
            found = await asyncio.to_thread(read_inventory, vault)
            _check_cluster(found.labels, cluster, vault)
            owner, timeline = installation_id(settings), await read_timeline(connection)
            if found.labels or not log_only:
                claim_vault(vault, owner, found.labels, timeline, take_over=take_over)
            newest = found.labels[-1] if found.labels else None
            if log_only:
                segments = await _put_log_with_secrets(settings, vault, server, newest)
                oldest = found.labels[0].time if found.labels else None
                archives = await asyncio.to_thread(_put_archives, settings, vault)
                return Taken(None, 0, segments, archives, (), oldest, found.unusable)
            # The file of checkpoints is read first: the database then has all of them.
            files, name = _collect_files(settings), make_name()
            if newest is not None:
                # The earlier backup reaches until this one is finished. If it has no place for one
                # more secret, it reaches only until the second of two rotations.
                await asyncio.to_thread(_add_secrets, vault, newest, _find_secrets(settings))
            with _remove_if_failed(vault, name):
                segment, size = await server.put_base(name)
                time = await connection.fetchval("SELECT clock_timestamp()")
                segments = await server.put_log()
                # The log may have a rotation that began meanwhile.
                files = _merge_secrets(files, _find_secrets(settings), replaces=True) or files
                label = Label(name, cluster, segment, time, _read_version(), sorted(files), owner)
                # After the log, so that the vault has the archive of every day that the log drops.
                archives = await asyncio.to_thread(_put_archives, settings, vault)
                await asyncio.to_thread(_finish_backup, vault, label, files)
            removed = await asyncio.to_thread(remove_old, vault, keep)
            found = await asyncio.to_thread(read_inventory, vault)
            if name in found.unusable or not found.labels:
                raise BackupFailed(f"the new backup cannot be used: {found.unusable.get(name)}")
            oldest = found.labels[0].time
            return Taken(label, size, segments, archives, removed, oldest, found.unusable)
    except _OPERATORS_ERRORS as exc:
        raise StartRefused(str(exc)) from exc


async def restore_backup(settings: Settings, where: str, to: datetime | None) -> Restored:
    """Restore the installation into an empty data folder, and declare an epoch.

    ``to`` is the time to which the database is restored, by default the end of the log. Raises
    StartRefused.
    """
    try:
        vault = Vault(where)
        found = read_inventory(vault)
        label = choose_label(found, to, vault.where)
        if bool(label.cluster) == (settings.database_url is not None):
            raise BackupFailed(_OWN_DATABASE if label.cluster else _NO_DATABASE)
        with lock.hold_folder(settings.data_dir):
            files = {n: vault.read(f"base/{label.name}/{n}") for n in label.files}
            _check_secret(settings, files)
            postgres = EmbeddedPostgres(settings.data_dir, sockets_folder(settings.data_dir))
            if label.cluster:
                check_no_cluster(postgres)
            # First: what fails later leaves no cluster behind that a second try would refuse.
            _fetch_archives(settings, vault)
            _begin_installation(settings)
            if label.cluster:
                await restore_server(vault, label, to, postgres)
            _write_files(settings, files)
        return Restored(label, await begin_epoch(settings, "restore"), found.unusable)
    except _OPERATORS_ERRORS as exc:
        raise StartRefused(str(exc)) from exc


_OWN_DATABASE = "this backup has a database of its own: restore it without PENSTOCK_DATABASE_URL"
_NO_DATABASE = (
    "this backup has only files: restore the database with your own tools, and set"
    " PENSTOCK_DATABASE_URL"
)


@asynccontextmanager
async def _open_server(
    settings: Settings, vault: Vault
) -> AsyncIterator[tuple[ServerBackup, Connection]]:
    async with (
        find_database(settings) as found,
        open_database(found.url, size=1) as database,
    ):
        postgres = EmbeddedPostgres(settings.data_dir, sockets_folder(settings.data_dir))
        connection = await database.connect()
        try:
            yield (
                ServerBackup(postgres, connection, vault, settings.data_dir / STAGING),
                connection,
            )
        finally:
            await connection.close()


def _check_cluster(labels: Sequence[Label], cluster: str, vault: Vault) -> None:
    """Raise BackupFailed if the vault has backups of another database: their logs would mix."""
    if any(label.cluster != cluster for label in labels):
        raise BackupFailed(f"{vault.where} holds backups of another database: choose another place")


def _begin_installation(settings: Settings) -> None:
    """Keep the copy that is being restored out of the vaults of its original, even if segments of
    an earlier database in this folder still wait for one."""
    forget_installation_id(settings)
    shutil.rmtree(settings.data_dir / STAGING, ignore_errors=True)


def _back_up_files(
    settings: Settings, vault: Vault, keep: int, *, log_only: bool, take_over: bool
) -> Taken:
    """Back up the files of an installation whose database is backed up by other tools."""
    if log_only:
        raise BackupFailed("the database of PENSTOCK_DATABASE_URL is backed up by its own tools")
    found = read_inventory(vault)
    _check_cluster(found.labels, "", vault)
    owner = installation_id(settings)
    claim_vault(vault, owner, found.labels, "", take_over=take_over)
    files, name = _collect_files(settings), make_name()
    label = Label(name, "", "", datetime.now(UTC), _read_version(), sorted(files), owner)
    with _remove_if_failed(vault, name):
        archives = _put_archives(settings, vault)
        _finish_backup(vault, label, files)
    removed = remove_old(vault, keep)
    return Taken(label, 0, 0, archives, removed, None, read_inventory(vault).unusable)


def _put_archives(settings: Settings, vault: Vault) -> int:
    """Put the archived days of the audit that the vault lacks into it; returns how many.

    All backups share them, and no backup removes them: nothing else has these days. Files with
    equal names have equal content.
    """
    there = set(vault.names(ARCHIVED))
    count = 0
    for path in list_archives(settings.archive_folder):
        name = f"{ARCHIVED}/{path.name}"
        if name not in there:
            with path.open("rb") as file:
                vault.put(name, file)
            count += 1
    return count


def _fetch_archives(settings: Settings, vault: Vault) -> None:
    """Copy the archived days that the folder of archives lacks from the vault."""
    names = vault.names(ARCHIVED)
    folder = settings.archive_folder
    if names:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in names:
        path = folder / Path(name).name
        if path.exists():
            continue
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        with vault.opened(name) as source, open_private(fresh) as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    if names:
        sync_folder(folder)


def _finish_backup(vault: Vault, label: Label, files: Mapping[str, bytes]) -> None:
    put_files(vault, label.name, files)
    put_files(vault, label.name, {LABEL: label.to_bytes()})


@contextmanager
def _remove_if_failed(vault: Vault, name: str) -> Iterator[None]:
    """Remove a backup from the vault if the block fails: it may contain the root secret."""
    try:
        yield
    except BaseException:
        # A later backup removes what cannot be removed now.
        with suppress(VaultUnusable):
            vault.delete_folder(f"{BASE}/{name}")
        raise


def _collect_files(settings: Settings) -> dict[str, bytes]:
    """The files of an installation, with the root secrets: keys of the database's content are
    derived from them."""
    found = {SETTINGS: _write_settings(settings), **_find_secrets(settings)}
    if settings.checkpoint_file.exists():
        found[CHECKPOINTS] = settings.checkpoint_file.read_bytes()
    return found


def _find_secrets(settings: Settings) -> dict[str, bytes]:
    """The secrets that are set, or in the data folder, by the names of their files."""
    if settings.secret is not None:
        given = zip(_SECRETS, (settings.secret, settings.second_secret), strict=True)
        return {name: text.encode() for name, text in given if text is not None}
    # The second may take the place of the first meanwhile: it is read first.
    found = {}
    for name in reversed(_SECRETS):
        with suppress(FileNotFoundError):
            found[name] = (settings.data_dir / name).read_bytes()
    return found


async def _put_log_with_secrets(
    settings: Settings, vault: Vault, server: ServerBackup, newest: Label | None
) -> int:
    """Put the log into the vault, and into the newest backup there each secret that the log may
    need; returns the number of new segments. Raises BackupFailed if that backup has two others."""
    segments = None
    # Before the log is there, whose content may need them, and again after its end.
    for _ in range(2):
        found = _find_secrets(settings)
        if newest is not None:
            newest = await asyncio.to_thread(_add_secrets, vault, newest, found)
            if newest is None:
                raise BackupFailed(
                    "the last base backup has two other root secrets, and no place for the new one:"
                    " make a base backup now, penstock backup without --wal"
                )
        if segments is None:
            segments = await server.put_log()
    assert segments is not None, "it was put at the first turn"
    return segments


def _add_secrets(vault: Vault, label: Label, found: Mapping[str, bytes]) -> Label | None:
    """Add secrets to a backup that was made before a rotation; returns its label, None if it has
    no place for them."""
    held = {n: vault.read(f"{BASE}/{label.name}/{n}") for n in _SECRETS if n in label.files}
    merged = _merge_secrets(held, found)
    if merged is None:
        return None
    added = {name: text for name, text in merged.items() if name not in held}
    if added:
        label = replace(label, files=sorted({*label.files, *added}))
        _finish_backup(vault, label, added)
    return label


def _merge_secrets(
    held: Mapping[str, bytes], found: Mapping[str, bytes], *, replaces: bool = False
) -> dict[str, bytes] | None:
    """Files with all the secrets of both. If these are more than two, None, or with ``replaces``
    those found last alone.

    A secret that took the place of a retired one is added beside it: a time before that needs both.
    """
    merged = dict(held)
    for text in (found[name] for name in _SECRETS if name in found):
        if text.strip() in (merged[name].strip() for name in _SECRETS if name in merged):
            continue
        free = next((name for name in _SECRETS if name not in merged), None)
        if free is None:
            return {**held, **found} if replaces else None
        merged[free] = text
    return merged


def _write_settings(settings: Settings) -> bytes:
    """The settings that were given, without passwords, as environment variables."""
    shown = {name for name in settings.model_fields_set if type(settings).model_fields[name].repr}
    values = settings.model_dump(mode="json", include=shown)
    return orjson.dumps(
        {f"PENSTOCK_{name.upper()}": value for name, value in sorted(values.items())},
        option=orjson.OPT_INDENT_2,
    )


def _check_secret(settings: Settings, files: Mapping[str, bytes]) -> None:
    """Raise BackupFailed if secrets are set, or there already, and one of the backup's is not
    among them."""
    wanted = {files[name].strip() for name in _SECRETS if name in files}
    known = {text.strip() for text in _find_secrets(settings).values()}
    if known and not wanted <= known:
        raise BackupFailed(
            "a root secret of the backup is not among those that are set, or in the data folder:"
            " the database cannot be read without it"
        )


def _write_files(settings: Settings, files: Mapping[str, bytes]) -> None:
    """Write the files to the places in the settings. Existing checkpoints stay: they may be newer,
    and then show what was undone."""
    places: dict[str, Path] = {CHECKPOINTS: settings.checkpoint_file}
    if settings.secret is None:
        places |= {name: settings.data_dir / name for name in _SECRETS}
    for name, path in places.items():
        if name in files and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(files[name])
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)


def _read_version() -> str:
    return version("penstock-hub")
