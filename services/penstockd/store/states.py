"""States of the data to which a caller returns in later calls, through any process.

The process that took a state names it. Every process that gets a call for it joins it once and then
also holds it, so it lives as long as any of them gets calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from penstockd.shares import Payer, Shares, ShareTerms
from penstockd.store.cursor import Cursor
from penstockd.store.snapshots import Held, SnapshotGone, Snapshots

#: The most states that a process holds for one caller; the least recently used is released first.
PER_OWNER = 2
#: The most states in use at one time, each with a connection of its own, at most half of them by
#: one caller; and how long the next call waits, in seconds.
MOST_IN_USE, PATIENCE = 8, 10.0


@dataclass(frozen=True, slots=True)
class StateName:
    """``origin`` is the name given by the first holder, ``name`` that by the latest. ``taken`` is
    the time when the state was taken, in seconds."""

    origin: str
    name: str
    cursor: Cursor
    taken: float


@dataclass(eq=False, slots=True)
class _KeptState:
    owner: str
    held: Held
    users: int = 0


class States:
    """The states that one process holds for callers, each for ``Snapshots.seconds`` after a use."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._states: dict[str, _KeptState] = {}  # by origin, most recently used last
        self._room = Shares(MOST_IN_USE, ShareTerms(1, seconds=PATIENCE), what="states of the data")

    @asynccontextmanager
    async def use(
        self, owner: str, name: StateName | None
    ) -> AsyncIterator[tuple[Held, StateName]]:
        """Hold the named state, or the current one, during the block, and keep it afterwards.

        Raises SnapshotGone if nobody holds it any more, StateGone if it ends during the block,
        ShareExhausted and DatabaseUnavailable.
        """
        payer = Payer(owner)
        await self._room.take(payer)
        try:
            state, named = await self._find_state(owner, name)
            try:
                async with state.held.in_time():
                    yield state.held, named
            finally:
                state.users -= 1
                if not state.users:
                    self._snapshots.keep(state.held, lasting=False)
        finally:
            self._room.give_back(payer)

    async def _find_state(self, owner: str, name: StateName | None) -> tuple[_KeptState, StateName]:
        self._forget_lost()
        if name is None:
            held = await self._snapshots.take()
            origin = held.name
        else:
            origin = name.origin
            known = self._states.get(origin)
            if known is not None and known.held.cursor != name.cursor:
                # After a restart of the database the name may have been given out again.
                raise SnapshotGone
            if known is not None:
                held = known.held
            else:
                held = await self._snapshots.join(name.name, name.cursor, name.taken)
        state = self._entered(owner, origin, held)
        return state, StateName(origin, state.held.name, state.held.cursor, state.held.taken)

    def _entered(self, owner: str, origin: str, held: Held) -> _KeptState:
        state = self._states.pop(origin, None)
        if state is None:
            state = _KeptState(owner, held)
        elif state.held is not held:  # another call has joined it at the same time
            self._snapshots.release(held)
        self._states[origin] = state
        state.held.by_receipt, state.held.deadline = False, None
        state.users += 1
        own = [(o, s) for o, s in self._states.items() if s.owner == owner]
        for known, other in own[:-PER_OWNER]:
            if not other.users:
                del self._states[known]
                self._snapshots.release(other.held)
        return state

    def _forget_lost(self) -> None:
        lost = [o for o, s in self._states.items() if not self._snapshots.holds(s.held)]
        for origin in lost:
            del self._states[origin]
