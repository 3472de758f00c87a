"""Records in the audit which records a feed delivers, before it delivers them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from penstockd.audit.given import GivenRecords, given_records
from penstockd.budget import shared_task
from penstockd.calls import Call, Permit
from penstockd.feed.source import Block, FeedSource

#: Streams of one consumer that see the same share the entry of a block if it reaches them within
#: this many seconds. The entry names the first stream; later its time would not fit the others.
SHARED_SECONDS = 5.0


class FeedDisclosure:
    """Discloses what one stream or poll of changes delivers: exact keys, by dataset."""

    def __init__(self, call: Call, source: FeedSource) -> None:
        self._call = call
        self._clock = asyncio.get_running_loop().time
        self._rules = {
            name: call.rule(lens.view, lens.rule_fields) for name, lens in source.lenses.items()
        }
        if len(self._rules) == 1:
            (call.entry.shown,) = self._rules.values()
        entry = call.entry
        # Streams share the entry of a block only if all of this is equal.
        self._shares = (
            *(entry.consumer_id, entry.credential_id, entry.method, entry.policy_revision),
            *sorted(self._rules.items()),
        )

    async def records(self, keys: Mapping[str, Sequence[str]]) -> Permit:
        """Return once it is durable that these records, by dataset, are delivered.

        Raises DatabaseUnavailable.
        """
        return await self._call.disclose_part(*self._list_given(keys))

    async def blocks(self, blocks: Sequence[Block]) -> Permit:
        """The same for the blocks of one reply."""
        return await self.records(_join_keys([frame.keys for b in blocks for frame in b.frames]))

    async def block(self, block: Block) -> Permit:
        """The same for a block that other streams share (see ``SHARED_SECONDS``)."""
        permit = await self._call.permit(block.count)
        await asyncio.shield(self.begin(block))
        return permit

    def begin(self, block: Block) -> asyncio.Task[None]:
        """Start to make the next block durable.

        It may wait for the disk while the previous block is being sent.
        """
        shared: dict[object, _Shared] = block.shared.setdefault("disclosed", {})
        known = shared.get(self._shares)
        if known is None or known.outdated(self._clock()):
            keys = _join_keys([frame.keys for frame in block.frames])
            writing = self._call.write_parts(self._list_given(keys))
            known = _Shared(self._clock(), shared_task(writing))
            known.task.add_done_callback(_retrieve_error)
            shared[self._shares] = known
        return known.task

    def _list_given(self, keys: Mapping[str, Sequence[str]]) -> list[GivenRecords]:
        return [given_records(name, self._rules[name], found) for name, found in keys.items()]


class _Shared(NamedTuple):
    """The time at which the writing of a block's entries began, and its task."""

    time: float
    task: asyncio.Task[None]

    def outdated(self, now: float) -> bool:
        if not self.task.done():
            return False
        failed = self.task.cancelled() or self.task.exception() is not None
        return failed or now - self.time > SHARED_SECONDS


def _join_keys(frames: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """The keys of several frames, by dataset, each once."""
    found: dict[str, dict[str, None]] = {}
    for keys in frames:
        for dataset, more in keys.items():
            found.setdefault(dataset, {}).update(dict.fromkeys(more))
    return {dataset: list(keys) for dataset, keys in found.items()}


def _retrieve_error(task: asyncio.Task[None]) -> None:
    """Mark the task's error as seen: it reaches those that wait for the task; nobody else needs
    it."""
    if not task.cancelled():
        task.exception()
