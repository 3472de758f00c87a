"""Detects tampering with an audit. It reads no database: see ``proof`` and ``copy``.

Its input is the checkpoints, the public keys to trust, the checkpoints of a file kept elsewhere,
and then each day's entries in the order of its chain. The first fault of a day has the exact place;
later ones may be consequences of it.
"""

from __future__ import annotations

import datetime as dt
import enum
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from penstockd.audit.chain import Sealed, link_entry, start_chain
from penstockd.audit.checkpoint import Checkpoint, CheckpointKind, time_text
from penstockd.audit.succession import trust_keys

#: The most findings of each fault that are reported.
MAX_FINDINGS = 100


class Fault(enum.StrEnum):
    """The kind of a fault, in the order of the documentation."""

    CHANGED = "CHANGED"  # an entry, or what came before it, is not what was sealed
    DELETED = "DELETED"  # a sealed entry is missing
    INSERTED = "INSERTED"  # an entry is where there was none, or outside the chain
    REORDERED = "REORDERED"  # an entry is before one that it came after
    TRUNCATED = "TRUNCATED"  # the end of a chain, or whole days, or checkpoints are gone
    REBUILT = "REBUILT"  # a consistent chain is not the one that was signed
    CHECKPOINT = "CHECKPOINT"  # a checkpoint was changed or is out of order
    WRONG_KEY = "WRONG_KEY"  # a checkpoint is signed with a key that is not trusted
    STALE = "STALE"  # the last checkpoint is too old: newer ones may be gone
    UNVERIFIABLE = "UNVERIFIABLE"  # there is no checkpoint: anybody could have written everything
    SUPPRESSED = "SUPPRESSED"  # the database accepted an entry and did not keep it
    RULE_CHANGED = "RULE_CHANGED"  # what callers were shown is not what was stored
    ARCHIVE = "ARCHIVE"  # the file of an archived day is missing, or cannot be read


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: its place in a day's chain or among the checkpoints, and a description."""

    fault: Fault
    description: str
    day: dt.date | None = None
    sequence: int = 0
    entry_id: int = 0
    checkpoint: int = 0

    def __str__(self) -> str:
        place = f"checkpoint {self.checkpoint}" if self.checkpoint else "audit"
        if self.day is not None:
            place = f"{self.day} sequence {self.sequence}"
            if self.entry_id:
                place += f" (entry {self.entry_id})"
        return f"{place}: {self.fault}: {self.description}"


@dataclass(frozen=True, slots=True)
class DaySpan:
    """Some days of the audit, from the first to the last, and the entries that were read in them.

    ``files`` is the number of archive files that were read, 0 for days in the database.
    """

    first: dt.date
    last: dt.date
    entries: int
    files: int = 0


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The result of a verification. ``findings`` lists places in chains first, then other entries
    and checkpoints.

    ``checkpoints`` counts the checkpoints of the audit, ``outside`` those of the file. ``unsealed``
    counts entries that are not sealed yet; ``waiting`` is the age of the oldest of them in seconds.
    ``restores`` lists the gaps that were declared after the database had gone back in time.
    ``in_store`` are the days with entries in the database, ``archived`` those that it has dropped;
    ``archived`` counts only the entries of files that were read.
    """

    findings: list[Finding]
    entries: int
    unsealed: int
    checkpoints: int
    outside: int
    seconds: float
    waiting: float | None = None
    restores: Sequence[str] = ()
    in_store: DaySpan | None = None
    archived: DaySpan | None = None

    @property
    def intact(self) -> bool:
        """Whether there are no findings."""
        return not self.findings


class Verification:
    """One verification. ``findings`` is empty as long as there is no fault."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        keys: Collection[bytes],
        outside: Sequence[Checkpoint] = (),
        *,
        witnesses: Sequence[Checkpoint] = (),
        first: int = 1,
    ) -> None:
        """``keys`` are trusted, and those that they hand over to, or took over from: see
        ``succession``; ``witnesses`` are checkpoints that may state so. ``first`` is the number
        that the checkpoints must start with; 0 for any."""
        self.findings: list[Finding] = []
        self._counts: Counter[Fault] = Counter()
        self.entries = 0
        self._keys = trust_keys(keys, checkpoints, [*outside, *witnesses])
        self._genuine: set[bytes] = set()
        self._by_number = {c.number: c for c in checkpoints}
        self._numbers = sorted(self._by_number)
        self._outside = len(outside)
        self._restores: list[Checkpoint] = []
        self._undone: list[Checkpoint] = []
        self._unverifiable = not (checkpoints or outside)
        if self._unverifiable:
            words = "nothing to verify against: there is no checkpoint"
            self.find(Finding(Fault.UNVERIFIABLE, words))
        self._check_row(checkpoints, first)
        self._check_outside(checkpoints, outside)
        #: By the checkpoint that states the drop of a chain, the checkpoints of that chain.
        self._pruned: dict[Checkpoint, list[Checkpoint]] = {}
        self._marks: dict[dt.date, list[Checkpoint]] = {}
        # Checkpoints of the file count, too: they may be all that is left.
        known = {c.digest: c for c in (*checkpoints, *outside)}
        for checkpoint in sorted(known.values(), key=_number_of):
            if checkpoint in self._undone or not self._is_known_genuine(checkpoint):
                continue
            if checkpoint.kind is CheckpointKind.PRUNE:
                marks = self._marks.pop(checkpoint.day, [])
                self._pruned[checkpoint] = [*marks, checkpoint]
            elif checkpoint.kind is CheckpointKind.SEAL:
                self._marks.setdefault(checkpoint.day, []).append(checkpoint)

    @property
    def pruned(self) -> Sequence[Checkpoint]:
        """The PRUNE checkpoints of the dropped chains, in order."""
        return list(self._pruned)

    def find(self, finding: Finding) -> None:
        """Note a fault, unless there are many of its kind: these do not hide one of another."""
        self._counts[finding.fault] += 1
        if self._counts[finding.fault] <= MAX_FINDINGS:
            self.findings.append(finding)

    def day(self, day: dt.date, anchor: int) -> DayCheck:
        """Begin the check of a day's chain, anchored at checkpoint number ``anchor``."""
        return self._begin(day, anchor, self._marks.pop(day, ()))

    def archived(self, pruned: Checkpoint, anchor: int) -> DayCheck:
        """Begin the check of a dropped chain, which its archive holds."""
        return self._begin(pruned.day, anchor, self._pruned[pruned])

    def _begin(self, day: dt.date, anchor: int, marks: Iterable[Checkpoint]) -> DayCheck:
        before = self._by_number.get(anchor)
        if anchor and before is None:
            self.find(Finding(Fault.CHECKPOINT, "the anchor of the chain is gone", day, 1))
        start = start_chain(day, before.digest if before is not None else b"")
        return DayCheck(self, day, start, sorted(marks, key=_sort_sequence))

    def compare(self, pruned: Checkpoint, anchor: int, held: Sequence[Checkpoint]) -> None:
        """Compare the checkpoints in the archive of a dropped chain with those of the audit."""
        last = min(
            (c.number for c in self._pruned[pruned] if c.sequence == pruned.sequence),
            default=pruned.number,
        )
        start, end = bisect_left(self._numbers, anchor), bisect_right(self._numbers, last)
        wanted = [self._by_number[number] for number in self._numbers[start:end]]
        if list(held) != wanted:
            words = f"its archive does not hold the checkpoints {anchor} to {last} of the audit"
            self.find(Finding(Fault.CHECKPOINT, words, pruned.day, 1))

    def close(self, now: dt.datetime | None = None, patience: float = 120.0) -> None:
        """Finish after the last day. With ``now``, the newest checkpoint must not be older than
        ``patience`` seconds."""
        for day in sorted(self._marks):
            if any(c.sequence for c in self._marks[day]):
                self.find(Finding(Fault.TRUNCATED, "the whole day is gone", day, 1))
        # By number: after the server's clock was set back, earlier ones have later times.
        newest = self._by_number[max(self._by_number)].time if self._by_number else None
        if now is None or self._unverifiable:
            return
        if newest is None:
            self.find(Finding(Fault.STALE, "the audit has no checkpoint"))
        elif (now - newest).total_seconds() > patience:
            self.find(Finding(Fault.STALE, f"the newest checkpoint is of {time_text(newest)}"))

    def report(
        self,
        unsealed: int,
        seconds: float,
        waiting: float | None = None,
        *,
        in_store: DaySpan | None = None,
        archived: DaySpan | None = None,
    ) -> VerificationReport:
        """The result so far."""
        found = sorted(self.findings, key=_sort_place)
        count = len(self._by_number)
        told = [self._describe_restore(restore) for restore in self._restores]
        return VerificationReport(
            found, self.entries, unsealed, count, self._outside, seconds, waiting, told,
            in_store, archived,
        )  # fmt: skip

    def _describe_restore(self, restore: Checkpoint) -> str:
        """Describe what a declared restore has undone."""
        text = f"checkpoint {restore.number}: RESTORE declared at {time_text(restore.time)}"
        undone = [c for c in self._undone if restore.sequence < c.number < restore.number]
        if not undone:
            return f"{text}; what was undone after checkpoint {restore.sequence} is in no file here"
        sizes: dict[dt.date, int] = {}
        for checkpoint in undone:
            if checkpoint.kind is CheckpointKind.SEAL:
                sizes[checkpoint.day] = max(sizes.get(checkpoint.day, 0), checkpoint.sequence)
        kept: dict[dt.date, int] = dict.fromkeys(sizes, 0)
        for mark in self._by_number.values():
            if mark.number <= restore.sequence and mark.day in kept:
                kept[mark.day] = max(kept[mark.day], mark.sequence)
        count = sum(max(0, size - kept[day]) for day, size in sizes.items())
        return (
            f"{text}; undone are checkpoints {undone[0].number} to {undone[-1].number} of the file,"
            f" and {count:,} entries that they sign"
        )

    def _check_row(self, checkpoints: Sequence[Checkpoint], first: int) -> None:
        last: Checkpoint | None = None
        for checkpoint in checkpoints:
            fault = self._fault(checkpoint, last, first)
            if fault is not None:
                self.find(fault)
            last = checkpoint

    def _fault(self, checkpoint: Checkpoint, last: Checkpoint | None, first: int) -> Finding | None:
        number = checkpoint.number
        if not self._is_trusted(checkpoint):
            return Finding(Fault.WRONG_KEY, "it is signed with an unknown key", checkpoint=number)
        if not self._is_genuine(checkpoint):
            return Finding(Fault.CHECKPOINT, "its signature does not match", checkpoint=number)
        if last is None and not first:
            return None
        if checkpoint.kind is CheckpointKind.RESTORE:
            self._restores.append(checkpoint)
            known = last.digest if last is not None else b""
            if checkpoint.hash == known and (last is None or number > last.number):
                return None
        expected = last.number + 1 if last is not None else first
        if number != expected:
            return Finding(Fault.TRUNCATED, f"number {expected} is gone", checkpoint=expected)
        if checkpoint.previous != (last.digest if last is not None else b""):
            words = "it does not follow the previous one"
            return Finding(Fault.CHECKPOINT, words, checkpoint=number)
        return None

    def _is_known_genuine(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.digest in self._genuine or self._is_genuine(checkpoint)

    def _is_genuine(self, checkpoint: Checkpoint) -> bool:
        if not self._is_trusted(checkpoint) or not checkpoint.signed_by(checkpoint.public_key):
            return False
        self._genuine.add(checkpoint.digest)
        return True

    def _is_trusted(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.number <= self._keys.get(checkpoint.public_key, -1)

    def _check_outside(
        self, checkpoints: Sequence[Checkpoint], outside: Sequence[Checkpoint]
    ) -> None:
        """Check that every checkpoint of the file is in the database unchanged."""
        for checkpoint in outside:
            known = self._by_number.get(checkpoint.number)
            if known == checkpoint:
                continue
            number = checkpoint.number
            declared = any(r.sequence < number < r.number for r in self._restores)
            if declared and self._is_genuine(checkpoint):
                self._undone.append(checkpoint)
                continue
            if not self._is_trusted(checkpoint):
                self.find(
                    Finding(
                        Fault.WRONG_KEY, "the file has it with an unknown key", checkpoint=number
                    )
                )
            elif known is None:
                self.find(
                    Finding(
                        Fault.TRUNCATED,
                        "the file holds it, but the audit does not",
                        checkpoint=number,
                    )
                )
            else:
                self.find(
                    Finding(Fault.REBUILT, "the file holds a different one", checkpoint=number)
                )


class DayCheck:
    """Checks the chain of one day, fed in pieces of any size."""

    def __init__(
        self, whole: Verification, day: dt.date, start: bytes, marks: Sequence[Checkpoint]
    ) -> None:
        self._whole, self._day = whole, day
        self._before = self._last = start
        self._entry: Sealed | None = None
        self._sequence = 0
        self._sound = True
        self._confirmed = 0
        self._unsigned: Checkpoint | None = None
        self._marks = list(marks)
        self._next = self._marks.pop(0) if self._marks else None
        self._pass_marks()

    def feed(self, entries: Sequence[Sealed]) -> None:
        """Check the next entries of the chain."""
        self._whole.entries += len(entries)
        for at, entry in enumerate(entries):
            self._sequence += 1
            if entry.sequence != self._sequence and self._sound:
                gap = Sealed(self._sequence, 0, b"", None)
                self._note(Fault.DELETED, "the chain leaves numbers out", gap)
                self._sequence = entry.sequence
            elif entry.content is None:
                self._note(Fault.DELETED, "it was sealed, but is missing", entry)
            elif link_entry(self._last, entry.content) != entry.hash:
                if self._follows_earlier(entry):
                    assert self._entry is not None, "an earlier one was looked at"
                    self._unsigned = None
                    self._note(Fault.INSERTED, "the next one does not follow it", self._entry)
                else:
                    fault, words = _diagnose_entry(self._last, entries, at)
                    self._note(fault, words, entry)
                    if fault is Fault.INSERTED:
                        continue
            if self._unsigned is not None:
                self._tell_unsigned()
            self._before, self._last, self._entry = self._last, entry.hash, entry
            if self._next is not None and self._sequence >= self._next.sequence:
                self._pass_marks()

    def end(self, length: int) -> None:
        """End the chain, which is recorded as ``length`` entries long."""
        self._tell_unsigned()
        if not self._sound:
            return
        beyond = [c for c in (self._next, *self._marks) if c is not None]
        words = ""
        if beyond:
            words = f"checkpoint {beyond[-1].number} counts {beyond[-1].sequence} entries"
        elif length != self._sequence:
            words = f"the chain is said to hold {length} entries"
        if words:
            last = self._sequence if beyond else min(length, self._sequence)
            place = Sealed(last + 1, 0, b"", None)
            self._note(Fault.TRUNCATED, words, place)

    def _pass_marks(self) -> None:
        """Compare with the checkpoints at this place."""
        while self._next is not None and self._sequence >= self._next.sequence:
            mark = self._next
            self._next = self._marks.pop(0) if self._marks else None
            if not self._sound or self._unsigned is not None:
                continue
            if mark.sequence == self._sequence and mark.hash == self._last:
                self._confirmed = mark.sequence
                continue
            # An entry inserted just before would explain it: the next entry will show.
            self._unsigned = mark

    def _tell_unsigned(self) -> None:
        mark, self._unsigned = self._unsigned, None
        if mark is not None and self._sound:
            words = f"up to {mark.sequence} it is not what checkpoint {mark.number} signs"
            self._note(Fault.REBUILT, words, Sealed(self._confirmed + 1, 0, b"", None))

    def _follows_earlier(self, entry: Sealed) -> bool:
        """Whether the entry follows the last entry but one instead of the last."""
        return (
            self._entry is not None
            and entry.content is not None
            and link_entry(self._before, entry.content) == entry.hash
        )

    def _note(self, fault: Fault, words: str, entry: Sealed) -> None:
        self._sound = False
        self._whole.find(Finding(fault, words, self._day, entry.sequence, entry.entry_id))


def _sort_place(finding: Finding) -> tuple[bool, bool, dt.date, int, int]:
    """Sorts places in chains first, then entries outside them, then checkpoints."""
    day = finding.day or dt.date.max
    outside = finding.sequence == 0
    return finding.day is None, outside, day, finding.sequence, finding.checkpoint


def _number_of(checkpoint: Checkpoint) -> int:
    return checkpoint.number


def _sort_sequence(checkpoint: Checkpoint) -> tuple[int, int]:
    return checkpoint.sequence, checkpoint.number


def _diagnose_entry(last: bytes, entries: Sequence[Sealed], at: int) -> tuple[Fault, str]:
    """Why the entry at ``at`` does not follow, judged by whether the next one would."""
    entry = entries[at]
    after = entries[at + 1] if at + 1 < len(entries) else None
    if after is not None and after.content is not None and entry.content is not None:
        if link_entry(last, after.content) == after.hash:
            if link_entry(after.hash, entry.content) == entry.hash:
                return Fault.REORDERED, "it came after the next one"
            return Fault.INSERTED, "the next one follows the one before it"
        if link_entry(last, after.content) == entry.hash:
            return Fault.REORDERED, "the next one was sealed in its place"
    return Fault.CHANGED, "it is not what was sealed here"
