"""Turns on the event loop: whose step runs next when there is more to do than fits in a round.

An event loop polls for input only between its rounds, and a round runs every step that is ready
when it begins. A thousand streams that wake at one moment would hold it for seconds, and delay new
calls and health checks. So the steps of calls take at most ROUND of a round. Those that become
ready later in it wait in line, one line for each payer, and the next rounds begin with them:

- Payers take turns. A payer's turn ends after SLICE; a step that takes longer is deducted from the
  payer's next turns. So nobody waits for more than one turn of each of the others, however many of
  their steps are waiting.
- The steps of one payer run in the order in which they became ready.

A step is put in line once, whatever the number of rounds that it waits. A task that is cancelled
while it waits keeps its place, since its cleaning up is a step like any other: a thousand calls
that end together do not hold up the loop either.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Hashable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

#: CPU seconds that the steps of calls may take in one round of the event loop.
ROUND = 0.01
#: CPU seconds that one payer's turn may take while others wait, and that a step works before
#: ``let_others_run`` ends it.
SLICE = 0.002
#: CPU seconds of all payers after which it is forgotten how much each of them has used.
PERIOD = 0.1


class Turn(asyncio.Future[None]):
    """The place of one step in line. One task awaits it, and runs as soon as it is its turn."""

    def __init__(self) -> None:
        super().__init__()
        self._resume: Callable[[], Any] | None = None
        self._ended_by: tuple[Any] | None = None

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Set the callback that resumes the task. A future would run it one round after the turn
        has come."""
        run = functools.partial(fn, self)
        self._resume = run if context is None else functools.partial(context.run, run)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task once it is its turn."""
        self._ended_by = (msg,)
        return True

    def take(self) -> None:
        """Resume the task, and return when its step has ended."""
        if self._ended_by is None:
            self.set_result(None)
        else:
            super().cancel(*self._ended_by)
        if self._resume is not None:
            self._resume()


@dataclass(slots=True, eq=False)
class _PayerLine:
    """One payer's waiting steps, and the rest of its turn; negative if it took too much."""

    payer: Hashable
    left: float = SLICE
    turns: deque[Turn] = field(default_factory=deque)


class RecentUse:
    """What each payer has lately used of the event loop, in CPU seconds."""

    def __init__(self) -> None:
        self._total = 0.0
        self._by_payer: dict[Hashable, float] = {}

    def add(self, payer: Hashable, seconds: float) -> None:
        """Count a step that has run. After PERIOD, what was used before counts no more."""
        if self._total >= PERIOD:
            self._total = 0.0
            self._by_payer.clear()
        self._total += seconds
        self._by_payer[payer] = self._by_payer.get(payer, 0.0) + seconds

    def exceeds_share(self, payer: Hashable) -> bool:
        """Whether a payer has used more than its share: as much as each of the others, if they all
        used the same."""
        return self._by_payer.get(payer, 0.0) * len(self._by_payer) > self._total


class Turns:
    """The rounds of an event loop, and the lines of the steps that wait for the next."""

    def __init__(self) -> None:
        self._used = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop that begins the next round
        self._lines: dict[Hashable, _PayerLine] = {}
        self._order: deque[_PayerLine] = deque()

    def is_full(self) -> bool:
        """Whether this round is used up, so that a step must ``wait``."""
        if self._used <= ROUND:
            return False
        if self._loop is not asyncio.get_running_loop():
            self._forget()
        return self._loop is not None

    def wait(self, payer: Hashable) -> Turn:
        """Put a step in its payer's line; the step begins when the turn is awaited."""
        line = self._lines.get(payer)
        if line is None:
            line = self._lines[payer] = _PayerLine(payer)
            self._order.append(line)
        turn = Turn()
        line.turns.append(turn)
        return turn

    def add(self, seconds: float) -> None:
        """Count a step that has run."""
        self._used += seconds
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._begin_round)

    def _begin_round(self) -> None:
        """Run waiting steps, as many as fit in a round."""
        loop, self._used = self._loop, 0.0
        try:
            while self._order and self._used <= ROUND:
                self._serve(self._order[0])
        finally:
            if loop is not None and (self._order or self._used):
                loop.call_soon(self._begin_round)
            else:
                self._loop = None

    def _serve(self, line: _PayerLine) -> None:
        """Run the next step of a payer if its turn has begun, and end its turn if it is used up."""
        if line.left > 0:
            before = self._used
            try:
                line.turns.popleft().take()
            finally:
                # The debt is bounded: a single long step does not shut a payer out.
                line.left = max(line.left - (self._used - before), -ROUND)
        if not line.turns:
            self._order.popleft()
            del self._lines[line.payer]
        elif line.left <= 0:
            line.left += SLICE
            self._order.rotate(-1)

    def _forget(self) -> None:
        """Start again: the loop is another one, and the waiters of the old one are gone."""
        self._used, self._loop = 0.0, None
        self._lines.clear()
        self._order.clear()
