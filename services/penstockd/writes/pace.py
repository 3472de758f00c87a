"""Limits how slowly an upload may arrive."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

from penstockd import budget
from penstockd.errors import ClientStalled

#: The fewest bytes a second that an upload must reach in the long run.
LEAST_RATE = 1024
#: The number of times that the hub checks a silent client before it gives up. A late check counts
#: as one in time: while the hub is busy, the client is not to blame.
_LOOKS = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SlowTerms:
    """How long a client may send more slowly than ``rate``, in bytes a second: for ``seconds``, if
    it sends nothing, and the longer, the closer it comes to the rate."""

    seconds: float
    rate: int


class Pace:
    """Ends an upload whose client sends too slowly.

    The client may be silent for ``stall_seconds``. The bytes that it sends restore the time that
    they take at ``rate`` bytes a second, but never to more than ``stall_seconds``: a fast part is
    no credit for a long silence. So in all the hub waits for no more than ``stall_seconds`` and the
    time that the upload takes at that rate.

    With a ``SlowTerms`` the hub also waits, in all, for no more than its ``seconds`` and the time
    that the upload takes at its ``rate``: a client may be slower than that only for so long.
    """

    def __init__(
        self, stall_seconds: float, rate: int = LEAST_RATE, slow: SlowTerms | None = None
    ) -> None:
        self._left = self._stall = stall_seconds
        self._rate, self._slow = rate, slow
        self._slow_left = math.inf if slow is None else slow.seconds

    async def next(self, upload: AsyncIterator[T], received: int) -> T | None:
        """The next piece; None after the last. Raises ClientStalled.

        ``received`` is the number of bytes that arrived since the last call.
        """
        self._left = min(self._left + received / self._rate, self._stall)
        if self._slow is not None:
            self._slow_left += received / self._slow.rate
        step, clock = self._stall / _LOOKS, asyncio.get_running_loop().time

        async def pull() -> T | None:
            return await anext(upload, None)

        coming = budget.create_task(pull())
        try:
            while not coming.done() and min(self._left, self._slow_left) > 0:
                began = clock()
                await asyncio.wait({coming}, timeout=min(step, self._left, self._slow_left))
                waited = min(step, clock() - began)
                self._left -= waited
                self._slow_left -= waited
            if coming.done():
                return coming.result()
        finally:
            if not coming.done():
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
        if self._slow is not None and self._left > 0:
            raise ClientStalled(
                f"the client sent less than {self._slow.rate} bytes/s for too long while its "
                "rows were locked; send the file faster or in parts"
            )
        raise ClientStalled(f"the client sent less than {self._rate} bytes/s for {self._stall:g} s")
