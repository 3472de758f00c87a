"""Who works next on the event loop: calls that come in go before what is long under way.

A worker takes in one call a round of its event loop. If every round also did a millisecond of some
consumer's large lists, a thousand calls that came in together would be taken in for seconds, and
another consumer's call behind them.
"""

from __future__ import annotations

import asyncio

#: How long work waits for calls to be taken in, at a time and at the most, in seconds: however many
#: there are, the work goes on.
_REST, _MOST_RESTS = 0.001, 50


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._begun = self._known = 0

    def begin(self) -> None:
        """A call was taken in."""
        self._begun += 1

    async def give(self) -> None:
        """Let others have their turn: for work that takes longer than a millisecond or two."""
        await asyncio.sleep(0)
        if self._begun == self._known:
            return
        for _ in range(_MOST_RESTS):
            self._known = self._begun
            await asyncio.sleep(_REST)
            if self._begun == self._known:
                return
