"""Signals that wait until critical work is done."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


class SignalGate:
    """Ctrl-C and SIGTERM end the block at once, but wait while the gate is closed.

    A second signal does not wait. The process exits with 130 or 143.
    """

    def __init__(self) -> None:
        self._closed = False
        self._signal = 0
        self._before: dict[int, Any] = {}

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Delays a signal until the end of the block."""
        self._closed = True
        try:
            yield
        finally:
            self._closed = False
            self.check()

    def check(self) -> None:
        """End the process if a signal has arrived.

        Loops need it: if Python runs the handler inside a destructor or an extension's callback, an
        exception that the handler raises is lost.
        """
        if self._signal:
            sys.exit(128 + self._signal)

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, with a check before each."""
        for item in items:
            self.check()
            yield item

    def _take(self, number: int, frame: FrameType | None) -> None:
        waits = self._closed and not self._signal
        self._signal = number
        if not waits:
            sys.exit(128 + number)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
