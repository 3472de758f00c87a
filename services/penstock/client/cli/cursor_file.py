"""The position of ``watch``, in a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from penstock.client.cli.failures import Failure

if TYPE_CHECKING:
    from penstock.client.change import Position


class CursorFile:
    """The position of a feed, and the output that leads up to it.

    The file is replaced as a whole, after the output was flushed. With an output file, it also
    holds that file's length: at the start, output beyond this length is cut off, because it was
    printed but not remembered and comes again. Without ``path`` nothing is remembered. Raises
    Failure if the file is damaged, or the output shorter than it should be; OSError.
    """

    def __init__(self, path: Path | None, output: Path | None) -> None:
        self.path = path
        #: Where to continue; None: the feed has not begun.
        self.position: Position | None = None
        self._file = output
        self.output: Any = sys.stdout
        self._length: int | None = None
        if path is not None:
            self._load(path)

    def remember(self, position: Position) -> None:
        """Stores the position, after everything up to it was printed and flushed."""
        if self.path is None:
            return
        said = position.to_json()
        if self._file is not None:
            os.fsync(self.output.fileno())
            said["output"] = self.output.tell()
        part = self.path.with_name(self.path.name + ".part")
        with open(part, "w", encoding="utf-8") as file:
            json.dump(said, file)
            file.flush()
            if self._file is not None:
                os.fsync(file.fileno())
        os.replace(part, self.path)

    def _load(self, path: Path) -> None:
        from penstock.client.change import Position

        try:
            found = json.loads(path.read_text("utf-8"))
            self.position = Position.from_json(found)
            self._length = found.get("output")
        except FileNotFoundError:
            self._length = None
        except ValueError as error:
            raise Failure(f"{path} is damaged: {error}") from None

    def __enter__(self) -> Self:
        if self._file is not None:
            self.output = open(self._file, "a+", encoding="utf-8")  # closed below
            size = self.output.seek(0, os.SEEK_END)
            if self._length is not None and size < self._length:
                self.output.close()
                raise Failure(f"{self._file} is shorter than {self.path} says")
            if self._length is not None:
                self.output.truncate(self._length)
                self.output.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self.output.close()
