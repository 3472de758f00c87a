"""Limits how slowly an upload may come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from penstockd.errors import ClientStalled

#: Fewest bytes a second that an upload must reach in the long run.
LEAST_RATE = 1024

T = TypeVar("T")


class Pace:
    """Ends an upload whose client sends too slowly.

    The client may make the hub wait ``stall_seconds`` in all, and besides as long as what it has
    sent takes at ``rate`` bytes a second.
    """

    def __init__(self, stall_seconds: float, rate: int = LEAST_RATE) -> None:
        self._left = self._stall = stall_seconds
        self._rate = rate

    async def next(self, upload: AsyncIterator[T], received: int) -> T | None:
        """The next piece; None after the last. Raises ClientStalled.

        ``received`` is the number of bytes that came since the last call.
        """
        self._left += received / self._rate
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._left):
                return await anext(upload, None)
        except TimeoutError:
            raise ClientStalled(
                f"the client sent less than {self._rate} bytes/s for {self._stall:g} s"
            ) from None
        finally:
            self._left -= clock() - began
