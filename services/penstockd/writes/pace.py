"""How slowly an upload may come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from penstockd.errors import ClientStalled

#: The fewest bytes a second that an upload is waited for, after a while.
LEAST_RATE = 1024

T = TypeVar("T")


class Pace:
    """Ends an upload whose client sends too little: a transaction waits for what comes next.

    The client may make the hub wait ``stall_seconds``, and besides as long as what it has sent
    takes at LEAST_RATE, no more in all.
    """

    def __init__(self, stall_seconds: float) -> None:
        self._left = self._stall = stall_seconds

    async def next(self, upload: AsyncIterator[T], received: int) -> T | None:
        """The next piece, None behind the last; ``received`` bytes came before, since the last
        call. Raises ClientStalled."""
        self._left += received / LEAST_RATE
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._left):
                return await anext(upload, None)
        except TimeoutError:
            raise ClientStalled(
                f"the client sent less than {LEAST_RATE} bytes/s for {self._stall:g} s"
            ) from None
        finally:
            self._left -= clock() - began
