"""The functions with which tests wait: they tolerate passing states, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import psutil
import pytest

import harness
from harness import eventually, in_force, promptly, read_log, signal_processes


class Refused(grpc.RpcError):
    """A call that a hub refuses with a code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def fails_once(error: BaseException) -> Callable[[], Any]:
    """A check that fails at first, and holds at the second try."""
    errors: Iterator[BaseException] = iter([error])

    def check() -> bool:
        for each in errors:
            raise each
        return True

    return check


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("not yet"),
        ConnectionRefusedError(),
        Refused(grpc.StatusCode.UNAVAILABLE),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.ConnectionDoesNotExistError("connection was closed"),
        psutil.NoSuchProcess(1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_is_asked_again(error: BaseException) -> None:
    assert eventually(fails_once(error))
    with pytest.raises(type(error)):
        eventually(lambda: fails_once(error)(), 0.1)


@pytest.mark.parametrize(
    "error", [Refused(grpc.StatusCode.INTERNAL), ValueError(), asyncpg.UndefinedTableError("")]
)
def test_what_does_not_pass_fails_at_once(error: BaseException) -> None:
    with pytest.raises(type(error)):
        eventually(fails_once(error))


def test_a_promise_in_seconds_is_kept_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "slowness", lambda: 1.0)
    taken = iter([9.0, 6.0, 5.0])
    assert promptly(5.0, lambda: next(taken)) == 5.0
    with pytest.raises(AssertionError, match=r"it took 6\.00, 6\.00, 6\.00 s, not 5\.0 s"):
        promptly(5.0, lambda: 6.0)
    # A slow machine gets more time, and no more than that.
    monkeypatch.setattr(harness, "slowness", lambda: 4.0)
    assert promptly(5.0, lambda: 19.0) == 19.0
    with pytest.raises(AssertionError, match=r"not 5\.0 s"):
        promptly(5.0, lambda: 21.0)


def test_a_change_that_is_not_in_force_in_time_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "slowness", lambda: 1.0)
    with pytest.raises(AssertionError, match="by the old rules"):
        in_force(lambda: False, 0.1)
    answers = iter([False, True, False, *[True] * harness.EVERY_WORKER])
    in_force(lambda: next(answers))
    assert next(answers, None) is None


def test_a_signal_to_a_process_that_has_ended_reaches_the_others() -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
    gone, there = (subprocess.Popen(sleeping) for _ in range(2))
    processes = [psutil.Process(each.pid) for each in (gone, there)]
    gone.kill()
    gone.wait()
    signal_processes(processes, signal.SIGKILL)
    assert there.wait(harness.PATIENCE) == -signal.SIGKILL


def test_only_whole_lines_of_a_log_are_read(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text('{"event": "one"}\nplain\n{"event": "two"}\n{"event": "th')
    assert [entry["event"] for entry in read_log(log)] == ["one", "two"]
    assert [entry["event"] for entry in read_log(log, len('{"event": "one"}\n'))] == ["two"]
