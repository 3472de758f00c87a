"""Keys that follow one another: what each is trusted for."""

from __future__ import annotations

import datetime as dt
import os

import pytest

from penstockd.audit.checkpoint import Checkpoint, CheckpointKey
from penstockd.audit.succession import trust_keys
from penstockd.audit.verify import Fault, Verification

NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
OLD, NEW, EVIL = (CheckpointKey(os.urandom(32)) for _ in range(3))
LATE = 2**60


def sign(key: CheckpointKey, last: Checkpoint | None) -> Checkpoint:
    return key.sign(last, NOW, NOW.date(), 0, b"h")


def handed_over() -> list[Checkpoint]:
    """A checkpoint of the old key, the one that hands over, and one of the new key."""
    first = sign(OLD, None)
    rotation = OLD.sign_rotation(first, NOW, NEW.public)
    return [first, rotation, sign(NEW, rotation)]


@pytest.mark.parametrize("key", [OLD, NEW])
def test_who_trusts_either_key_trusts_both_and_each_for_its_time(key: CheckpointKey) -> None:
    trusted = trust_keys([key.public], handed_over(), [])
    assert trusted[OLD.public] == 2 and trusted[NEW.public] > LATE
    assert not Verification(handed_over(), [key.public]).findings
    # Negative control: the key of a stranger proves nothing.
    assert set(trust_keys([EVIL.public], handed_over(), [])) == {EVIL.public}


def test_a_key_that_has_handed_over_signs_nothing_later() -> None:
    row = handed_over()
    late = [*row, sign(OLD, row[-1])]
    for keys in ([OLD.public], [NEW.public], [OLD.public, NEW.public]):
        (finding,) = Verification(late, keys).findings
        assert (finding.fault, finding.checkpoint) == (Fault.WRONG_KEY, 4)


def test_nobody_makes_himself_the_successor() -> None:
    first = sign(OLD, None)
    forged = EVIL.sign_rotation(first, NOW, EVIL.public)
    assert set(trust_keys([OLD.public], [first, forged, sign(EVIL, forged)], [])) == {OLD.public}


def test_an_earlier_key_is_trusted_only_if_its_successor_names_the_hand_over() -> None:
    first, rotation, _ = handed_over()
    assert set(trust_keys([NEW.public], [first, rotation], [])) == {NEW.public}
    # Whoever has only the old secret cannot put another past before the new key.
    other = OLD.sign_rotation(sign(OLD, None), NOW + dt.timedelta(1), NEW.public)
    assert set(trust_keys([NEW.public], [other], [])) == {NEW.public}


def test_a_hand_over_that_a_restore_has_undone_ends_nothing() -> None:
    first, rotation, third = handed_over()
    trusted = trust_keys([OLD.public], [first], [rotation, third])
    assert trusted[OLD.public] > LATE and trusted[NEW.public] > LATE


def test_a_key_that_hands_over_to_itself_stays_trusted() -> None:
    first = sign(OLD, None)
    itself = OLD.sign_rotation(first, NOW, OLD.public)
    row = [first, itself, sign(OLD, itself)]
    assert trust_keys([OLD.public], row, [])[OLD.public] > LATE
    assert not Verification(row, [OLD.public]).findings
