"""Digests and repairs on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstockd.digests.parts import Asked, DigestReply
from penstockd.digests.ranges import Range
from penstockd.digests.repair import Repair, RepairReply
from penstockd.errors import ValueInvalid

_SHA256 = 32


def digest_request(request: Any) -> Asked:
    """A Digest… request as the command takes it."""
    return Asked(
        request.filter,
        request.fields,
        request.start_key,
        request.end_key,
        request.parts,
        request.keys,
        request.state,
    )


def digest_reply(made: Any, reply: DigestReply) -> Any:
    """A Digest… method's reply, of the class ``made``."""
    return made(
        ranges=[_range_values(r) for r in reply.ranges],
        row_count=sum(r.count for r in reply.ranges),
        next_key=reply.next_key,
        cursor=reply.cursor,
        state=reply.state,
        view=reply.view,
    )


def repair_request(request: Any) -> Repair:
    """A Repair… request as the command takes it. Raises ValueInvalid for a malformed digest."""
    ranges = [_read_range(r, f"ranges[{i}].") for i, r in enumerate(request.ranges)]
    return Repair(ranges, request.filter, request.fields, request.state)


def repair_reply(made: Any, reply: RepairReply) -> Any:
    """A Repair… method's reply, of the class ``made``."""
    return made(
        upserts=reply.found.upserts,
        deletes=reply.found.deletes,
        differing=[_range_values(r) for r in reply.found.differing],
        next_key=reply.found.next_key,
        complete=reply.found.complete,
        row_count=reply.found.rows,
        cursor=reply.cursor,
        state=reply.state,
        view=reply.view,
    )


def _range_values(range: Range) -> dict[str, Any]:
    """A RangeDigest as a message's constructor takes it, whichever pool the message is from."""
    records = (range.records or {}).items()
    return {
        "start_key": range.start,
        "end_key": range.end,
        "row_count": range.count,
        "sha256": range.sha256.hex(),
        "records": [{"key": key, "sha256": digest.hex()} for key, digest in records],
    }


def _read_range(given: Any, where: str) -> Range:
    records: dict[str, bytes] | None = None
    if given.records or not given.row_count:
        records = dict(_read_records(given, where))
    elif given.row_count < 0:
        raise ValueInvalid.of(f"{where}row_count", "is negative")
    # If the records are listed, the range's own digest adds nothing.
    sha256 = b"" if records is not None else _decode_digest(given.sha256, f"{where}sha256")
    return Range(given.start_key, given.end_key, given.row_count, sha256, records)


def _read_records(given: Any, where: str) -> Iterator[tuple[str, bytes]]:
    for i, record in enumerate(given.records):
        yield record.key, _decode_digest(record.sha256, f"{where}records[{i}].sha256")


def _decode_digest(text: str, field: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != _SHA256 or len(text) != 2 * _SHA256:
        raise ValueInvalid.of(field, "is not a SHA-256 in hexadecimal")
    return digest
