"""Where backups are kept: a folder, or a part of a bucket of S3."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from penstockd.node.errors import NodeError

#: Bytes that are copied at a time.
_STEP = 1024 * 1024
#: Bytes that are read ahead: S3 answers a request for each.
_AHEAD = 4 * _STEP
#: Ends the name of a file in a folder while it is being written.
_PART = ".part"


class Readable(Protocol):
    """Provides the content of a file."""

    def read(self, size: int = -1, /) -> bytes:
        """At most this many of the next bytes; none at the end."""


class VaultUnusable(NodeError):
    """The place of the backups cannot be reached, read or written; the message gives the reason."""


class Vault:
    """Named files at a path, or at ``s3://bucket/prefix``.

    S3 takes its credentials and region from the environment (``AWS_ACCESS_KEY_ID`` …); the URL may
    contain ``?endpoint_override=host:port&scheme=http``. A file appears complete or not at all.
    Methods raise VaultUnusable.
    """

    def __init__(self, where: str) -> None:
        parts = urlsplit(where)
        remote = "://" in where
        if remote and (parts.scheme != "s3" or not parts.hostname):
            raise VaultUnusable(f"{where}: backups are kept in a folder or at s3://bucket/prefix")
        if remote:
            # The rest of the URL may contain credentials.
            self.where = f"s3://{parts.hostname}{parts.path}"
            with _explain_errors(self.where, secret=where):
                files, root = fs.FileSystem.from_uri(where)
        else:
            self.where = root = str(Path(where).absolute())
            files = fs.LocalFileSystem()
        #: Names the place, whatever else its URL contains.
        self.identity = f"{files.type_name}:{root}"
        self._files, self._root = fs.SubTreeFileSystem(root, files), root
        self._local = not remote

    def put(self, name: str, source: Readable) -> int:
        """Write a file from a stream; returns its size in bytes."""
        with _explain_errors(self.where):
            if self._local:
                return self._put_locally(Path(self._root, name), source)
            sink = self._files.open_output_stream(name, compression=None)
            try:
                with sink:
                    shutil.copyfileobj(source, sink, _STEP)
                    return int(sink.tell())
            except BaseException:
                # An upload cannot be aborted: when it is closed, the bytes so far appear as a file.
                with contextlib.suppress(OSError, pa.ArrowException):
                    self._files.delete_file(name)
                raise

    def _put_locally(self, path: Path, source: Readable) -> int:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f"{path.name}{_PART}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                shutil.copyfileobj(source, sink, _STEP)
                size = sink.tell()
                sink.flush()
                os.fsync(sink.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size

    def names(self, folder: str, *, parts: bool = False) -> list[str]:
        """The names of all files below a folder, sorted; with ``parts`` also unfinished ones."""
        found = (f.path for f in self._list_files(folder))
        return sorted(name for name in found if parts or not name.endswith(_PART))

    def _list_files(self, folder: str) -> list[Any]:
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        with _explain_errors(self.where):
            return [found for found in self._files.get_file_info(selector) if found.is_file]

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        with _explain_errors(self.where):
            return bool(self._files.get_file_info(name).is_file)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """A file to read from its beginning to its end."""
        with (
            _explain_errors(self.where),
            self._files.open_input_stream(name, compression=None, buffer_size=_AHEAD) as stream,
        ):
            yield stream

    def read(self, name: str) -> bytes:
        """The content of a small file."""
        with self.opened(name) as stream:
            return bytes(stream.read())

    def delete(self, name: str) -> None:
        """Remove a file."""
        with _explain_errors(self.where):
            self._files.delete_file(name)

    def delete_folder(self, folder: str) -> None:
        """Remove a folder with all files below it, also unfinished ones."""
        for name in self.names(folder, parts=True):
            self.delete(name)
        path = Path(self._root, folder)
        if self._local and path.exists():
            with _explain_errors(self.where):
                shutil.rmtree(path)

    def delete_parts(self, folder: str, before: datetime) -> None:
        """Remove the files below a folder that killed processes left unfinished before a time."""
        for found in self._list_files(folder):
            if found.path.endswith(_PART) and found.mtime < before:
                self.delete(found.path)


@contextlib.contextmanager
def _explain_errors(where: str, *, secret: str = "") -> Iterator[None]:
    """Explain errors of storage, without the ``secret``."""
    try:
        yield
    except (OSError, pa.ArrowException) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        if secret:
            reason = reason.replace(secret, where)
        raise VaultUnusable(f"{where}: {reason}") from exc
