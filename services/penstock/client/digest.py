"""Digests of a dataset, and the repair of any copy of it.

    repaired = client.dataset("customers").digests.repair(store)
    # The store now holds what the hub held at repaired.cursor; continue the changes from there.

``penstock/hub/v1/digests.proto`` defines digests; ``format_canonical`` computes them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from google.protobuf.message import Message

from penstock.client.canonical import canonical_json, format_canonical, range_digest, record_digest
from penstock.client.errors import PenstockError
from penstock.client.link import Link
from penstock.client.stubs import Stubs
from penstock.hub.v1.digests_pb2 import RangeDigest, RecordDigest

__all__ = [
    "Digests",
    "Repaired",
    "Store",
    "canonical_json",
    "format_canonical",
    "range_digest",
    "record_digest",
]

#: Records of the store in each range of the first comparison.
RANGE_ROWS = 1024
#: In a range where the hub has at most so many records, they are compared one by one.
FEW_ROWS = 1024
#: Ranges, and single records, in one call.
CALL_RANGES, CALL_RECORDS = 4096, 16_384
#: Records of the store kept in memory while a range is examined.
KEPT_RECORDS = 8192
#: How often a repair begins again when the hub no longer keeps the state it began with.
ATTEMPTS = 3


class Store(Protocol):
    """A copy, as a repair uses it. The repair calls neither method within the other."""

    def digests(self, start: str, end: str) -> Iterable[tuple[str, bytes]]:
        """Key and ``record_digest`` of each record from key ``start`` on and before ``end`` ("" is
        no bound), in order of the keys' UTF-8 bytes. The caller may stop reading early.
        """

    def apply(self, upserts: Sequence[Message], deletes: Sequence[str]) -> None:
        """Write the records in place of those with their keys, and delete those with the keys."""


@dataclass(slots=True)
class Repaired:
    """What a repair found. The feed continues from ``cursor``; ``view`` is that of the feed.

    ``compared`` counts the hub's records, once for each comparison; ``byte_count`` the bytes of
    requests and replies.
    """

    cursor: str = ""
    view: str = ""
    upserts: int = 0
    deletes: int = 0
    compared: int = 0
    calls: int = 0
    byte_count: int = 0

    @property
    def equal(self) -> bool:
        """Whether the store was equal to the hub before."""
        return not self.upserts and not self.deletes


class Digests:
    """The digests of one dataset; see ``DatasetClient.digests``. Every method raises PenstockError.

    ``filter`` and ``fields`` say what is compared, by default all that the caller may see.
    """

    def __init__(self, link: Link, stubs: Stubs) -> None:
        self._link, self._stubs = link, stubs
        self._stub = stubs.stub_class(link.channel)

    def read(
        self,
        *,
        filter: str = "",
        fields: str | Sequence[str] = (),
        start_key: str = "",
        end_key: str = "",
        parts: int = 0,
        keys: bool = False,
        state: str = "",
    ) -> Any:
        """Digests of ranges of keys (``Digest<Dataset>Response``).

        With ``keys``, digests of each record. If the reply has a ``next_key``, ask for the rest
        from there, with the reply's ``state``: FAILED_PRECONDITION if that is no longer kept.
        """
        return self._call(
            "Digest",
            filter=filter,
            fields=_join_fields(fields),
            start_key=start_key,
            end_key=end_key,
            parts=parts,
            keys=keys,
            state=state,
        )

    def compare(
        self,
        ranges: Sequence[RangeDigest],
        *,
        filter: str = "",
        fields: str | Sequence[str] = (),
        state: str = "",
    ) -> Any:
        """The differences from ranges of a copy (``Repair<Dataset>Response``), in one call."""
        more = {"filter": filter, "fields": _join_fields(fields), "state": state}
        return self._call("Repair", ranges=ranges, **more)

    def repair(
        self,
        store: Store,
        *,
        filter: str = "",
        fields: str | Sequence[str] = (),
        range_rows: int = RANGE_ROWS,
    ) -> Repaired:
        """Make a store hold exactly what the hub holds at one moment, ``Repaired.cursor``.

        Only differences are sent. A record that differs only in ``update_time`` and ``etag`` is not
        sent: digests do not cover them. A store whose ``apply`` does nothing is only compared, and
        ``Repaired`` says how far it is from the hub. If this raises, what was applied until then
        is right in itself, but the whole remains unknown.
        """

        def compare(ranges: Sequence[RangeDigest], state: str) -> Any:
            return self.compare(ranges, filter=filter, fields=fields, state=state)

        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                return RepairAttempt(compare, store, range_rows).run()
            except RepairMustRestart as anew:
                if not left:
                    raise anew.error from None
        raise AssertionError("the last attempt returns or raises")

    def _call(self, verb: str, **request: Any) -> Any:
        method = self._stubs.method(verb, many=True)
        message = self._stubs.request(method)(**request)
        return self._link.unary(getattr(self._stub, method), message, safe=True)


class RepairMustRestart(Exception):
    """The repair must begin again: the state it began with is gone, or the view has changed."""

    def __init__(self, error: PenstockError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class _Unlike:
    """A range of the hub that may differ from the store's."""

    start: str
    end: str
    rows: int
    sha256: str


@dataclass
class RepairAttempt:
    """One attempt: ranges wait in order of key, and findings about a range take its place."""

    compare: Callable[[Sequence[RangeDigest], str], Any]
    store: Store
    range_rows: int
    result: Repaired = field(default_factory=Repaired)
    state: str = ""
    waiting: deque[RangeDigest | _Unlike] = field(default_factory=deque)
    deletes: list[str] = field(default_factory=list)

    def run(self) -> Repaired:
        start: str | None = ""
        while start is not None:
            start = self._read_store(start)
            while batch := self._batch():
                self._take(batch, self._ask(batch))
            self._apply((), ())
        return self.result

    def _read_store(self, start: str) -> str | None:
        """Put ranges of the store into the queue; return where the rest begins, None at the end.

        A range ends where the next one begins, so that together they cover all keys.
        """
        records = iter(self.store.digests(start, ""))
        ranges: list[RangeDigest] = []
        while len(ranges) < CALL_RANGES:
            some = list(islice(records, self.range_rows))
            if not some and ranges:
                break
            begin = some[0][0] if ranges else start
            if ranges:
                ranges[-1].end_key = begin
            ranges.append(_digest_only(begin, "", some))
        following = next(records, None)
        if following is not None:
            ranges[-1].end_key = following[0]
        self.waiting.extend(ranges)
        return following[0] if following is not None else None

    def _batch(self) -> list[RangeDigest]:
        """The ranges of the next call, in order of key; looks into those that may differ."""
        batch: list[RangeDigest] = []
        records = 0
        while self.waiting and len(batch) < CALL_RANGES and records < CALL_RECORDS:
            item = self.waiting.popleft()
            if isinstance(item, _Unlike):
                self.waiting.extendleft(reversed(list(self._look_into(item))))
            else:
                batch.append(item)
                records += len(item.records)
        return batch

    def _look_into(self, unlike: _Unlike) -> Iterator[RangeDigest | _Unlike]:
        """What to ask about a range of the hub, in order of key; nothing if the store has the same.

        If the hub has few records there, they are sent one by one; if it has none, the store's are
        deleted.
        """
        kept: list[tuple[str, bytes]] = []
        hashed, count = hashlib.sha256(), 0
        rest = ""
        for key, digest in self.store.digests(unlike.start, unlike.end):
            if count >= KEPT_RECORDS and unlike.rows <= FEW_ROWS:
                rest = key
                break
            if count < KEPT_RECORDS:
                kept.append((key, digest))
            hashed.update(digest)
            count += 1
        if not rest and (count, hashed.hexdigest()) == (unlike.rows, unlike.sha256):
            return
        if not unlike.rows:
            self.deletes += [key for key, _ in kept]
        elif unlike.rows <= FEW_ROWS:
            yield from _split_records(unlike.start, rest or unlike.end, kept)
        else:
            yield RangeDigest(
                start_key=unlike.start,
                end_key=unlike.end,
                row_count=count,
                sha256=hashed.hexdigest(),
            )
        if rest:
            yield _Unlike(rest, unlike.end, unlike.rows, "")

    def _ask(self, batch: list[RangeDigest]) -> Any:
        try:
            reply = self.compare(batch, self.state)
        except PenstockError as error:
            if error.reason == "STATE_GONE":
                raise RepairMustRestart(error) from None
            raise
        if self.result.calls and reply.cursor != self.result.cursor:
            another = "the hub compared with another state during the repair"
            raise RepairMustRestart(PenstockError("ABORTED", another, reason="STATE_GONE"))
        if self.result.calls and reply.view != self.result.view:
            changed = "your access has changed during the repair"
            raise RepairMustRestart(PenstockError("ABORTED", changed, reason="VIEW_CHANGED"))
        self.state = reply.state
        self.result.cursor, self.result.view = reply.cursor, reply.view
        self.result.calls += 1
        self.result.compared += reply.row_count
        self.result.byte_count += reply.ByteSize() + sum(r.ByteSize() for r in batch)
        return reply

    def _take(self, batch: list[RangeDigest], reply: Any) -> None:
        """Apply the reply to a call, and queue what to ask next."""
        self._apply(reply.upserts, reply.deletes)
        following: list[RangeDigest | _Unlike] = [
            _Unlike(r.start_key, r.end_key, r.row_count, r.sha256) for r in reply.differing
        ]
        if reply.next_key:
            following += [
                r for r in (_cut_range(r, reply.next_key) for r in batch) if r is not None
            ]
        self.waiting.extendleft(reversed(following))

    def _apply(self, upserts: Sequence[Message], deletes: Sequence[str]) -> None:
        every = [*self.deletes, *deletes]
        self.deletes = []
        if upserts or every:
            self.store.apply(list(upserts), every)
            self.result.upserts += len(upserts)
            self.result.deletes += len(every)


def _digest_only(start: str, end: str, records: Sequence[tuple[str, bytes]]) -> RangeDigest:
    """A range of the store, without its records."""
    return RangeDigest(
        start_key=start,
        end_key=end,
        row_count=len(records),
        sha256=range_digest(digest for _, digest in records),
    )


def _split_records(
    start: str, end: str, records: Sequence[tuple[str, bytes]]
) -> Iterator[RangeDigest]:
    """A range of the store with its records, in pieces that fit in a call."""
    for at in range(0, max(1, len(records)), FEW_ROWS):
        some = records[at : at + FEW_ROWS]
        more = records[at + FEW_ROWS][0] if at + FEW_ROWS < len(records) else end
        piece = _digest_only(start, more, some)
        piece.records.extend(RecordDigest(key=k, sha256=d.hex()) for k, d in some)
        yield piece
        start = more


def _cut_range(range: RangeDigest, key: str) -> RangeDigest | _Unlike | None:
    """The part of a range from ``key`` on, if only the part before it was compared."""
    if range.end_key and range.end_key <= key:
        return None
    if range.start_key >= key:
        return range
    if range.row_count and not range.records:
        # The hub must compute the digest of the rest.
        return _Unlike(key, range.end_key, FEW_ROWS + 1, "")
    left = [r for r in range.records if r.key >= key]
    return RangeDigest(start_key=key, end_key=range.end_key, row_count=len(left), records=left)


def _join_fields(fields: str | Sequence[str]) -> str:
    return fields if isinstance(fields, str) else ",".join(fields)
