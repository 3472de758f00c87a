"""Writes and verifies copies of the audit (NDJSON), which can be verified away from the hub.

Each line is an object with one of: ``archived``, days that the copy lacks since the hub has dropped
them; ``checkpoint``; ``rule``, the content of a digest; ``chain``, a day with its anchoring
checkpoint; ``entry``, all values of an entry and its place in the preceding chain; ``end``, without
which the copy is truncated. Bytes are hexadecimal; for the keys of a reply the entry holds the
SHA-256. In archives, ``keys`` beside the entry holds the keys themselves, in base64.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import struct
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from penstockd.audit.chain import COLUMNS, HASH_BYTES, VALUES, Sealed, content_of
from penstockd.audit.checkpoint import Checkpoint, time_text
from penstockd.audit.entry import SUPPRESSED
from penstockd.audit.shown import digest_of
from penstockd.audit.stored_archives import find_archived
from penstockd.audit.stored_checkpoints import read_checkpoints
from penstockd.audit.verify import (
    DayCheck,
    DaySpan,
    Fault,
    Finding,
    Verification,
    VerificationReport,
)
from penstockd.errors import ValueInvalid
from penstockd.store.database import Connection

_GROUP = 1000
#: The approximate number of bytes of keys that are read at a time.
_PIECE_BYTES = 4 * 1024 * 1024
#: How the line of an entry begins.
_ENTRY = b'{"sequence":'

_CHAINS = """
SELECT day, anchor, last_sequence FROM hub.audit_chain
WHERE day BETWEEN $1 AND $2 ORDER BY day
"""
#: Seals are read together up to about 2,000 entries, because the sealer makes many small ones.
_SEALS = f"""
SELECT first_sequence, entry_ids, hashes FROM hub.audit_seal
WHERE day = $1 AND first_sequence > $2 AND first_sequence < {_GROUP} + (
    SELECT min(first_sequence) FROM hub.audit_seal WHERE day = $1 AND first_sequence > $2)
ORDER BY first_sequence
"""
_KEYS = """
SELECT entry_id, keys FROM hub.audit_entry
WHERE day = $1 AND entry_id = ANY ($2::bigint[]) AND keys IS NOT NULL
"""
_ENTRIES = f"""
SELECT {VALUES}, octet_length(e.keys) AS key_bytes FROM hub.audit_entry AS e
WHERE e.day = $1 AND e.entry_id = ANY ($2::bigint[])
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
    if (archived := await find_archived(connection, first, last)) is not None:
        yield _count_lines(written, [_encode_line(archived=archived.document())])
    chains = await connection.fetch(_CHAINS, first, last)
    anchor = min((chain[1] for chain in chains), default=0)
    checkpoints = await read_checkpoints(connection, after=max(0, anchor - 1))
    yield _count_lines(written, encode_checkpoints(checkpoints))
    rules = await connection.fetch("SELECT digest, content FROM hub.audit_shown ORDER BY digest")
    yield _count_lines(written, encode_rules(rules))
    for chain in chains:
        async for lines in encode_chain(connection, *chain):
            written.entries += sum(line.startswith(_ENTRY) for line in lines)
            yield _count_lines(written, lines)
    yield _count_lines(written, [encode_end(written.entries)])


def encode_checkpoints(checkpoints: Iterable[Checkpoint]) -> list[bytes]:
    """Checkpoints as lines."""
    return [b'{"checkpoint":%s}' % c.line().encode() for c in checkpoints]


def encode_rules(rules: Iterable[Any]) -> list[bytes]:
    """Rules, given as rows of digest and content, as lines."""
    return [_encode_line(rule={"digest": d.hex(), "content": c}) for d, c in rules]


def encode_end(entries: int) -> bytes:
    """The line after the last entry."""
    return _encode_line(end={"entries": entries})


async def encode_chain(
    connection: Connection, day: dt.date, anchor: int, length: int, *, with_keys: bool = False
) -> AsyncGenerator[list[bytes], None]:
    """The chain of a day as lines: its head, and those of its entries that are present.
    ``with_keys`` adds to each entry the keys of its reply."""
    yield [_encode_line(chain={"day": day.isoformat(), "anchor": anchor, "entries": length})]
    at = 0
    while groups := await connection.fetch(_SEALS, day, at):
        at = groups[-1][0]
        ids = [i for group in groups for i in group[1]]
        rows = {row[0]: row for row in await connection.fetch(_ENTRIES, day, ids)}
        places = [
            place for group in groups for place in _places_of(group) if place.entry_id in rows
        ]
        sizes = [rows[place.entry_id]["key_bytes"] or 0 for place in places]
        for piece in _cut_pieces(places, sizes if with_keys else []):
            held = {}
            if with_keys:
                asked = [place.entry_id for place in piece]
                held = dict(map(tuple, await connection.fetch(_KEYS, day, asked)))
            yield [_encode_entry(p, rows[p.entry_id], held.get(p.entry_id)) for p in piece]


class _ChainPlace(NamedTuple):
    """The place of an entry in its chain, and its hash there."""

    sequence: int
    entry_id: int
    hash: bytes


def _places_of(group: Any) -> Iterator[_ChainPlace]:
    first, ids, hashes = group
    for i, entry_id in enumerate(ids):
        yield _ChainPlace(first + i, entry_id, hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES])


def _cut_pieces(
    places: Sequence[_ChainPlace], sizes: Sequence[int]
) -> Iterator[Sequence[_ChainPlace]]:
    """Cut places into pieces of about _PIECE_BYTES each; without sizes, into one piece."""
    begin = total = 0
    for at, size in enumerate(sizes):
        if total and total + size > _PIECE_BYTES:
            yield places[begin:at]
            begin, total = at, 0
        total += size
    if begin < len(places):
        yield places[begin:]


def _encode_entry(place: _ChainPlace, row: Any, keys: bytes | None) -> bytes:
    more = {} if keys is None else {"keys": base64.b64encode(keys).decode()}
    entry = {name: _plain_value(row[at]) for at, name in enumerate(COLUMNS)}
    return _encode_line(sequence=place.sequence, hash=place.hash.hex(), entry=entry, **more)


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
    lines: Iterable[bytes],
    keys: Collection[bytes],
    outside: Sequence[Checkpoint] = (),
    *,
    witnesses: Sequence[Checkpoint] = (),
) -> VerificationReport:
    """Verify the days that a copy holds; ``witnesses`` are further checkpoints that may hand over
    to other keys.

    Raises CopyBroken if the lines are not a copy.
    """
    started = time.perf_counter()
    source = CopyLines(lines)
    absent = next(source.take("archived", 1), None)
    checkpoints = [source.checkpoint(found) for found in source.take("checkpoint")]
    numbers = {c.number for c in checkpoints}
    known = [c for c in outside if c.number in numbers]
    check = Verification(checkpoints, keys, known, witnesses=[*outside, *witnesses], first=0)
    rules = take_rules(check, source)
    while (chain := next(source.take("chain", 1), None)) is not None:
        named, anchor, length = parse_chain(chain, source.number)
        day = check.day(named, anchor)
        feed_entries(check, day, source, rules, named)
        day.end(length)
    if not source.ends():
        check.find(Finding(Fault.TRUNCATED, f"the copy breaks off at line {source.number}"))
    return check.report(0, time.perf_counter() - started, archived=_parse_span(absent))


def _parse_span(found: Any) -> DaySpan | None:
    """The days that a copy says it lacks."""
    if not isinstance(found, dict):
        return None
    try:
        first, last = (dt.date.fromisoformat(found[name]) for name in ("first_day", "last_day"))
    except (KeyError, TypeError, ValueError) as exc:
        raise CopyBroken("line 1 does not name days") from exc
    return DaySpan(first, last, 0)


def take_rules(
    check: Verification, source: CopyLines, named: dt.date | None = None
) -> frozenset[str]:
    """Check the rules on the next lines; findings name the day ``named``, if given. Returns the
    digests of the rules in hexadecimal."""
    digests = set()
    for rule in source.take("rule"):
        try:
            digest, made = str(rule["digest"]), digest_of(rule["content"]).hex()
        except (KeyError, TypeError, AttributeError) as exc:
            raise CopyBroken(f"line {source.number} is not a rule") from exc
        digests.add(digest)
        if made != digest:
            words = f"what {digest} stands for was changed"
            check.find(Finding(Fault.RULE_CHANGED, words, named))
    return frozenset(digests)


def parse_chain(chain: Any, number: int) -> tuple[dt.date, int, int]:
    """The day of a chain, the number of its anchor, and its length. Raises CopyBroken."""
    try:
        return dt.date.fromisoformat(chain["day"]), int(chain["anchor"]), int(chain["entries"])
    except (KeyError, TypeError, ValueError) as exc:
        raise CopyBroken(f"line {number} is not the head of a chain") from exc


def feed_entries(
    check: Verification,
    day: DayCheck,
    source: CopyLines,
    rules: Collection[str],
    named: dt.date,
) -> None:
    """Feed the entries of a chain to its check, and check that the rules they name are present."""
    group: list[Sealed] = []
    for found in source.take("entry", whole=True):
        try:
            sealed = _parse_sealed(found)
            shown = found["entry"].get("shown")
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise CopyBroken(f"line {source.number} is not an entry") from exc
        if found["entry"].get("outcome") == SUPPRESSED:
            words = f"an entry of the call {found['entry'].get('request_id')} was not kept"
            check.find(Finding(Fault.SUPPRESSED, words, named, 0, sealed.entry_id))
        if shown is not None and shown not in rules:
            words = "the rule that it names is missing"
            check.find(Finding(Fault.RULE_CHANGED, words, named, 0, sealed.entry_id))
        group.append(sealed)
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
        if "keys" in found:
            held = hashlib.sha256(base64.b64decode(found["keys"], validate=True))
            content = content if held.hexdigest() == entry["keys"] else b""
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, struct.error):
        content = hashed = b""
    return Sealed(int(found["sequence"]), int(entry["entry_id"]), hashed, content)


class CopyLines:
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

    def ends(self) -> bool:
        """Whether the next line ends the copy, and is the last one."""
        return next(self.take("end", 1), None) is not None and self._next is None

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
