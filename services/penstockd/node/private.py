"""Only their owner can read files of the data folder: logs and checkpoints show who did what."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: Bits removed from the mode of every new file and folder. Others can at most pass through folders,
#: as PostgreSQL's own user must when we are root.
_MASK = 0o066
#: The folder of PostgreSQL's cluster, which has its own owner and modes.
_APART = "postgres"


def keep_files_private(data: Path) -> int:
    """Let this process and its children create files that only their owner can read.

    Also takes others' access from existing files, which an earlier version may have granted. Call
    it before the first file is made. Returns the earlier mask. Raises OSError.
    """
    before = os.umask(_MASK)
    for folder, names, files in os.walk(data):
        if Path(folder) == data and _APART in names:
            names.remove(_APART)
        for path in (Path(folder, name) for name in (*names, *files)):
            mode = path.lstat().st_mode
            if stat.S_IMODE(mode) & _MASK and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                path.chmod(stat.S_IMODE(mode) & ~_MASK)
    return before
