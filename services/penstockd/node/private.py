"""Files of the data folder are for their owner alone: logs and checkpoints tell who did what."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: What is taken from the mode of whatever is made: others may pass through folders at most, as
#: PostgreSQL's own user must where we are root.
_MASK = 0o066
#: The cluster has an owner and modes of its own.
_APART = "postgres"


def keep_files_private(data: Path) -> int:
    """Let this process, and all that it starts, make files for their owner alone.

    What an earlier version made for others to read is closed to them. To be
    called before the first file is made. Returns the mask that was in force. Raises OSError.
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
