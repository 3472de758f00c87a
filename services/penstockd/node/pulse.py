"""Finds the supervisor's child that hangs and must be restarted.

Only one child at a time is restarted, and none while all are silent: then the machine is asleep or
overloaded, and a restart would make it worse. While a process starts, the others are not restarted,
unless it has failed to start before: otherwise one that dies at each start would protect another
that hangs for ever.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Seconds without a beat after which a process counts as hanging.
SILENCE = 10.0
#: Seconds without a beat after which a process counts as slow, or between two looks after which we
#: do.
LAG = 3.0
#: Seconds that a process gets from its start to its first beat, if it beat in an earlier run.
START = 60.0
#: How often the supervisor checks, in seconds.
INTERVAL = 1.0


@dataclass(slots=True)
class _Life:
    """One run of a process: its start, its last beat, if any, and whether it has ended. One that is
    not ``spawned`` is expected to start soon."""

    started: float
    beat: float | None = None
    spawned: bool = False
    ended: bool = False


class Pulse:
    """The heartbeats of processes, by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lives: dict[str, _Life] = {}
        self._beaters: set[str] = set()
        # Processes whose last run ended, or hung, before its first beat.
        self._stillborn: set[str] = set()
        self._looked = clock()

    def listen(self, name: str) -> int:
        """Begin a process's run; return the descriptor for its beats, which the caller closes once
        the process is started. Raises OSError."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self.begin(name, spawned=True)
        loop = asyncio.get_running_loop()

        def readable() -> None:
            try:
                beats = os.read(reading, 4096)
            except OSError:
                beats = b""
            if beats:
                self.beat(name)
            else:
                loop.remove_reader(reading)
                os.close(reading)

        loop.add_reader(reading, readable)
        return writing

    def begin(self, name: str, *, spawned: bool = False) -> None:
        """Note that a process of that name starts or, if it is not ``spawned``, is about to."""
        self._lives[name] = _Life(self._clock(), spawned=spawned)

    def end(self, name: str) -> None:
        """Note that a process has ended, or could not be started."""
        life = self._lives.get(name)
        if life is not None and life.spawned:
            life.ended = True
            if life.beat is None:
                self._stillborn.add(name)

    def beat(self, name: str) -> None:
        """Note a beat of a process."""
        self._beaters.add(name)
        self._stillborn.discard(name)
        if (life := self._lives.get(name)) is not None:
            life.beat = self._clock()

    def hanging(self) -> str | None:
        """The process to restart now, if any. Call every INTERVAL."""
        now = self._clock()
        if now - self._looked > LAG:
            # The supervisor itself was delayed, and has not read the beats that arrived meanwhile.
            for life in self._lives.values():
                life.started = now
                life.beat = now if life.beat is not None else None
        self._looked = now
        silent = {name: self._silence(name, now) for name in self._lives if name in self._beaters}
        if not silent or all(seconds > LAG for seconds in silent.values()):
            return None
        if (name := self._never_began(now)) is not None:
            self._stillborn.add(name)
            return name
        if any(self._lives[name].beat is None for name in silent.keys() - self._stillborn):
            return None  # while one starts, no other is restarted
        name = max(silent, key=lambda n: silent[n])
        return name if silent[name] > SILENCE else None

    def _silence(self, name: str, now: float) -> float:
        """Seconds of silence; a process that has just begun gets time, and one that has ended is
        restarted anyway."""
        life = self._lives[name]
        if life.ended:
            return 0.0
        if life.beat is None:
            return max(0.0, now - life.started - START)
        return now - life.beat

    def _never_began(self, now: float) -> str | None:
        """A process that hangs at its start, if any."""
        for name, life in self._lives.items():
            late = life.beat is None and not life.ended and now - life.started > START
            if name in self._beaters and late:
                return name
        return None
