"""A hanging process is restarted: one at a time, and none while all processes are slow."""

from __future__ import annotations

import asyncio
import os

import pytest

from harness import PATIENCE
from penstockd import heartbeat
from penstockd.node.pulse import LAG, SILENCE, START, Pulse

NAMES = ("worker-0", "worker-1", "keeper")


class Watch:
    """A supervisor that checks every second, by a clock that the test sets."""

    def __init__(self) -> None:
        self.time = 0.0
        self.pulse = Pulse(lambda: self.time)
        for name in NAMES:
            self.pulse.begin(name)
            self.pulse.beat(name)

    def run(self, seconds: float, *beating: str) -> list[str]:
        """The processes that were restarted meanwhile, as the supervisor does it."""
        ended = []
        for _ in range(int(seconds)):
            self.time += 1.0
            for name in beating:
                self.pulse.beat(name)
            if (name_ := self.pulse.hanging()) is not None:
                ended.append(name_)
                self.pulse.begin(name_)
        return ended


def test_a_process_that_hangs_is_started_again() -> None:
    for name in NAMES:
        watch = Watch()
        others = [n for n in NAMES if n != name]
        assert watch.run(SILENCE, *others) == []
        assert watch.run(2, *others) == [name]


def test_one_at_a_time_and_the_next_when_that_one_beats_again() -> None:
    watch = Watch()
    assert watch.run(SILENCE + 8, "keeper") == ["worker-0"]
    assert watch.run(3, "keeper", "worker-0") == ["worker-1"]


def test_none_while_all_lag() -> None:
    watch = Watch()
    assert watch.run(SILENCE * 3) == []
    # When the machine has caught up, all processes have; one that has not is the one that hangs.
    assert watch.run(LAG, "keeper", "worker-0") == ["worker-1"]


def test_none_because_the_supervisor_itself_was_held_up() -> None:
    watch = Watch()
    watch.time += 3 * SILENCE  # asleep, with unread heartbeats from meanwhile
    assert watch.run(1, "keeper") == []
    assert watch.run(2, *NAMES) == []


def test_a_new_process_is_given_time_but_not_for_ever() -> None:
    watch = Watch()
    watch.pulse.begin("worker-0")
    assert watch.run(START, "worker-1", "keeper") == []
    assert watch.run(2, "worker-1", "keeper") == ["worker-0"]


def test_a_process_that_dies_before_its_first_beat_shields_no_other() -> None:
    watch = Watch()
    ended: list[str] = []
    for _ in range(int(SILENCE) + 5):  # it is started every two seconds, and dies each time
        watch.pulse.begin("worker-0", spawned=True)
        ended += watch.run(1, "keeper")
        watch.pulse.end("worker-0")
        ended += watch.run(1, "keeper")
    assert set(ended) == {"worker-1"}


def test_a_process_that_hangs_at_each_start_shields_no_other() -> None:
    watch = Watch()
    watch.pulse.begin("worker-0", spawned=True)
    assert watch.run(START + 1, "worker-1", "keeper") == ["worker-0"]
    assert "worker-1" in watch.run(SILENCE + 2, "keeper")
    assert "worker-0" in watch.run(START + 2, "worker-1", "keeper")


def test_while_one_is_started_again_no_other_is_even_if_that_takes_a_pause() -> None:
    watch = Watch()
    assert watch.run(SILENCE + 2, "keeper") == ["worker-0"]
    watch.pulse.end("worker-0")  # when it is killed; its restart waits for a pause
    assert watch.run(5, "keeper") == []
    watch.pulse.begin("worker-0", spawned=True)
    assert watch.run(5, "keeper") == []
    assert watch.run(1, "keeper", "worker-0") == ["worker-1"]


def test_a_process_that_never_beat_is_not_judged() -> None:
    watch = Watch()
    watch.pulse.begin("other")
    assert watch.run(10 * START, *NAMES) == []


async def test_beats_come_through_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = asyncio.Event()

    class Heard(Pulse):
        def beat(self, name: str) -> None:
            heard.set()

    descriptor = Heard().listen("worker-0")
    monkeypatch.setenv(heartbeat.VARIABLE, str(descriptor))
    beating = asyncio.create_task(heartbeat.send_heartbeats())
    async with asyncio.timeout(PATIENCE):
        await heard.wait()
    beating.cancel()
    os.close(descriptor)
    await asyncio.sleep(0)
