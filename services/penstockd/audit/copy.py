"""Writes and verifies copies of the audit (NDJSON), which can be verified away from the hub.

Each line is an object with one of: ``checkpoint``; ``rule``, the content of a digest; ``chain``, a
day with its anchoring checkpoint; ``entry``, all values of an entry and its place in the preceding
chain; ``end``, without which the copy is truncated. Bytes are hexadecimal; for the keys of a reply
it holds the SHA-256.
"""

from __future__ import annotations

import datetime as dt
import struct
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from penstockd.audit.chain import COLUMNS, HASH_BYTES, VALUES, Sealed, content_of
from penstockd.audit.checkpoint import Checkpoint, time_text
from penstockd.audit.shown import digest_of
from penstockd.audit.stored_checkpoints import read_checkpoints
from penstockd.audit.verify import DayCheck, Fault, Finding, Verification, VerificationReport
from penstockd.errors import ValueInvalid
from penstockd.store.database import Connection

_GROUP = 1000

_CHAINS = """
SELECT day, anchor, last_sequence FROM hub.audit_chain
WHERE day BETWEEN $1 AND $2 ORDER BY day
"""
_SEALS = """
SELECT first_sequence, entry_ids, hashes FROM hub.audit_seal
WHERE day = $1 AND first_sequence > $2 ORDER BY first_sequence LIMIT 1
"""
_ENTRIES = f"""
SELECT {VALUES} FROM hub.audit_entry AS e WHERE e.day = $1 AND e.entry_id = ANY ($2::bigint[])
"""


class CopyBroken(Exception):
    """A copy that cannot be read; the message names the line."""


@dataclass(slots=True)
class Written:
    """What has been written to a copy so far."""

    entries: int = 0
    size: int = 0


def parse_day(field: str, text: str, otherwise: dt.date) -> dt.date:
    """Parse a day such as "2025-03-01"; ``otherwise`` if the text is empty. Raises ValueInvalid."""
    try:
        return dt.date.fromisoformat(text) if text else otherwise
    except ValueError as exc:
        raise ValueInvalid.of(field, f"'{text[:40]}' is not a day such as 2025-03-01") from exc


async def write_copy(
    connection: Connection, first: dt.date, last: dt.date, written: Written
) -> AsyncGenerator[bytes, None]:
    """The chains of the days in the connection's snapshot, in pieces of whole lines."""
    chains = await connection.fetch(_CHAINS, first, last)
    anchor = min((chain[1] for chain in chains), default=0)
    checkpoints = await read_checkpoints(connection, after=max(0, anchor - 1))
    yield _count_lines(written, [b'{"checkpoint":%s}' % c.line().encode() for c in checkpoints])
    rules = await connection.fetch("SELECT digest, content FROM hub.audit_shown ORDER BY digest")
    yield _count_lines(
        written, [_encode_line(rule={"digest": d.hex(), "content": c}) for d, c in rules]
    )
    for day, number, length in chains:
        head = {"day": day.isoformat(), "anchor": number, "entries": length}
        yield _count_lines(written, [_encode_line(chain=head)])
        at = 0
        while (group := await connection.fetchrow(_SEALS, day, at)) is not None:
            at, ids, hashes = group
            rows = {row[0]: row for row in await connection.fetch(_ENTRIES, day, ids)}
            present = [(i, rows[e]) for i, e in enumerate(ids) if e in rows]
            written.entries += len(present)
            yield _count_lines(
                written,
                [
                    _encode_line(
                        sequence=at + i,
                        hash=hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES].hex(),
                        entry=dict(zip(COLUMNS, map(_plain_value, row), strict=True)),
                    )
                    for i, row in present
                ],
            )
    yield _count_lines(written, [_encode_line(end={"entries": written.entries})])


def _count_lines(written: Written, lines: Sequence[bytes]) -> bytes:
    data = b"".join(line + b"\n" for line in lines)
    written.size += len(data)
    return data


def _encode_line(**values: Any) -> bytes:
    return orjson.dumps(values)


def _plain_value(value: Any) -> Any:
    """A value in a form that JSON holds exactly."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dt.datetime):
        return time_text(value)
    return value.isoformat() if isinstance(value, dt.date) else value


def _parse_plain(name: str, value: Any) -> Any:
    """The reverse of ``_plain_value``. Raises ValueError."""
    if value is None:
        return None
    if name in ("shown", "keys"):
        return bytes.fromhex(value)
    if name == "entry_time":
        return dt.datetime.fromisoformat(value)
    return dt.date.fromisoformat(value) if name == "day" else value


def verify_copy(
    lines: Iterable[bytes], keys: Collection[bytes], outside: Sequence[Checkpoint] = ()
) -> VerificationReport:
    """Verify the days that a copy holds. Raises CopyBroken if the lines are not a copy."""
    started = time.perf_counter()
    source = _CopyLines(lines)
    checkpoints = [source.checkpoint(found) for found in source.take("checkpoint")]
    numbers = {c.number for c in checkpoints}
    known = [c for c in outside if c.number in numbers]
    check = Verification(checkpoints, keys, known, witnesses=outside, first=0)
    for rule in source.take("rule"):
        if digest_of(rule["content"]).hex() != rule["digest"]:
            words = f"what {rule['digest']}stands for was changed"
            check.find(Finding(Fault.RULE_CHANGED, words))
    while (chain := next(source.take("chain", 1), None)) is not None:
        day = check.day(dt.date.fromisoformat(chain["day"]), int(chain["anchor"]))
        _feed_check(day, source)
        day.end(int(chain["entries"]))
    if next(source.take("end", 1), None) is None:
        check.find(Finding(Fault.TRUNCATED, f"the copy breaks off at line {source.number}"))
    return check.report(0, time.perf_counter() - started)


def _feed_check(day: DayCheck, source: _CopyLines) -> None:
    """Feed the entries of a chain to its check."""
    group: list[Sealed] = []
    for found in source.take("entry", whole=True):
        try:
            group.append(_parse_sealed(found))
        except (KeyError, TypeError, ValueError) as exc:
            raise CopyBroken(f"line {source.number} is not an entry") from exc
        if len(group) == _GROUP:
            day.feed(group)
            group = []
    day.feed(group)


def _parse_sealed(found: Any) -> Sealed:
    """An entry in its place; unparsable values get no content, so they fail the check."""
    entry = found["entry"]
    try:
        content = content_of({name: _parse_plain(name, entry[name]) for name in COLUMNS})
        hashed = bytes.fromhex(found["hash"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, struct.error):
        content = hashed = b""
    return Sealed(int(found["sequence"]), int(entry["entry_id"]), hashed, content)


class _CopyLines:
    """The lines of a copy, read one kind after the other. Raises CopyBroken."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.number = 0
        self._next: dict[str, Any] | None = None
        self._advance()

    def take(self, kind: str, most: int = 0, *, whole: bool = False) -> Iterator[Any]:
        """The next lines of a kind: their value, or ``whole`` lines; at most ``most`` if not 0."""
        taken = 0
        while self._next is not None and kind in self._next and (not most or taken < most):
            found = self._next if whole else self._next[kind]
            self._advance()
            taken += 1
            yield found

    def checkpoint(self, found: Any) -> Checkpoint:
        """Parse the checkpoint of a line."""
        try:
            return Checkpoint.parse(orjson.dumps(found))
        except ValueError as exc:
            raise CopyBroken(f"line {self.number} is not a checkpoint") from exc

    def _advance(self) -> None:
        line = next(self._lines, None)
        self.number += 1
        try:
            self._next = None if line is None else orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            raise CopyBroken(f"line {self.number} is not JSON") from exc
        if self._next is not None and not isinstance(self._next, dict):
            raise CopyBroken(f"line {self.number} is not of a copy of the audit")
