"""Backups of the embedded PostgreSQL: base backups, and the log that follows them (WAL).

A vault has, below ``base/NAME/``, a base backup (``base.tar.gz``), the files of the data folder
that belong to it, and ``backup.json``, written last: without it the backup is unfinished. Below
``wal/`` it has the log of all base backups, from which the database can be recovered to any time
since the first of them. ``owner`` has the id of the installation whose backups these are: a
restored copy has the same system identifier, and must not write here.

A replication slot keeps the log on the server until it is in the vault. Each vault has a slot of
its own; the server gives up a slot that no backup reads from beyond ``max_slot_wal_keep_size``.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import re
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import AwareDatetime, StringConstraints, TypeAdapter, ValidationError

from penstockd.node.errors import NodeError
from penstockd.node.postgres import (
    PORT,
    USER,
    EmbeddedPostgres,
    clean_environment,
    find_installation,
)
from penstockd.node.vault import Vault
from penstockd.store.database import Connection

#: The version of the form of backup.json.
FORMAT = 1
BASE, WAL, OWNER = "base", "wal", "owner"
ARCHIVE, LABEL = "base.tar.gz", "backup.json"
#: The name of a segment of the log: its timeline, and its place in it.
SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{16})")
#: The errors of reading a damaged gzip file.
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)

#: The name of a backup: the time when it began.
_NAME = "%Y%m%dT%H%M%S.%fZ"
#: A backup without a label has failed, unless it may still be running.
_RUNNING = timedelta(days=1)

_OTHER_COPY = (
    "has the log of another copy of this database, which was restored from the same backups:"
    " choose another place"
)
_SLOT = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1"
#: The first segment that a base backup begun from now on needs.
_SEGMENT = "SELECT pg_walfile_name(pg_current_wal_lsn())"
#: Ends the current segment; returns where it ends.
_END_SEGMENT = """
SELECT ('0/0'::pg_lsn + ceil((lsn - '0/0'::pg_lsn) / size) * size)::text
FROM pg_switch_wal() AS s (lsn),
     LATERAL (SELECT pg_size_bytes(current_setting('wal_segment_size'))::numeric) AS t (size)
"""
#: Makes the server write beyond that place.
_BEYOND = "SELECT pg_logical_emit_message(true, 'penstock', 'backup')"


class BackupFailed(NodeError):
    """A backup cannot be made, found or restored; the message states why and what to do."""


@dataclass(frozen=True, slots=True)
class Label:
    """The content of ``backup.json``.

    ``cluster`` is the system identifier of the server, "" for a backup of files alone. ``segment``
    is the first segment of the log that recovery needs. The database can be recovered to ``time``
    and later. ``files`` are the other files of the backup, without the base backup. ``owner`` is
    the id of the installation, "" in backups of earlier versions.
    """

    name: str
    cluster: str
    segment: Annotated[str, StringConstraints(pattern=r"^([0-9A-F]{24})?$")]
    time: AwareDatetime
    version: str
    files: Sequence[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z.-]*$")]]
    owner: str = ""
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """The content of ``backup.json``."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def parse(cls, data: bytes, name: str) -> Label:
        """Parse the ``backup.json`` of the backup of a name. Raises BackupFailed."""
        try:
            found = orjson.loads(data)
            if isinstance(found, dict) and found.get("format") != FORMAT:
                raise BackupFailed("it was made by another version of the hub")
            label = _LABELS.validate_python(found)
        except (orjson.JSONDecodeError, ValidationError) as exc:
            raise BackupFailed(f"{LABEL} is damaged") from exc
        if label.name != name:
            raise BackupFailed(f"{LABEL} belongs to another backup")
        return label


_LABELS = TypeAdapter(Label)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The backups in a vault: the labels of the usable ones, oldest first; the reasons why others
    cannot be used, by their names; and the names of those without a label, which run or have
    failed."""

    labels: Sequence[Label]
    unusable: Mapping[str, str]
    unfinished: Sequence[str]


def read_inventory(vault: Vault) -> Inventory:
    """Look through a vault; a damaged backup does not hide others. Raises VaultUnusable."""
    files = [name.split("/", 2)[1:] for name in vault.names(BASE, parts=True)]
    backups = {path[0] for path in files if len(path) > 1}
    labelled = {path[0] for path in files if path[1:] == [LABEL]}
    labels, unusable = [], {}
    for name in sorted(labelled):
        try:
            labels.append(Label.parse(vault.read(f"{BASE}/{name}/{LABEL}"), name))
        except BackupFailed as exc:
            unusable[name] = str(exc)
    labels.sort(key=lambda label: label.time)
    return Inventory(labels, unusable, sorted(backups - labelled))


def make_name() -> str:
    """A name for a backup that begins now."""
    return datetime.now(UTC).strftime(_NAME)


def _read_beginning(name: str) -> datetime | None:
    """The time when a backup began; None if this is not the name of one."""
    try:
        return datetime.strptime(name, _NAME).replace(tzinfo=UTC)
    except ValueError:
        return None


def claim_vault(
    vault: Vault, owner: str, labels: Sequence[Label], timeline: str, *, take_over: bool
) -> None:
    """Make an installation, whose server is on a timeline, the owner of a vault.

    Raises VaultUnusable, and BackupFailed if the vault is another installation's, unless
    ``take_over``, or if another one wrote on the same timeline: their logs would mix.
    """
    known = vault.read(OWNER).decode(errors="replace") if vault.exists(OWNER) else ""
    if known == owner:
        return
    # Earlier versions stored no owner; the original at least is still on its timeline.
    foreign = known or (labels and labels[-1].segment[:8] != timeline)
    if foreign and not take_over:
        raise BackupFailed(
            f"{vault.where} holds the backups of another installation, such as the one that this"
            " one was restored from: choose another place. If this installation replaces the"
            " other for good, use --take-over"
        )
    same = [label for label in labels if timeline and label.segment[:8] == timeline]
    if any(label.owner not in ("", owner) for label in same):
        raise BackupFailed(f"{vault.where} {_OTHER_COPY}")
    vault.put(OWNER, io.BytesIO(owner.encode()))


async def read_cluster(connection: Connection) -> str:
    """The system identifier of a server."""
    identifier = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    return str(identifier)


async def read_timeline(connection: Connection) -> str:
    """The timeline of a server, in the form in which names of segments begin."""
    return str(await connection.fetchval(_SEGMENT))[:8]


class ServerBackup:
    """Copies the running embedded server, as one of its databases' connections, into a vault.

    ``staging`` is a folder for segments of the log on their way; the next call sends what a failed
    one leaves there.
    """

    def __init__(
        self, postgres: EmbeddedPostgres, connection: Connection, vault: Vault, staging: Path
    ) -> None:
        self._postgres, self._connection, self._vault = postgres, connection, vault
        self.slot = "penstock_" + hashlib.sha256(vault.identity.encode()).hexdigest()[:16]
        # Absolute: PostgreSQL's programs run in another folder.
        self._staging = staging.absolute() / self.slot

    async def put_base(self, name: str) -> tuple[str, int]:
        """Put a base backup into the vault; returns the first segment that it needs, and its size
        in bytes. Raises BackupFailed and VaultUnusable."""
        status = await self._connection.fetchval(_SLOT, self.slot)
        if status == "lost":  # the server dropped the log: this backup starts a new one
            await self._connection.execute("SELECT pg_drop_replication_slot($1)", self.slot)
        if status in (None, "lost"):
            await self._connection.execute(
                "SELECT pg_create_physical_replication_slot($1, true)", self.slot
            )
        segment = str(await self._connection.fetchval(_SEGMENT))
        arguments = ["-D", "-", "-F", "t", "-X", "fetch", "-c", "fast"]
        arguments += ["--compress=client-gzip:1", "--manifest-checksums=SHA256"]
        size = await asyncio.to_thread(
            self._stream, "pg_basebackup", arguments, f"{BASE}/{name}/{ARCHIVE}"
        )
        return segment, size

    async def put_log(self) -> int:
        """Put the log up to now into the vault; returns the number of new segments.

        Raises BackupFailed, also if there is no base backup to which the log belongs, and
        VaultUnusable.
        """
        status = await self._connection.fetchval(_SLOT, self.slot)
        if status in (None, "lost"):
            raise BackupFailed(
                f"{self._vault.where}: no base backup is there whose log goes on to now:"
                " make one, penstock backup without --wal"
            )
        end = await self._connection.fetchval(_END_SEGMENT)
        await self._connection.execute(_BEYOND)
        for folder in (self._staging.parent, self._staging):
            folder.mkdir(exist_ok=True, mode=0o700)
        arguments = ["-D", str(self._staging), "-S", self.slot, f"--endpos={end}", "--no-loop"]
        arguments += ["--compress=gzip:1"]
        await asyncio.to_thread(self._run, "pg_receivewal", arguments)
        return await asyncio.to_thread(self._send_segments)

    def _send_segments(self) -> int:
        count = 0
        for path in sorted(self._staging.iterdir()):
            if path.suffix == ".partial":
                continue
            self._send_segment(path, f"{WAL}/{path.name}")
            path.unlink()
            count += 1
        return count

    def _send_segment(self, path: Path, name: str) -> None:
        """Put a segment into the vault. An existing one stays unchanged; a damaged one is replaced.
        Raises BackupFailed if one of another server is there."""
        if self._vault.exists(name):
            with self._vault.opened(name) as stream:
                there = _digest_segment(stream, name)
            with path.open("rb") as stream:
                same = there == _digest_segment(stream, name)
            if same:
                return
            if there is not None:
                raise BackupFailed(f"{self._vault.where}/{name} {_OTHER_COPY}")
        with path.open("rb") as stream:
            self._vault.put(name, stream)

    def _stream(self, program: str, arguments: Sequence[str], name: str) -> int:
        with self._start(program, arguments, subprocess.PIPE) as process:
            assert process.stdout is not None and process.stderr is not None
            try:
                size = self._vault.put(name, _Whole(process))
            except BaseException:
                process.kill()
                raise
        return size

    def _run(self, program: str, arguments: Sequence[str]) -> None:
        with self._start(program, arguments, subprocess.DEVNULL) as process:
            _finish_process(process)

    def _start(
        self, program: str, arguments: Sequence[str], output: int
    ) -> subprocess.Popen[bytes]:
        reach = ["-h", str(self._postgres.socket), "-p", str(PORT), "-U", USER, "-w"]
        return subprocess.Popen(
            [find_installation() / "bin" / program, *reach, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            cwd="/",
        )


def _digest_segment(stream: Any, name: str) -> str | None:
    """The digest of a segment's content, however it is compressed; None if it is damaged."""
    source = gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else stream
    digest = hashlib.sha256()
    try:
        while data := source.read(1024 * 1024):
            digest.update(data)
    except GZIP_ERRORS:
        return None
    return digest.hexdigest()


class _Whole:
    """The output of a process, which ends normally only if the process succeeded."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process, self._output = process, process.stdout

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes. Raises BackupFailed at the end if the process failed."""
        data: bytes = self._output.read(size)
        if not data:
            _finish_process(self._process)
        return data


def _finish_process(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process. Raises BackupFailed with its output if it failed."""
    assert process.stderr is not None
    said = process.stderr.read()
    if process.wait() != 0:
        name = Path(str(process.args[0])).name  # type: ignore[index]
        raise BackupFailed(f"{name}: {said.decode(errors='replace').strip()[-1000:]}")


def put_files(vault: Vault, name: str, files: Mapping[str, bytes]) -> None:
    """Put files into a backup. Raises VaultUnusable."""
    for path, data in files.items():
        vault.put(f"{BASE}/{name}/{path}", io.BytesIO(data))


def remove_old(vault: Vault, keep: int) -> list[str]:
    """Remove the leftovers of failed backups, and all backups but the newest ``keep`` (0: all
    stay), with the log that only they need.

    An unusable backup is removed together with all backups older than the kept ones. Returns the
    names of the removed backups. Raises VaultUnusable.
    """
    found, late = read_inventory(vault), datetime.now(UTC) - _RUNNING
    gone = [name for name in found.unfinished if (_read_beginning(name) or late) < late]
    kept = found.labels[-keep:]
    if keep and kept:
        first = _read_beginning(kept[0].name) or kept[0].time
        gone += [label.name for label in found.labels[:-keep]]
        gone += [name for name in found.unusable if (_read_beginning(name) or first) < first]
    for name in gone:
        label = f"{BASE}/{name}/{LABEL}"
        if vault.exists(label):
            vault.delete(label)  # first: the rest then counts as unfinished
        vault.delete_folder(f"{BASE}/{name}")
    vault.delete_parts(WAL, late)
    needed = min((label.segment[8:] for label in kept if label.segment), default="")
    for path in vault.names(WAL) if keep else ():
        segment = SEGMENT.match(Path(path).name)
        if segment is not None and segment[2] < needed:
            vault.delete(path)
    return gone
