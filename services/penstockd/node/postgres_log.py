"""The log of the embedded PostgreSQL, as lines of JSON in a file of bounded size.

The server writes text to a file of its own, beside the logs, so that no line waits for this process
or is lost with it. This process moves the text to the log as it grows; the next start moves what a
killed process has left.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import structlog

from penstockd.node.process import set_aside

#: Seconds between two reads of the text.
INTERVAL = 0.2
#: Once this many bytes have been moved, the file of the text is emptied.
EMPTY_BYTES = 1024 * 1024
#: Bytes that are read at a time.
_STEP = 1024 * 1024
#: The most bytes of text that explain a failure.
_TAIL_BYTES = 2000

#: A line as ``log_line_prefix = '%m [%p] '`` makes it, in UTC.
_LINE = re.compile(
    r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d\.\d{3}) UTC \[(\d+)\] ([A-Z]+[0-9]?):  (.*)", re.DOTALL
)
#: Labels of lines that belong to the message before them.
_PARTS = ("DETAIL", "HINT", "STATEMENT", "CONTEXT", "QUERY", "LOCATION", "BACKTRACE")

_log = structlog.get_logger(__name__)


def parse_messages(text: str) -> Iterator[dict[str, Any]]:
    """The messages in whole lines of text. Detail, hint and statement belong to their message.

    A line of unknown form, such as one of a library, becomes a warning.
    """
    message: dict[str, Any] | None = None
    part = "event"
    for line in text.split("\n"):
        found = _LINE.fullmatch(line)
        if found is None:
            if message is not None and line.startswith("\t"):
                message[part] += f"\n{line[1:]}"
                continue
            if not line.strip():
                continue
        if found is not None and message is not None and _is_part(found, message):
            part = found[4].lower()
            message[part] = found[5]
            continue
        if message is not None:
            yield message
        part, message = "event", _make_message(line, found)
    if message is not None:
        yield message


def _is_part(found: re.Match[str], message: dict[str, Any]) -> bool:
    return found[4] in _PARTS and message.get("pid") == int(found[3])


def _make_message(line: str, found: re.Match[str] | None) -> dict[str, Any]:
    if found is None:
        return {"event": line, "level": "warning"}
    return {
        "event": found[5],
        "level": found[4].lower(),
        "timestamp": f"{found[1]}T{found[2]}Z",
        "pid": int(found[3]),
    }


def _to_json(data: bytes) -> bytes:
    messages = parse_messages(data.decode(errors="replace"))
    return b"".join(orjson.dumps(message) + b"\n" for message in messages)


class PostgresLog:
    """The log ``path``, and the file ``text`` that the server writes."""

    def __init__(self, path: Path, text: Path) -> None:
        self.path, self.text = path, text
        self._moved = 0
        self._tail = b""
        self._told = False
        self._task: asyncio.Task[None] | None = None

    @property
    def tail(self) -> str:
        """The end of what the server has written since its start, for people."""
        try:
            with self.text.open("rb") as file:
                file.seek(self._moved)
                rest = file.read()
        except FileNotFoundError:
            rest = b""
        return (self._tail + rest)[-_TAIL_BYTES:].decode(errors="replace").strip()

    def begin(self) -> None:
        """Move what an earlier server left, before a new one starts. Convert a log that an earlier
        version of the hub left as text."""
        for path in (self.path, self.path.with_name(self.path.name + ".1")):
            self._convert(path)
        self._moved = 0
        self._move(last=True)
        try:
            os.truncate(self.text, 0)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._tell(error)
        self._moved, self._tail = 0, b""

    def follow(self) -> None:
        """Move lines as they come, until ``end``."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name="postgres-log")

    async def end(self) -> None:
        """Move the last lines, after the server has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._move(last=True)

    async def _follow(self) -> None:
        while True:
            self._move()
            await asyncio.sleep(INTERVAL)

    def _move(self, *, last: bool = False) -> None:
        """Move whole lines; with ``last``, the rest counts as a line."""
        try:
            while data := self._read(last=last):
                self._append(data)
                self._moved += len(data)
                self._tail = (self._tail + data)[-_TAIL_BYTES:]
            if self._moved >= EMPTY_BYTES and self.text.stat().st_size == self._moved:
                os.truncate(self.text, 0)
                self._moved = 0
            self._told = False
        except FileNotFoundError:
            pass
        except OSError as error:  # such as a full disk: the text stays, and is moved later
            self._tell(error)

    def _read(self, *, last: bool) -> bytes:
        """The next whole lines, at most _STEP bytes of them; b"" if there are none. With ``last``,
        also a line that has no end yet."""
        with self.text.open("rb") as file:
            file.seek(self._moved)
            data = file.read(_STEP)
        whole = data.rfind(b"\n") + 1
        # A line that is longer than a step is cut.
        return data if last or (not whole and len(data) == _STEP) else data[:whole]

    def _append(self, data: bytes) -> None:
        set_aside(self.path)
        with self.path.open("ab", buffering=0) as file:
            before, rest = file.seek(0, os.SEEK_END), memoryview(_to_json(data))
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                # The text is moved again later; a part of it would then be there twice.
                file.truncate(before)
                raise

    def _convert(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                if file.read(1) in (b"{", b""):
                    return
                file.seek(0)
                data = file.read()
            fresh = path.with_name(f"{path.name}.new")
            fresh.write_bytes(_to_json(data))
            fresh.replace(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            _log.warning("postgres_log_not_written", path=str(self.path), error=str(error))
        self._told = True
