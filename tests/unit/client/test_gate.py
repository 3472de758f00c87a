"""A signal ends a command at once, or as soon as its indivisible work is done."""

from __future__ import annotations

import signal
import sys

import pytest

from penstock.client.cli.gate import SignalGate

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@SIGNALS
def test_a_signal_ends_the_block(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, SignalGate():
        signal.raise_signal(number)
        pytest.fail("it went on")
    assert ended.value.code == 128 + number
    assert signal.getsignal(number) is before


@SIGNALS
def test_a_signal_waits_for_the_gate(number: signal.Signals) -> None:
    done = []
    with pytest.raises(SystemExit) as ended, SignalGate() as gate:
        with gate.closed():
            signal.raise_signal(number)
            done.append("written")
        done.append("went on")
    assert (ended.value.code, done) == (128 + number, ["written"])


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(SystemExit), SignalGate() as gate, gate.closed():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it waited")


def test_a_signal_that_is_lost_ends_the_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: lost.append(told.exc_type))
    given = []
    with pytest.raises(SystemExit) as ended, SignalGate() as gate:
        for item in gate.each(["a", "b", "c"]):
            given.append(item)
            if item == "b":
                Dying()
                assert lost == [SystemExit], "the handler has run, and nothing came of it"
    assert (ended.value.code, given) == (130, ["a", "b"])
