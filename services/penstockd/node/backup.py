"""Backups of the embedded PostgreSQL: base backups, and the log that follows them (WAL).

A vault holds, below ``base/NAME/``, a base backup (``base.tar.gz``), the files of the data folder
that belong to it, and ``backup.json``, written last: without it the backup is unfinished. Below
``wal/`` it holds the log of all base backups, from which the database is recovered to any time
since the first of them.

A replication slot keeps the log on the server until it is in the vault. Each vault has a slot of
its own; one that nobody fetches from is given up after ``max_slot_wal_keep_size``.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

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

#: The form of backup.json.
FORMAT = 1
BASE, WAL = "base", "wal"
ARCHIVE, LABEL = "base.tar.gz", "backup.json"
#: Length of the name of a segment of the log: timeline, and place in it.
SEGMENT_NAME = 24

_SLOT = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1"
#: The first segment that a base backup begun from now on needs.
_SEGMENT = "SELECT pg_walfile_name(pg_current_wal_lsn())"
#: Ends the current segment; returns where it ends.
_END_SEGMENT = """
SELECT ('0/0'::pg_lsn + ceil((lsn - '0/0'::pg_lsn) / size) * size)::text
FROM pg_switch_wal() AS s (lsn),
     LATERAL (SELECT pg_size_bytes(current_setting('wal_segment_size'))::numeric) AS t (size)
"""
#: Has the server write beyond that place.
_BEYOND = "SELECT pg_logical_emit_message(true, 'penstock', 'backup')"


class BackupFailed(NodeError):
    """A backup cannot be made, found or restored; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Label:
    """What ``backup.json`` says of a backup.

    ``cluster`` is the system identifier of the server, "" for a backup of files alone. ``segment``
    is the first segment of the log that recovery needs. The database can be recovered to ``time``
    and later ones. ``files`` are the other files of the backup, without the base backup.
    """

    name: str
    cluster: str
    segment: str
    time: datetime
    version: str
    files: Sequence[str]
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """The content of ``backup.json``."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Label:
        """Parse ``backup.json``. Raises BackupFailed."""
        try:
            found: dict[str, Any] = orjson.loads(data)
            if found.get("format") != FORMAT:
                raise BackupFailed(f"{where}: the backup was made by another version of the hub")
            return cls(**{**found, "time": datetime.fromisoformat(found["time"])})
        except (ValueError, TypeError, KeyError) as exc:
            raise BackupFailed(f"{where}: {LABEL} is damaged") from exc


def read_labels(vault: Vault) -> list[Label]:
    """The finished backups of a vault, oldest first. Raises VaultUnusable and BackupFailed."""
    names = [name for name in vault.names(BASE) if name.endswith(f"/{LABEL}")]
    found = [Label.parse(vault.read(name), f"{vault.where}/{name}") for name in names]
    return sorted(found, key=lambda label: label.time)


async def read_cluster(connection: Connection) -> str:
    """The system identifier of a server."""
    identifier = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
    return str(identifier)


class ServerBackup:
    """Copies the running embedded server, as one of its databases' connections, into a vault.

    ``staging`` is a folder for segments of the log on their way; what a failed call leaves there is
    sent by the next one.
    """

    def __init__(
        self, postgres: EmbeddedPostgres, connection: Connection, vault: Vault, staging: Path
    ) -> None:
        self._postgres, self._connection, self._vault = postgres, connection, vault
        self.slot = "penstock_" + hashlib.sha256(vault.identity.encode()).hexdigest()[:16]
        self._staging = staging / self.slot

    async def put_base(self, name: str) -> tuple[str, int]:
        """Put a base backup into the vault; returns the first segment that it needs, and its size
        in bytes. Raises BackupFailed and VaultUnusable."""
        status = await self._connection.fetchval(_SLOT, self.slot)
        if status == "lost":  # the server gave the log up: this backup begins anew
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
        """Put the log up to now into the vault; returns how many segments were new.

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
            with path.open("rb") as source:
                self._vault.put(f"{WAL}/{path.name}", source)
            path.unlink()
            count += 1
        return count

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


class _Whole:
    """The output of a process, which ends only if the process has ended well."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._process, self._output = process, process.stdout

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes. Raises BackupFailed in place of the end."""
        data: bytes = self._output.read(size)
        if not data:
            _finish_process(self._process)
        return data


def _finish_process(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process. Raises BackupFailed with what it says, unless it ends well."""
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
    """Remove all backups but the newest ``keep``, and the log that only they need.

    Returns the names of the removed backups. Raises VaultUnusable and BackupFailed.
    """
    labels = read_labels(vault)
    old, kept = labels[:-keep], labels[-keep:]
    for label in old:
        vault.delete(f"{BASE}/{label.name}/{LABEL}")  # first: what remains is unfinished
        for path in vault.names(f"{BASE}/{label.name}"):
            vault.delete(path)
    needed = min((label.segment[8:] for label in kept if label.segment), default="")
    for path in vault.names(WAL):
        segment = Path(path).name
        if not segment.endswith(".history") and segment[8:SEGMENT_NAME] < needed:
            vault.delete(path)
    return [label.name for label in old]
