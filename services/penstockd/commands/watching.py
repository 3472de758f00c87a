"""What streams and polls of changes have in common: whose View, and which records it gave out."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from penstockd.audit.keys import page_keys
from penstockd.audit.shown import Shown
from penstockd.catalog import Dataset
from penstockd.commands.context import Call, Hub
from penstockd.errors import (
    AccessChanged,
    AccessRevoked,
    CursorExpired,
    CursorInvalid,
    PermissionDenied,
    SubscriptionNotFound,
    ValueInvalid,
    ViewChanged,
    Violation,
)
from penstockd.feed.event import Operation, Reconcile
from penstockd.feed.source import Block, Source
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action
from penstockd.policy.standing import Standing

#: The most changes in one message or page.
MAX_CHANGES = 5000
#: So many keys are noted in the audit at a time.
PART_KEYS = 5000
#: A block of so many is noted by itself.
BLOCK_KEYS = 500
#: Bytes of blocks that wait to be noted.
HELD_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which changes a caller asks for. ``batch_size`` 0 means ``usual``."""

    datasets: Sequence[Dataset]
    mixed: bool = False
    filter: str = ""
    fields: str = ""
    operations: Sequence[int] = ()
    batch_size: int = 0
    include_before: bool = False
    transaction_boundaries: bool = False

    def source(self, hub: Hub, call: Call, usual: int) -> Source:
        """The source of these changes in the caller's Views.

        Raises PermissionDenied, FieldUnknown, FilterInvalid and ValueInvalid.
        """
        if not 0 <= self.batch_size <= MAX_CHANGES:
            raise _invalid("batch_size", f"must be from 1 to {MAX_CHANGES}")
        known = {int(o) for o in Operation}
        if not set(self.operations) <= known:
            raise _invalid("operations", "is not an operation")
        call.asked(
            filter=self.filter,
            fields=self.fields,
            datasets=[d.name for d in self.datasets] if self.mixed else [],
        )
        lenses = {
            d.name: Lens(
                call.view(d, Action.READ), hub.catalog, fields=self.fields, filter=self.filter
            )
            for d in self.datasets
        }
        return Source(
            lenses,
            mixed=self.mixed,
            include_before=self.include_before,
            operations=frozenset(map(Operation, self.operations)),
            batch_size=self.batch_size or usual,
            transaction_boundaries=self.transaction_boundaries,
        )


def reconcile_of(error: BaseException) -> Reconcile:
    """What a client is to do when its stream ends with an error."""
    if isinstance(error, AccessRevoked | SubscriptionNotFound):
        return Reconcile.STOP
    if isinstance(error, AccessChanged | ViewChanged | CursorExpired | CursorInvalid):
        return Reconcile.REPAIR
    return Reconcile.RESUME


def readable(hub: Hub, call: Call, names: Sequence[str]) -> Sequence[Dataset]:
    """The datasets of these names, or all that the caller may read. Raises PermissionDenied."""
    assert call.principal is not None, "the auth interceptor lets nobody in without one"
    if not names:
        found = []
        for dataset in hub.catalog:
            view = call.policy.visible(call.principal, dataset.name)
            if view is not None and view.allows(Action.READ):
                found.append(dataset)
        if not found:
            raise PermissionDenied("you may not read any dataset")
        return found
    for name in names:
        # The same whether the dataset exists or not.
        call.policy.view(call.principal, name, Action.READ)
    return [hub.catalog[name] for name in dict.fromkeys(names)]


class Narrowing(Protocol):
    """How a caller narrows its View of a dataset, as it wrote it."""

    @property
    def filter(self) -> str:
        """Which records (AIP-160)."""

    @property
    def fields(self) -> str:
        """Which fields."""


class Standings:
    """Whether what a stream or a poll began with still holds, in all its datasets."""

    def __init__(self, hub: Hub, call: Call, narrowed: Narrowing, source: Source) -> None:
        assert call.principal is not None, "the auth interceptor lets nobody in without one"
        self._hub, self._narrowed = hub, narrowed
        self._standings = [
            (Standing(hub.policy, call.policy, call.principal, lens.view), lens)
            for lens in source.lenses.values()
        ]
        self._looked = call.policy.revision

    def check(self) -> int:
        """The revision of the policy, by which all is as it was.

        Raises AccessRevoked, AccessChanged, ViewChanged or PolicyStale if it may not go on.
        """
        revision = self._hub.policy.current.revision
        if revision == self._looked:
            return revision
        for standing, lens in self._standings:
            standing.check()
            if standing.view is not lens.view:
                now = Lens(
                    standing.view,
                    self._hub.catalog,
                    fields=self._narrowed.fields,
                    filter=self._narrowed.filter,
                )
                if now.view_id != lens.view_id:
                    raise ViewChanged(f"what you may see of {lens.dataset.name} has changed")
        self._looked = revision
        return revision


@dataclass
class Disclosed:
    """The records that a reply gives out, for the audit: exact keys, by dataset."""

    hub: Hub
    call: Call
    source: Source
    _keys: dict[str, set[str]] = field(default_factory=dict)
    _blocks: list[Block] = field(default_factory=list)
    _count: int = 0
    _bytes: int = 0
    _shown: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, lens in self.source.lenses.items():
            fields = ",".join(f.path for f in lens.fields)
            self._shown[name] = self.hub.journal.introduce(lens.view.prepared(Shown, fields))
        if len(self.source.lenses) == 1:
            ((_, self.call.entry.shown),) = self._shown.items()

    def add(self, keys: Mapping[str, Sequence[str]]) -> None:
        """Records that are given out, by dataset."""
        for dataset, more in keys.items():
            self._count += len(more)
            self._keys.setdefault(dataset, set()).update(more)

    def add_block(self, block: Block) -> None:
        """The same for all of a block; large ones are noted as they are, once for all readers."""
        if block.count < BLOCK_KEYS:
            for frame in block.frames:
                self.add(frame.keys)
        else:
            self._count += block.count
            self._bytes += block.size
            self._blocks.append(block)

    @property
    def full(self) -> bool:
        """Whether there are enough for an entry."""
        return self._count >= PART_KEYS or self._bytes >= HELD_BYTES

    async def flush(self) -> None:
        """Make what has been given out durable in the audit. Raises DatabaseUnavailable."""
        given, self._keys = self._keys, {}
        blocks, self._blocks = self._blocks, []
        self._count = self._bytes = 0
        parts = [(dataset, _part(keys)) for dataset, keys in given.items()]
        for block in blocks:
            parts += _block_parts(block).items()
        await asyncio.gather(*(self._note(dataset, part) for dataset, part in parts))

    async def _note(self, dataset: str, part: _Part) -> None:
        low, high, keys = part
        entry = replace(
            self.call.entry.part(keys),
            dataset=dataset,
            shown=self._shown[dataset],
            low_key=low,
            high_key=high,
        )
        await self.hub.journal.record(entry)


#: The lowest and the highest of some keys, and all of them as the audit has them.
_Part = tuple[str, str, bytes | None]


def _part(keys: Collection[str]) -> _Part:
    return min(keys), max(keys), page_keys(sorted(keys))


def _block_parts(block: Block) -> Mapping[str, _Part]:
    """The keys of a block by dataset, put together once."""
    found: dict[str, _Part] | None = block.shared.get("keys")
    if found is None:
        keys: dict[str, set[str]] = {}
        for frame in block.frames:
            for dataset, more in frame.keys.items():
                keys.setdefault(dataset, set()).update(more)
        found = block.shared["keys"] = {d: _part(k) for d, k in keys.items()}
    return found


def _invalid(name: str, problem: str) -> ValueInvalid:
    return ValueInvalid(f"{name} {problem}", violations=[Violation(name, problem)])
