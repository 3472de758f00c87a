"""Where the Unix sockets of a data folder live: a path short enough for the kernel."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from penstockd.node.errors import FolderUnusable

# Linux allows 107 bytes, macOS 103; the longest name in the folder is "/pg/.s.PGSQL.5432.lock".
_LONGEST = 103 - len("/pg/.s.PGSQL.5432.lock")


def sockets_folder(data: Path) -> Path:
    """The folder for the sockets of ``data``, made if missing; the same for every call.

    It is ``data/run`` if that is short enough, else a folder in the system's temporary folder
    named after the user and the data folder. Raises FolderUnusable unless it belongs to us and
    nobody else can write in it. (When we are root, others can pass through it, since PostgreSQL
    then runs as another user; every socket has its own permissions.)
    """
    folder = data.absolute() / "run"
    if len(os.fsencode(folder)) > _LONGEST:
        digest = hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"penstock-{os.geteuid()}-{digest}"
        if len(os.fsencode(folder)) > _LONGEST:
            folder = Path("/tmp") / folder.name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        status = folder.lstat()
    except OSError as error:
        raise FolderUnusable(f"{error.filename}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise FolderUnusable(f"{folder} must be a folder of ours that nobody else can write in")
    return folder
