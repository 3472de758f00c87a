"""The output of a process that reads a file for the hub: frames of rows of cells.

A frame is a byte for its kind, the size (big-endian, 4 bytes) and the content. HEADER names the
columns; ROWS and SUSPECT contain rows of cells in the form in which ``split.c`` writes those of
CSV, SUSPECT with control characters among them; the last frame is PROBLEM, a JSON object, or END.

Whatever a hostile file does to the library that reads it (crash, endless work, too much memory)
affects only this process, which is limited in both time and memory. It imports nothing of the hub
except what such processes share.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from penstockd.process_limits import limit_process

HEADER, ROWS, SUSPECT, PROBLEM, END = b"H", b"R", b"S", b"P", b"E"
#: The most bytes of a row, and columns of a file.
ROW_LIMIT, COLUMN_LIMIT = 1 << 20, 10_000
#: The most bytes of a frame, which the hub holds at once.
FRAME_LIMIT = 8 << 20
Frames = Iterator[tuple[bytes, bytes]]


class FileUnreadable(Exception):
    """The file cannot be read; the reason is shown to its sender."""

    def __init__(self, reason: str, row: int | None = None, *, truncated: bool = False) -> None:
        super().__init__(reason)
        self.problem = {"reason": reason, "row": row, "truncated": truncated}


def run_unpacker(
    make_frames: Callable[[dict[str, Any]], Frames], errors: tuple[type[Exception], ...]
) -> None:
    """Write the frames of standard input to standard output, as the first argument requests.

    ``make_frames`` takes the request. ``errors`` are those that a damaged file causes, besides
    FileUnreadable.
    """
    request = json.loads(sys.argv[1])
    limit_process(request["memory"], request["seconds"])
    try:
        for kind, data in make_frames(request):
            _put_frame(kind, data)
    except FileUnreadable as refused:
        problem = refused.problem
    except MemoryError:
        reason = f"needs more than {request['memory'] >> 20} MiB of memory at once"
        problem = FileUnreadable(f"{reason}: write smaller pages or batches").problem
    except errors as error:
        said = (str(error).splitlines() or [""])[0][:200]
        problem = FileUnreadable(f"the file is damaged or not {request['format']}: {said}").problem
    else:
        _put_frame(END, b"")
        return
    _put_frame(PROBLEM, json.dumps(problem).encode())


def _put_frame(kind: bytes, data: Sequence[int] | bytes) -> None:
    sys.stdout.buffer.write(kind + struct.pack(">I", len(data)))
    sys.stdout.buffer.write(bytes(data))
    if kind != ROWS:
        sys.stdout.buffer.flush()
