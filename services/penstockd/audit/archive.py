"""Archives: one file for each day of the audit that the hub has dropped from the database.

A file is a copy of the day (see ``copy``), compressed with gzip, with the keys of the replies and
with the checkpoints up to the one that signs the end of the chain. Its name has the day and the
beginning of the chain's last hash: writing a file again gives the same content, and two chains of
one day have two files. A file appears whole, or not at all.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import gzip
import os
import secrets
import shutil
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from penstockd.audit.checkpoint import Checkpoint
from penstockd.audit.copy import (
    CopyBroken,
    CopyLines,
    encode_chain,
    encode_checkpoints,
    encode_end,
    encode_rules,
    feed_entries,
    parse_chain,
    take_rules,
)
from penstockd.audit.stored_checkpoints import read_checkpoints
from penstockd.audit.verify import Fault, Finding, Verification
from penstockd.auth.secret import sync_folder
from penstockd.store.database import Connection

SUFFIX = ".ndjson.gz"
_PREFIX = "audit-"
#: Ends the name of a file that is being written.
_PART = ".part"
#: An unfinished file older than this many seconds belongs to a run that was killed.
_STALE_SECONDS = 86_400.0
#: The most bytes of a line; an entry has the keys of at most a million records.
_LINE_BYTES = 256 * 1024 * 1024

_RULES = """
SELECT digest, content FROM hub.audit_shown
WHERE digest IN (SELECT shown FROM hub.audit_entry WHERE day = $1) ORDER BY digest
"""


@dataclass(frozen=True, slots=True)
class DayChain:
    """The whole chain of a day. Checkpoint number ``signed`` signs its end."""

    day: dt.date
    anchor: int
    entries: int
    last_hash: bytes
    signed: int


def name_archive(day: dt.date, last_hash: bytes) -> str:
    """The name of the file of a chain that ends with a hash."""
    return f"{_PREFIX}{day.isoformat()}-{last_hash.hex()[:16]}{SUFFIX}"


def list_archives(folder: Path) -> list[Path]:
    """The finished archives in a folder, by name; none if there is no folder. Raises OSError."""
    if not folder.is_dir():
        return []
    return sorted(folder.glob(f"{_PREFIX}*{SUFFIX}"))


async def write_archive(connection: Connection, chain: DayChain, folder: Path) -> Path:
    """Write the archive of a chain from the connection's snapshot to a temporary file, which the
    caller checks and ``finish_archive`` renames. Raises OSError.
    """
    fresh = folder / f"{name_archive(chain.day, chain.last_hash)}.{secrets.token_hex(4)}{_PART}"
    with open_private(fresh) as file:
        # A header without name and time, so that equal content makes equal files.
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            async for lines in _encode_archive(connection, chain):
                await asyncio.to_thread(packed.write, b"".join(line + b"\n" for line in lines))
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    return fresh


async def _encode_archive(connection: Connection, chain: DayChain) -> AsyncIterator[list[bytes]]:
    checkpoints = await read_checkpoints(
        connection, after=max(0, chain.anchor - 1), until=chain.signed
    )
    yield encode_checkpoints(checkpoints)
    yield encode_rules(await connection.fetch(_RULES, chain.day))
    count = 0
    pieces = encode_chain(connection, chain.day, chain.anchor, chain.entries, with_keys=True)
    yield await anext(pieces)
    async for lines in pieces:
        count += len(lines)
        yield lines
    yield [encode_end(count)]


@contextmanager
def open_private(path: Path) -> Iterator[IO[bytes]]:
    """A new file that only its owner can read; removed if the block fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def finish_archive(fresh: Path, chain: DayChain) -> tuple[Path, int]:
    """Give a written archive its name, and sync it to disk. Returns its path and its size in
    bytes. Raises OSError."""
    path = fresh.with_name(name_archive(chain.day, chain.last_hash))
    size = fresh.stat().st_size
    fresh.replace(path)
    sync_folder(path.parent)
    return path, size


def remove_unfinished(fresh: Path) -> None:
    """Remove an archive that has no final name yet."""
    fresh.unlink(missing_ok=True)


def prepare_folder(folder: Path, size: int) -> None:
    """Make the folder of archives, remove what killed runs left in it, and check that its disk has
    room for ``size`` more bytes. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in folder.glob(f"{_PREFIX}*{_PART}"):
        if dt.datetime.now().timestamp() - path.stat().st_mtime > _STALE_SECONDS:
            path.unlink(missing_ok=True)
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, f"no room for {size:,} bytes", str(folder))


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a copy or an archive, unpacked if necessary. Raises OSError; reading the lines
    also raises CopyBroken."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield _read_lines(gzip.GzipFile(fileobj=file) if packed else file)


def _read_lines(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    try:
        while line := file.readline(_LINE_BYTES + 1):
            if len(line) > _LINE_BYTES:
                raise CopyBroken(f"it has a line of more than {_LINE_BYTES:,} bytes")
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
        raise CopyBroken(f"it cannot be unpacked: {exc}") from exc


class ArchiveFolders:
    """The archives of several folders; of two with one name, the one of the first folder."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._found = {path.name: path for f in reversed(folders) for path in list_archives(f)}
        self._taken: set[str] = set()

    @property
    def spare(self) -> list[str]:
        """The names of files that belong to no dropped day that was checked."""
        return sorted(self._found.keys() - self._taken)

    def check(self, check: Verification, pruned: Checkpoint) -> bool:
        """Check the archive of a dropped chain; returns whether there is one."""
        name = name_archive(pruned.day, pruned.hash)
        path = self._found.get(name)
        if path is None:
            where = ", ".join(map(str, self._folders))
            words = f"its archive is missing: no {name} in {where}"
            check.find(Finding(Fault.ARCHIVE, words, pruned.day, 1))
            return False
        self._taken.add(name)
        try:
            with open_lines(path) as lines:
                _check_lines(check, pruned, CopyLines(lines))
        except (CopyBroken, OSError) as exc:
            check.find(Finding(Fault.ARCHIVE, f"{path}: {exc}", pruned.day, 1))
        return True


def _check_lines(check: Verification, pruned: Checkpoint, source: CopyLines) -> None:
    """Check that an archive holds the chain that a checkpoint states, and nothing else."""
    held = [source.checkpoint(found) for found in source.take("checkpoint")]
    rules = take_rules(check, source, pruned.day)
    head = next(source.take("chain", 1), None)
    if head is None:
        raise CopyBroken(f"line {source.number} is not the head of a chain")
    named, anchor, length = parse_chain(head, source.number)
    if named != pruned.day:
        raise CopyBroken(f"it is the archive of {named}")
    check.compare(pruned, anchor, held)
    day = check.archived(pruned, anchor)
    feed_entries(check, day, source, rules, named)
    day.end(length)
    if not source.ends():
        raise CopyBroken(f"line {source.number} is not the end of the archive")
