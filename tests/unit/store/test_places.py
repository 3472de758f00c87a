"""Places in the log as readers get them: sealed cursors, and sequences with gaps."""

from __future__ import annotations

import ast
import base64
import hashlib
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstockd
from chance import SEED
from penstockd.auth.secret import RootSecret
from penstockd.errors import CursorInvalid
from penstockd.keyring import KeyRing
from penstockd.store.cursor import Ahead, Cursor, scope_of
from penstockd.store.places import CursorKey, Places
from penstockd.store.sequences import Sequences

HOURS = 24
CURSOR = Cursor("0123456789ab", 4711, mark=b"01234567")
#: Numbers of every size, and those beside the limits of chunks and blocks.
NUMBERS = st.integers(0, 2**50 - 2) | st.sampled_from(
    [2**n + d for n in range(50) for d in (-1, 0)]
)


class Clock:
    """Shows the time to which it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def places(clock: Clock, *keys: CursorKey, secret: str = "a secret") -> Places:
    found = Places(KeyRing.of(RootSecret(secret)), HOURS, clock)
    found.use(keys or [CursorKey(1, 0.0, 0)])
    return found


# --- seals ------------------------------------------------------------------------------------


def test_a_cursor_is_the_same_text_in_every_process() -> None:
    ours, theirs = places(Clock()), places(Clock())
    assert ours.seal(CURSOR) == theirs.seal(CURSOR)
    assert theirs.open(ours.seal(CURSOR)) == CURSOR


def test_a_place_in_a_snapshot_is_for_streams_alone() -> None:
    ours = places(Clock())
    within = replace(CURSOR, last=("customers", "c1"), scope=scope_of(["customers"]))
    text = ours.seal(within)
    assert ours.open_start(text) == within
    with pytest.raises(CursorInvalid, match="only a stream"):
        ours.open(text)
    # Nobody was ever given one that is not sealed.
    for opened in (ours.open, ours.open_start):
        with pytest.raises(CursorInvalid, match="earlier version"):
            opened(within.stored)


def test_what_differs_in_number_alone_shares_no_part() -> None:
    sealed = places(Clock())
    texts = [sealed.seal(Cursor(CURSOR.epoch, n, mark=CURSOR.mark)) for n in range(100, 400)]
    assert len({len(text) for text in texts}) == 1
    bodies = [base64.urlsafe_b64decode(text + "==")[2:] for text in texts]
    # Negative control: in the store's own form most of the text is the same.
    plain = [Cursor(CURSOR.epoch, n, mark=CURSOR.mark).stored for n in range(100, 400)]
    assert len({body[:8] for body in bodies}) == 300 and len({text[4:20] for text in plain}) < 10


@pytest.mark.parametrize("ahead", [0, 1, 3, 10, 30, 100])
def test_the_length_tells_little(ahead: int) -> None:
    marks = tuple(Ahead(10**9 + i * 1000, bytes(8)) for i in range(ahead))
    sealed = places(Clock())
    cursor = Cursor(CURSOR.epoch, 4711, marks, ("customers", "k" * 20), CURSOR.mark)
    text = sealed.seal(cursor)
    assert len(base64.urlsafe_b64decode(text + "==")) - 18 in (64, 256, 1024, 2048)
    assert sealed.open(text) == cursor


@pytest.mark.parametrize("number", [0, 127, 128, 2**40, 2**63 - 1])
def test_the_length_does_not_tell_the_number(number: int) -> None:
    sealed = places(Clock())
    assert len(sealed.seal(Cursor(CURSOR.epoch, number, mark=CURSOR.mark))) == len(
        sealed.seal(CURSOR)
    )


@given(st.data())
def test_a_damaged_text_is_refused(data: st.DataObject) -> None:
    sealed = places(Clock())
    text = sealed.seal(CURSOR)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcXYZ019-_ é").filter(lambda c: c != text[place]))
    for damaged in (text[:place] + other + text[place + 1 :], text[:place], text + other, "", "BQ"):
        with pytest.raises(CursorInvalid):
            sealed.open(damaged)


def test_another_hub_opens_nothing() -> None:
    with pytest.raises(CursorInvalid):
        places(Clock(), secret="another").open(places(Clock()).seal(CURSOR))


def test_a_lease_is_no_cursor() -> None:
    sealed = places(Clock())
    named = sealed.seal_lease("lineage-1-4711-token")
    assert sealed.open_lease(named) == "lineage-1-4711-token"
    with pytest.raises(CursorInvalid):
        sealed.open(named)
    with pytest.raises(CursorInvalid):
        sealed.open_lease(sealed.seal(CURSOR))


def test_a_cursor_goes_on_after_a_rotation_as_long_as_the_log_is_kept() -> None:
    clock = Clock()
    sealed = places(clock)
    old = sealed.seal(CURSOR)
    sealed.use([CursorKey(1, 0.0, 0), CursorKey(2, clock.now + 60, 10)])
    assert sealed.seal(CURSOR) == old  # it does not seal yet
    clock.now += 60
    new = sealed.seal(CURSOR)
    assert new != old and sealed.open(old) == sealed.open(new) == CURSOR
    clock.now += HOURS * 3600 - 1
    assert sealed.open(old) == CURSOR
    clock.now += 1
    with pytest.raises(CursorInvalid) as refused:
        sealed.open(old)
    assert refused.value.metadata == {"reconcile": "REPAIR"}
    assert sealed.open(new) == CURSOR


def test_who_has_not_heard_of_the_next_key_opens_what_it_seals() -> None:
    clock = Clock()
    ahead = places(clock, CursorKey(1, 0.0, 0), CursorKey(2, 0.0, 0))
    assert places(clock).open(ahead.seal(CURSOR)) == CURSOR


def test_key_numbers_go_beyond_a_byte() -> None:
    clock = Clock()
    keys = [CursorKey(n, n * 10.0**7, 0) for n in range(1, 301)]
    clock.now = 300 * 10.0**7
    sealed = places(clock, *keys)
    assert sealed.open(sealed.seal(CURSOR)) == CURSOR


def refusal(sealed: Places, text: str) -> tuple[str, dict[str, str]]:
    with pytest.raises(CursorInvalid) as refused:
        sealed.open(text)
    return refused.value.message, refused.value.metadata


def test_a_cursor_of_before_is_taken_up_to_where_seals_began() -> None:
    clock = Clock()
    sealed = places(clock, CursorKey(1, clock.now, 4711))
    found = sealed.open(CURSOR.stored)
    assert found == CURSOR and found.unsealed
    later = Cursor(CURSOR.epoch, 4712, mark=CURSOR.mark)
    unmarked = Cursor(CURSOR.epoch, 4711)
    told = refusal(sealed, later.stored)
    assert refusal(sealed, unmarked.stored) == told
    # As long as the first key opens.
    sealed.use([CursorKey(1, clock.now, 4711), CursorKey(2, clock.now + 60, 5000)])
    assert sealed.open(CURSOR.stored) == CURSOR
    clock.now += 60 + HOURS * 3600
    assert refusal(sealed, CURSOR.stored) == told


# --- sequences --------------------------------------------------------------------------------


@given(NUMBERS, NUMBERS)
def test_sequences_are_in_the_order_of_numbers(one: int, other: int) -> None:
    sequences = Sequences(b"k" * 32)
    found = sequences.sequence(one), sequences.sequence(other)
    assert (found[0] < found[1]) == (one < other) and (found[0] == found[1]) == (one == other)
    # A consumer with a number from before there were sequences sees only greater ones.
    assert found[0] >= one and found[0] < 2**63
    assert one >= 2**40 or found[0] < 2**53
    assert sequences.sequence(one + 1) > found[0]


@given(NUMBERS)
def test_sequences_depend_on_nothing_but_the_key(number: int) -> None:
    ours, theirs = Sequences(b"k" * 32), Sequences(b"k" * 32)
    ours.sequence(number // 2)
    assert ours.sequence(number) == theirs.sequence(number)
    assert ours.transaction(number) == theirs.transaction(number)
    assert Sequences(b"l" * 32).transaction(number) != ours.transaction(number)
    assert 0 <= ours.transaction(number) < 2**63


def test_the_values_of_a_key_never_change() -> None:
    """Consumers compare sequences that different releases computed."""
    sequences = Sequences(bytes(range(32)))
    known = {
        0: (8408, 512570343722016796),
        1000: (4098590, 4574152984235273986),
        123_456_789: (917599838145, 481633836993324076),
        2**40: (9007199254741227, 4155554551335759235),
        2**50 - 1: (9223372036854775054, 4519833664292099063),
    }
    assert {n: (sequences.sequence(n), sequences.transaction(n)) for n in known} == known
    numbers = [*range(2000), *range(2**33, 2**33 + 600)]
    text = "".join(f"{sequences.sequence(n)} {sequences.transaction(n)}\n" for n in numbers)
    digest = "4c93e97e118fe5fe5e1acebc0cb42fdabcb733d6eefe005d055b6481e1af3d8e"
    assert hashlib.sha256(text.encode()).hexdigest() == digest


@given(st.lists(st.integers(0, 2**11) | NUMBERS))
def test_many_sequences_are_those_of_each(numbers: list[int]) -> None:
    sequences = Sequences(b"k" * 32)
    assert sequences.each(numbers) == [sequences.sequence(n) for n in numbers]


def gaps(seed: str, first: int, count: int) -> Sequence[int]:
    sequences = Sequences(random.Random(seed).randbytes(32))
    found = [sequences.sequence(first + i) for i in range(count + 1)]
    return [b - a for a, b in itertools.pairwise(found)]


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_nobody_counts_by_sequences(count: int) -> None:
    """Known distances between earlier changes do not predict those between later ones."""
    ratios = []
    for i in range(100):
        first = random.Random(f"{SEED}-{i}").randrange(10**6)
        found = gaps(f"{SEED}-{i}-{count}", first, 2 * count)
        ratios.append(abs(math.log2(sum(found[:count]) / sum(found[count:]))))
    # Half of the guesses are off by more than a quarter. With counting numbers, all are exact.
    assert sorted(ratios)[50] > math.log2(1.25), f"seed {SEED}"


def test_transactions_have_no_order() -> None:
    sequences = Sequences(b"k" * 32)
    names = [sequences.transaction(n) for n in range(2000)]
    rising = sum(a < b for a, b in itertools.pairwise(names))
    assert len(set(names)) == 2000 and 800 < rising < 1200


# --- nothing else turns a cursor into a text -------------------------------------------------

#: Modules that write cursors into the store, in the store's own form.
KEEPERS = {"store", "exports/receipts.py", "webhooks/intake.py"}
#: Inside a sealed text.
SEALED = {"digests/state.py"}


def test_nobody_but_the_store_gets_the_form_that_it_keeps() -> None:
    root = Path(penstockd.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if any(isinstance(n, ast.Attribute) and n.attr == "stored" for n in ast.walk(tree)):
            name = path.relative_to(root)
            found.add("store" if name.parts[0] == "store" else name.as_posix())
    assert found == KEEPERS | SEALED
    with pytest.raises(TypeError):
        str(CURSOR)
