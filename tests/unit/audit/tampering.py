"""Audit logs in memory, and every way to tamper with one."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from penstockd.audit.chain import COLUMNS, Sealed, content_of, link_entry, start_chain
from penstockd.audit.checkpoint import Checkpoint, CheckpointKey
from penstockd.audit.verify import Fault, Verification, VerificationReport

KEY = CheckpointKey(b"k" * 32)
OTHER = CheckpointKey(b"o" * 32)
FIRST_DAY = dt.date(2025, 3, 1)

#: The place where a tampering must be found: day and sequence, or the number of a checkpoint.
Place = tuple[dt.date | None, int]
Values = dict[str, Any]


@dataclass
class Link:
    """An entry in a chain, with both as a database would hold them."""

    values: Values | None
    hash: bytes
    entry_id: int


@dataclass
class Log:
    """Chains by day, each with its anchor, and the checkpoints."""

    chains: dict[dt.date, tuple[int, list[Link]]] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    outside: list[Checkpoint] = field(default_factory=list)
    now: dt.datetime = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)

    def copy(self) -> Log:
        """A copy of the log."""
        chains = {
            day: (anchor, [Link(dict(e.values or {}), e.hash, e.entry_id) for e in links])
            for day, (anchor, links) in self.chains.items()
        }
        return Log(chains, list(self.checkpoints), list(self.outside), self.now)

    def verify(self) -> VerificationReport:
        """The verifier's findings."""
        check = Verification(self.checkpoints, [KEY.public], self.outside)
        for day, (anchor, links) in sorted(self.chains.items()):
            chain = check.day(day, anchor)
            entries = [
                Sealed(i, e.entry_id, e.hash, content_of(e.values) if e.values else None)
                for i, e in enumerate(links, 1)
            ]
            for at in range(0, len(entries), 7):  # chunks that end at arbitrary entries
                chain.feed(entries[at : at + 7])
            chain.end(len(links))
        check.close(self.now, 120)
        return check.report(0, 0)

    def relink(self, day: dt.date, start: int) -> None:
        """Recompute the hashes of a chain from a place on, as a forger would."""
        anchor, links = self.chains[day]
        last = links[start - 1].hash if start else start_chain(day, self.digest(anchor))
        for entry in links[start:]:
            assert entry.values is not None
            last = entry.hash = link_entry(last, content_of(entry.values))

    def digest(self, number: int) -> bytes:
        """The digest of a checkpoint."""
        return self.checkpoints[number - 1].digest if number else b""

    def resign(self, start: int, key: CheckpointKey) -> None:
        """Sign the checkpoints from a place on again, for the current chains."""
        old = self.checkpoints[start:]
        del self.checkpoints[start:]
        for checkpoint in old:
            _, links = self.chains[checkpoint.day]
            last = self.checkpoints[-1] if self.checkpoints else None
            count = min(checkpoint.sequence, len(links))
            made = key.sign(last, checkpoint.time, checkpoint.day, count, links[count - 1].hash)
            self.checkpoints.append(made)


def make_log(chance: random.Random, *, days: int = 2, entries: int = 20, every: int = 6) -> Log:
    """A valid log; checkpoints cover all of its entries."""
    log = Log()
    time = log.now
    entry_id = 0
    for number in range(days):
        day = FIRST_DAY + dt.timedelta(days=number)
        anchor = len(log.checkpoints)
        last = start_chain(day, log.digest(anchor))
        links: list[Link] = []
        for at in range(1, entries + 1):
            entry_id += chance.randint(1, 3)
            time += dt.timedelta(microseconds=chance.randint(1, 10**6))
            values = make_values(chance, entry_id, day, time)
            last = link_entry(last, content_of(values))
            links.append(Link(values, last, entry_id))
            if at % every == 0 or at == entries:
                newest = log.checkpoints[-1] if log.checkpoints else None
                log.checkpoints.append(KEY.sign(newest, time, day, at, last))
        log.chains[day] = (anchor, links)
    log.now = time + dt.timedelta(seconds=30)
    return log


def make_values(
    chance: random.Random, entry_id: int, day: dt.date, time: dt.datetime
) -> dict[str, Any]:
    """The values of an entry; about half of the nullable ones are NULL."""
    values: dict[str, Any] = {}
    for name in COLUMNS:
        if name in ("entry_id", "day", "entry_time"):
            continue
        if name in ("policy_revision", "row_count", "byte_count"):
            value: Any = chance.choice([0, 1, chance.getrandbits(62)])
        elif name in ("shown", "keys"):
            value = chance.randbytes(chance.choice([0, 16, 32]))
        else:
            value = chance.choice(["", "a", "né", "OK", str(chance.random())])
        needed = name in ("txid", "phase", "request_id", "policy_revision", "method", "outcome")
        values[name] = value if needed or chance.random() < 0.5 else None
    return {"entry_id": entry_id, "day": day, "entry_time": time, **values}


def flipped(chance: random.Random, value: Any) -> Any:
    """Another value that differs as little as possible."""
    if value is None:
        return None
    if isinstance(value, bool | int):
        return value ^ (1 << chance.randrange(40))
    if isinstance(value, dt.datetime):
        return value + dt.timedelta(microseconds=1)
    if isinstance(value, dt.date):
        return value + dt.timedelta(days=1)
    if isinstance(value, bytes):
        if not value:
            return b"\0"
        at = chance.randrange(len(value))
        return value[:at] + bytes([value[at] ^ (1 << chance.randrange(8))]) + value[at + 1 :]
    return value + "\x01" if not value else value[:-1] + chr(ord(value[-1]) ^ 1)


@dataclass(frozen=True)
class Tampering:
    """A change to a log: where it must be found, and the kinds of finding that it may be."""

    name: str
    place: Place
    faults: frozenset[Fault]
    log: Log


def _pick(chance: random.Random, log: Log) -> tuple[dt.date, list[Link], int]:
    day = chance.choice(sorted(log.chains))
    links = log.chains[day][1]
    return day, links, chance.randrange(len(links))


def _flip(chance: random.Random, log: Log, column: str = "") -> Tampering:
    day, links, at = _pick(chance, log)
    name = column or chance.choice(sorted(COLUMNS))
    values = links[at].values
    assert values is not None
    if values[name] is None:  # NULL becomes the empty value, which is different
        kind = {"policy_revision": 0, "row_count": 0, "byte_count": 0, "shown": b"", "keys": b""}
        values[name] = kind.get(name, "")
    else:
        values[name] = flipped(chance, values[name])
    return _told(f"flip {name}", log, day, at, Fault.CHANGED)


def _blank(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    values = links[at].values
    assert values is not None
    name = chance.choice([n for n in COLUMNS if values[n] is not None and n != "entry_id"])
    values[name] = None
    return _told(f"NULL in {name}", log, day, at, Fault.CHANGED)


def _flip_hash(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    links[at].hash = flipped(chance, links[at].hash)
    return _told("flip a hash", log, day, at, Fault.CHANGED)


def _delete(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    links[at].values = None
    return _told("delete an entry", log, day, at, Fault.DELETED)


def _delete_link(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    del links[at]
    return _told("delete entry and link", log, day, at, Fault.CHANGED, Fault.TRUNCATED)


def _insert(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    values = make_values(chance, 10**6, day, log.now)
    before = links[at - 1].hash if at else start_chain(day, log.digest(log.chains[day][0]))
    linked = link_entry(before, content_of(values))
    links.insert(at, Link(values, chance.choice([linked, chance.randbytes(32)]), 10**6))
    return _told("insert", log, day, at, Fault.INSERTED, Fault.CHANGED)


def _swap(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    at = min(at, len(links) - 2)
    other = chance.randrange(at + 1, len(links))
    links[at], links[other] = links[other], links[at]
    return _told("swap with links", log, day, at, Fault.REORDERED, Fault.CHANGED, Fault.INSERTED)


def _swap_values(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    at = min(at, len(links) - 2)
    first, second = links[at], links[at + 1]
    first.values, second.values = second.values, first.values
    return _told("swap contents", log, day, at, Fault.REORDERED, Fault.CHANGED)


def _cut(chance: random.Random, log: Log) -> Tampering:
    day, links, at = _pick(chance, log)
    if at == 0:
        del log.chains[day]
    else:
        del links[at:]
    return _told("truncate a chain", log, day, at, Fault.TRUNCATED)


def _cut_all(chance: random.Random, log: Log, *, outside: bool) -> Tampering:
    """Everything at the end goes, checkpoints too: only the file, or the clock, can show it."""
    day = max(log.chains)
    links = log.chains[day][1]
    at = chance.randrange(1, len(links))
    if outside:
        log.outside = list(log.checkpoints)
    keep = [c for c in log.checkpoints if c.day < day or c.sequence <= at]
    log.checkpoints = keep
    del links[at:]
    if outside:
        return _told("truncate all, file", log, day, at, Fault.TRUNCATED)
    log.now += dt.timedelta(seconds=120)
    faults = frozenset({Fault.STALE, Fault.UNVERIFIABLE})
    return Tampering("truncate all, no file", (None, 0), faults, log)


def _rebuild(chance: random.Random, log: Log) -> Tampering:
    """Change an entry and recompute all later hashes: found between two checkpoints."""
    day, links, at = _pick(chance, log)
    values = links[at].values
    assert values is not None
    values["outcome"] += "!"
    log.relink(day, at)
    marks = [c.sequence for c in log.checkpoints if c.day == day and c.sequence <= at]
    return _told("rebuild", log, day, max(marks, default=0), Fault.REBUILT)


def _rebuild_with_key(chance: random.Random, log: Log) -> Tampering:
    """The same with new signatures by a key that is not ours."""
    day, links, at = _pick(chance, log)
    values = links[at].values
    assert values is not None
    values["outcome"] += "!"
    log.relink(day, at)
    start = next(i for i, c in enumerate(log.checkpoints) if c.day == day and c.sequence > at)
    log.resign(start, OTHER)
    for later, (anchor, _) in log.chains.items():
        if later > day:
            log.relink(later, 0)
            log.resign(anchor, OTHER)
    faults = frozenset({Fault.WRONG_KEY})
    return Tampering("rebuild with a key", (None, start + 1), faults, log)


def _checkpoint(chance: random.Random, log: Log) -> Tampering:
    at = chance.randrange(len(log.checkpoints))
    old = log.checkpoints[at]
    name = chance.choice(["time", "day", "sequence", "hash", "signature", "previous", "public_key"])
    value = flipped(chance, getattr(old, name))
    log.checkpoints[at] = replace(old, **{name: value})
    faults = frozenset({Fault.CHECKPOINT, Fault.WRONG_KEY})
    return Tampering(f"checkpoint's {name}", (None, at + 1), faults, log)


def _lose_checkpoint(chance: random.Random, log: Log) -> Tampering:
    at = chance.randrange(len(log.checkpoints) - 1)
    del log.checkpoints[at]
    return Tampering("lose a checkpoint", (None, at + 1), frozenset({Fault.TRUNCATED}), log)


def _told(name: str, log: Log, day: dt.date, at: int, *faults: Fault) -> Tampering:
    return Tampering(name, (day, at + 1), frozenset(faults), log)


_KINDS: tuple[Callable[[random.Random, Log], Tampering], ...] = (
    _flip,
    _blank,
    _flip_hash,
    _delete,
    _delete_link,
    _insert,
    _swap,
    _swap_values,
    _cut,
    lambda chance, log: _cut_all(chance, log, outside=True),
    lambda chance, log: _cut_all(chance, log, outside=False),
    _rebuild,
    _rebuild_with_key,
    _checkpoint,
    _lose_checkpoint,
)


def tamper(chance: random.Random, sound: Log, kind: int) -> Tampering:
    """A copy of a valid log with one kind of tampering."""
    log = sound.copy()
    if kind < len(COLUMNS):  # each column has its turn
        return _flip(chance, log, list(COLUMNS)[kind])
    return _KINDS[kind % len(_KINDS)](chance, log)
