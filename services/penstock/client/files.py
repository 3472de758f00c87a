"""Local files: formats by suffix, frames of an upload, downloads that appear whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

#: What an import reads: a path, a binary file, the bytes themselves, or chunks of them.
Source = str | os.PathLike[str] | IO[bytes] | bytes | Iterable[bytes]

CONTENT_TYPES = {
    "CSV": "text/csv",
    "JSON": "application/json",
    "NDJSON": "application/x-ndjson",
    "XML": "application/xml",
    "PARQUET": "application/vnd.apache.parquet",
    "ARROW": "application/vnd.apache.arrow.stream",
    "XLSX": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_SUFFIXES = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".json": "JSON",
    ".ndjson": "NDJSON",
    ".jsonl": "NDJSON",
    ".xml": "XML",
    ".parquet": "PARQUET",
    ".arrow": "ARROW",
    ".arrows": "ARROW",
    ".xlsx": "XLSX",
}
_COMPRESSIONS = {".gz": "GZIP", ".zst": "ZSTD"}
#: Bytes in one message of an upload; larger ones are no faster, and Envoy takes 1 MiB at most.
FRAME = 256 << 10


def format_of(source: Source) -> str:
    """The format for a path's suffix, such as "customers.csv" or "customers.csv.gz".

    Raises ValueError if the suffix names no format.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        suffix = (Path(path.stem) if compression_of(path) else path).suffix.lower()
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        raise ValueError(f"the name '{os.fspath(source)}' does not tell the format; say which")
    raise ValueError("say which format it is")


def compression_of(path: str | os.PathLike[str]) -> str:
    """The compression for a path's last suffix: GZIP, ZSTD or ""."""
    return _COMPRESSIONS.get(Path(path).suffix.lower(), "")


def read_frames(source: Source) -> Iterator[bytes]:
    """The bytes of the source in frames of at most FRAME bytes.

    A file given as a path is opened when the first frame is read. Raises OSError.
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            yield from _read_file(file)
    elif isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source)
        yield from (bytes(view[at : at + FRAME]) for at in range(0, len(view), FRAME))
    elif hasattr(source, "read"):
        yield from _read_file(source)
    else:
        yield from _regroup_chunks(source)


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces ``path`` when the block ends without an error.

    Until then it is ``path`` + ".part", and stays there after an error. A target that is not a
    plain file, such as a pipe or /dev/null, is written to directly. Raises OSError.
    """
    path = path.resolve()  # replaces the target of a link, not the link
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def is_plain(file: IO[bytes]) -> bool:
    """Whether it is a file on a disk, which can be emptied, rather than a pipe or device."""
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _read_file(file: Any) -> Iterator[bytes]:
    while frame := file.read(FRAME):
        yield frame


def _regroup_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= FRAME:
            yield bytes(held[:FRAME])
            del held[:FRAME]
    if held:
        yield bytes(held)
