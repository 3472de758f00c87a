"""The SDK's repair with the server's comparison of a caller's ranges, without a hub between
them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.client import digest as sdk
from penstock.hub.v1.digests_pb2 import RangeDigest
from penstockd.digests import differences
from penstockd.digests.differences import Differences, group_ranges
from penstockd.digests.ranges import Enough, Patience, Range
from penstockd.digests.repair import check_ranges
from penstockd.native.abi import Status
from penstockd.native.digest_kernel import Digested
from penstockd.rpc.digests import repair_request

Records = dict[str, str]
KEYS = st.text(st.sampled_from("abz~é\ue000\U0001f600"), min_size=1, max_size=4)
RECORDS = st.dictionaries(KEYS, st.sampled_from("xyz"), max_size=60)


def digest_of(key: str, value: str) -> bytes:
    return hashlib.sha256(f"{key} {value}".encode()).digest()


def digested(records: Sequence[tuple[str, str]]) -> Digested:
    """The rows with digests from the kernel."""
    keys = [key.encode() for key, _ in records]
    ends = array("i")
    for key in keys:
        ends.append(len(key) + (ends[-1] if ends else 0))
    digests = b"".join(digest_of(key, value) for key, value in records)
    return Digested(0, len(keys), digests, memoryview(ends), b"".join(keys), 0, Status.DONE)


@dataclass
class Hub:
    """Answers like Repair…, from its own records; each read is cut into chunks."""

    records: Records
    chunk: int = 7
    calls: list[list[Range]] = field(default_factory=list)
    view: str = "v"

    def __call__(self, ranges: Sequence[RangeDigest], state: str) -> Any:
        request = SimpleNamespace(ranges=ranges, filter="", fields="", state=state)
        asked = repair_request(request).ranges
        check_ranges(asked)
        self.calls.append(list(asked))
        found, next_key = Differences(), ""
        for i, run in enumerate(group_ranges(asked)):
            if i and found.full:
                next_key = run[0].start
                break
            found.begin(run)
            try:
                for rows in self._chunks(run[0].start, run[-1].end):
                    found.take(digested(rows))
            except Enough as enough:
                next_key = enough.next_key
                found.cut(next_key)
                break
            found.end()
        return SimpleNamespace(
            upserts=[(key, self.records[key]) for key in found.upserts],
            deletes=list(found.deletes),
            differing=[
                RangeDigest(
                    start_key=r.start, end_key=r.end, row_count=r.count, sha256=r.sha256.hex()
                )
                for r in found.differing
            ],
            next_key=next_key,
            row_count=found.rows,
            cursor="c",
            state="s",
            view=self.view,
            ByteSize=lambda: 0,
        )

    def _chunks(self, start: str, end: str) -> Iterator[list[tuple[str, str]]]:
        rows = [(k, self.records[k]) for k in sorted(self.records) if start <= k]
        rows = [(k, v) for k, v in rows if not end or k < end]
        for at in range(0, len(rows), self.chunk):
            yield rows[at : at + self.chunk]


@dataclass
class Copy:
    """A store that remembers the calls it gets."""

    records: Records
    told: list[str] = field(default_factory=list)

    def digests(self, start: str, end: str) -> Iterable[tuple[str, bytes]]:
        for key in sorted(self.records):
            if start <= key and (not end or key < end):
                yield key, digest_of(key, self.records[key])

    def apply(self, upserts: Sequence[Any], deletes: Sequence[str]) -> None:
        self.told += [key for key, _ in upserts] + list(deletes)
        self.records |= dict(upserts)
        for key in deletes:
            del self.records[key]


def differing(a: Records, b: Records) -> list[str]:
    return sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so low that a few records reach all of them."""
    monkeypatch.setattr(differences, "LEAF_ROWS", 2)
    monkeypatch.setattr(differences, "LEAVES", 3)
    monkeypatch.setattr(differences, "MOST_UPSERTS", 4)
    monkeypatch.setattr(differences, "MOST_DIFFERING_BYTES", 900)
    monkeypatch.setattr(differences.ListedRange, "at_once", 3)
    monkeypatch.setattr(differences.DigestedRange, "at_once", 5)
    monkeypatch.setattr(sdk, "FEW_ROWS", 4)
    monkeypatch.setattr(sdk, "KEPT_RECORDS", 6)
    monkeypatch.setattr(sdk, "CALL_RANGES", 5)
    monkeypatch.setattr(sdk, "CALL_RECORDS", 9)


@pytest.mark.usefixtures("small")
def test_a_copy_becomes_equal_and_nothing_else_is_told() -> None:
    @settings(max_examples=400, deadline=None)
    @given(RECORDS, RECORDS, st.integers(1, 9), st.integers(1, 20))
    def check(here: Records, there: Records, range_rows: int, chunk: int) -> None:
        hub, copy, wrong = Hub(here, chunk), Copy(dict(there)), differing(here, there)
        repaired = sdk.RepairAttempt(hub, copy, range_rows).run()
        assert copy.records == here
        assert sorted(copy.told) == wrong
        assert repaired.upserts + repaired.deletes == len(wrong)

    check()


@pytest.mark.usefixtures("small")
def test_a_few_differences_in_many_records() -> None:
    here = {f"k{i:05}": "x" for i in range(3000)}

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(0, 2999), max_size=5), st.sampled_from([3, 100, 5000]))
    def check(places: list[int], range_rows: int) -> None:
        there = dict(here)
        for place in places:
            there[f"k{place:05}"] = "y"
        copy = Copy(dict(there))
        sdk.RepairAttempt(Hub(here), copy, range_rows).run()
        assert (copy.records, sorted(copy.told)) == (here, differing(here, there))

    check()


@pytest.mark.usefixtures("small")
def test_a_call_that_has_no_time_left_still_comes_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "over", property(lambda self: True))

    @settings(max_examples=100, deadline=None)
    @given(RECORDS, RECORDS, st.integers(1, 9))
    def check(here: Records, there: Records, range_rows: int) -> None:
        hub, copy, wrong = Hub(here, 4), Copy(dict(there)), differing(here, there)
        sdk.RepairAttempt(hub, copy, range_rows).run()
        assert (copy.records, sorted(copy.told)) == (here, wrong)

    check()


def test_equal_copies_take_one_call() -> None:
    here = {f"k{i:05}": "x" for i in range(5000)}
    hub, copy = Hub(here), Copy(dict(here))
    repaired = sdk.RepairAttempt(hub, copy, 1024).run()
    assert repaired.equal and repaired.cursor == "c" and not copy.told
    assert [len(call) for call in hub.calls] == [5]


def test_what_differs_is_found_in_two_calls() -> None:
    here = {f"k{i:05}": "x" for i in range(5000)}
    there = here | {"k00100": "y", "k04000+": "new"}
    del there["k02500"]
    hub, copy = Hub(here, 1000), Copy(there)
    sdk.RepairAttempt(hub, copy, 1024).run()
    assert copy.told == ["k00100", "k02500", "k04000+"]
    # The second call returns the records of three of the smallest ranges.
    assert [len(call) for call in hub.calls] == [5, 3]
    assert sum(len(r.records or ()) for r in hub.calls[1]) <= 3 * 33


def test_a_view_that_changes_between_calls_ends_the_attempt() -> None:
    here = {f"k{i:05}": "x" for i in range(2000)}
    hub = Hub(here)

    def compare(ranges: Sequence[RangeDigest], state: str) -> Any:
        hub.view = f"v{len(hub.calls)}"
        return hub(ranges, state)

    with pytest.raises(sdk.RepairMustRestart):
        sdk.RepairAttempt(compare, Copy(here | {"k00001": "y"}), 1024).run()
