"""A feed's reads of large records: exact, and never more at once than a stretch."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import pytest

from access import unrestricted
from chance import SEED
from penstockd.catalog import Catalog, FieldClass
from penstockd.feed import dependents, snapshot_changes
from penstockd.feed.event import Event, EventBatch, FeedOperation
from penstockd.feed.reader import read_events
from penstockd.feed.snapshot_changes import SnapshotFrames
from penstockd.feed.source import FeedSource, Frame
from penstockd.feed.watching import Wanted
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.view import View
from penstockd.store.cursor import Cursor, read_extent, scope_of
from penstockd.store.database import Database
from penstockd.store.log import STRETCH_BYTES
from penstockd.store.sequencer import Sequencer
from penstockd.store.snapshots import Snapshots
from penstockd.store.tables import Tables
from penstockd.store.writer import Mode, Writer
from places import PLACES

LARGE = 450_000
#: A change holds two images, each with a few bytes in addition to the large text.
MOST = STRETCH_BYTES + 2 * (LARGE + 1000)
CLEAR = {c: Mask.CLEAR for c in FieldClass}
ACTIVE = "customer.status = ACTIVE"
_kinds = {FeedOperation.LEFT_VIEW: "left", FeedOperation.ENTERED_VIEW: "entered"}


@dataclass
class Store:
    """A database that measures how much each read returns."""

    database: Database
    catalog: Catalog
    writer: Writer
    sequencer: Sequencer
    tables: Tables
    read: list[int] = field(default_factory=list)

    async def write(self, dataset: str, *rows: dict[str, Any]) -> None:
        """One transaction."""
        known = self.catalog[dataset]
        fields = [known.by_path[path] for path in rows[0]]
        guard = unrestricted(self.catalog, dataset).guard
        async with self.writer.transaction() as transaction:
            values = [list(row.values()) for row in rows]
            await transaction.upsert(known, fields, values, guard, mode=Mode.UPSERT)

    async def snapshot(self, lenses: dict[str, Lens]) -> list[str]:
        """The keys of a snapshot, with which a stream begins."""
        frames = await self.frames(lenses)
        return [key for frame in frames for keys in frame.keys.values() for key in keys]

    async def frames(self, lenses: dict[str, Lens], since: Cursor | None = None) -> list[Frame]:
        """The frames of a snapshot, or what a stream still needs since a place in one."""
        source, snapshots = (
            FeedSource(lenses, PLACES.sequences),
            Snapshots(self.database, seconds=1, most_seconds=60),
        )
        held = await snapshots.take()
        wanted = Wanted([lens.dataset for lens in lenses.values()])
        try:
            async with self.database.snapshot() as connection:
                reading = SnapshotFrames(self.database, self.catalog, source, wanted, held, since)
                return [frame async for frame in reading.each(connection)]
        finally:
            await snapshots.close()

    async def head(self) -> Cursor:
        """The end of the log, with all changes numbered."""
        await self.sequencer.close()
        await self.sequencer.stamp()
        async with self.database.connection() as connection:
            return (await read_extent(connection)).newest

    def lenses(self, **rules: str) -> dict[str, Lens]:
        """A lens that shows everything of some datasets, apart from row rules."""
        grants = {
            d: Grant("r", d, frozenset({Action.READ}), CLEAR, {}, r) for d, r in rules.items()
        }
        return {
            name: Lens(
                View(
                    self.catalog[name],
                    self.catalog,
                    self.tables,
                    [grant],
                    revision=1,
                    mask_key=b"k" * 32,
                    on=[Action.READ],
                ),
                self.catalog,
            )
            for name, grant in grants.items()
        }

    async def batches(
        self, lenses: dict[str, Lens], start: Cursor, end: Cursor | None = None
    ) -> list[EventBatch]:
        """All changes from one cursor to another, or to the newest."""
        end, found = end or await self.head(), []
        while start.place < end.place:
            found.append(await read_events(self.database, self.catalog, lenses, start, end))
            assert found[-1].cursor.place > start.place, "it does not move on"
            start = found[-1].cursor
        return found


@pytest.fixture
async def store(
    catalog: Catalog, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    database = Database(store_url, size=4)
    await database.open()
    sequencer = Sequencer(database)
    writer = Writer(database, sequencer)
    store = Store(database, catalog, writer, sequencer, Tables(catalog))
    for reader in (asyncpg.Connection, asyncpg.cursor.Cursor):
        monkeypatch.setattr(reader, "fetch", counting(reader.fetch, store.read))
    try:
        yield store
    finally:
        await sequencer.close()
        await database.close()


def counting(fetch: Callable[..., Any], read: list[int]) -> Callable[..., Any]:
    """The same read, which also records the size of the result."""

    async def counted(self: Any, *args: Any, **options: Any) -> Any:
        rows = await fetch(self, *args, **options)
        read.append(sum(len(v) for r in rows for v in r if isinstance(v, bytes | str)))
        return rows

    return counted


def events(batches: Sequence[EventBatch]) -> list[Event]:
    return [event for batch in batches for event in batch.events]


def briefs(found: Sequence[Event]) -> list[tuple[str, str, str]]:
    return [(_kinds.get(e.operation, "own"), e.dataset, e.key) for e in found]


def customer(key: str, status: str = "ACTIVE", **more: Any) -> dict[str, Any]:
    return {"customer_id": key, "name": "Large", "status": status, **more}


def talk(key: str, owner: str, body: str | None = None) -> dict[str, Any]:
    return {"interaction_id": key, "customer_id": owner, "body": body}


@pytest.fixture
async def moved(store: Store) -> tuple[Cursor, list[str]]:
    """A customer that leaves and re-enters the View with all its records; the start of that, and
    the keys of its interactions, some of which are large."""
    keys = [f"t{i:02}" for i in range(24)]
    chance = random.Random(SEED)
    large = set(chance.sample(keys, 14))
    await store.write("customers", customer("c"), customer("other"))
    await store.write(
        "interactions",
        *[talk(k, "c", "x" * LARGE if k in large else "small") for k in keys],
    )
    await store.write("interactions", talk("elsewhere", "other", "small"))
    await store.write("orders", *[{"order_id": f"o{i}", "customer_id": "c"} for i in range(3)])
    start = await store.head()
    await store.write("customers", customer("c", "CHURNED"))
    await store.write("interactions", talk(keys[0], "other", "moved while nobody saw it"))
    await store.write("customers", customer("c"), customer("other", name="Renamed"))
    # The feed shows it as it was then, not as it is now.
    await store.write("interactions", *[talk(k, "other", "y" * LARGE) for k in keys[10:16]])
    store.read.clear()
    return start, keys


def expected(keys: Sequence[str]) -> list[tuple[str, str, str]]:
    orders = ["o0", "o1", "o2"]
    return [
        ("left", "customers", "c"),
        *[("left", "interactions", k) for k in keys],
        *[("left", "orders", k) for k in orders],
        ("entered", "interactions", keys[0]),
        ("entered", "customers", "c"),
        ("own", "customers", "other"),
        *[("entered", "interactions", k) for k in keys[1:]],
        *[("entered", "orders", k) for k in orders],
        *[("own", "interactions", k) for k in keys[10:16]],
    ]


def all_lenses(store: Store) -> dict[str, Lens]:
    return store.lenses(customers="status = ACTIVE", interactions=ACTIVE, orders=ACTIVE)


async def test_it_is_read_in_pieces(store: Store, moved: tuple[Cursor, list[str]]) -> None:
    start, keys = moved
    batches = await store.batches(all_lenses(store), start)
    assert briefs(events(batches)) == expected(keys)
    assert max(store.read) <= MOST
    sizes = [sum(e.size for e in b.events) for b in batches]
    assert max(sizes) <= MOST and sum(sizes) > 5 * MOST
    # A chunk that ends within a transaction is not a checkpoint.
    within = [b for b in batches if b.cursor.told is not None]
    assert len(within) >= 4 and not any(b.whole for b in within)
    assert all(b.whole for b in batches if b.cursor.told is None and not b.more)
    numbers = [e.number for e in events(batches)]
    assert numbers == sorted(numbers)


async def test_each_piece_can_be_resumed_by_the_text_of_its_cursor(
    store: Store, moved: tuple[Cursor, list[str]]
) -> None:
    start, _ = moved
    lenses = all_lenses(store)
    batches = await store.batches(lenses, start)
    everything, given = events(batches), 0
    for batch in batches:
        given += len(batch.events)
        again = await store.batches(lenses, Cursor.parse(batch.cursor.stored))
        assert events(again) == everything[given:]
        # Earlier reads end exactly there, however they are divided.
        before = await store.batches(lenses, start, batch.cursor)
        assert events(before) == everything[:given]
        assert before[-1].cursor == batch.cursor


async def test_a_transaction_that_changed_too_many_to_name(
    store: Store, moved: tuple[Cursor, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, keys = moved
    monkeypatch.setattr(dependents, "CAUSE_BYTES", 10)
    monkeypatch.setattr(dependents, "KEYS", 5)
    assert briefs(events(await store.batches(all_lenses(store), start))) == expected(keys)


async def test_what_rules_read_is_bounded_too(store: Store) -> None:
    """For each interaction the rule reads the customer's notes, both the earlier and the current
    ones."""
    names = [f"c{i:02}" for i in range(20)]
    notes = "n" * LARGE
    await store.write("customers", *[customer(n, notes=notes) for n in names])
    start = await store.head()
    await store.write("interactions", *[talk(f"t-{n}", n) for n in names])
    await store.write("customers", *[customer(n, notes="!" + notes) for n in names[:10]])
    store.read.clear()
    found = events(await store.batches(store.lenses(interactions='customer.notes = "n*"'), start))
    told = [f"t-{n}" for n in names]
    assert [(e.operation, e.key) for e in found] == [
        *[(FeedOperation.CREATED, key) for key in told],
        *[(FeedOperation.LEFT_VIEW, key) for key in told[:10]],
    ]
    assert max(store.read) <= MOST


@pytest.mark.parametrize("first", [0, 19, 25, 90])
async def test_a_snapshot_whose_records_turn_large(store: Store, first: int) -> None:
    """``first``: the first large record of 120; small ones follow."""
    keys = [f"c{i:03}" for i in range(120)]
    large = range(first, first + 14)
    notes = ["n" * LARGE if i in large else "n" for i in range(len(keys))]
    await store.write(
        "customers", *[customer(k, notes=n) for k, n in zip(keys, notes, strict=True)]
    )
    store.read.clear()
    assert await store.snapshot(store.lenses(customers="")) == keys
    assert max(store.read) <= MOST
    assert sum(size > 1000 for size in store.read) < 10


async def test_a_snapshot_that_goes_on_moves_on_in_a_log_without_news(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stride has a place, so that a client that is cut off goes on from there."""
    monkeypatch.setattr(snapshot_changes, "STRIDE", 10)
    lenses = store.lenses(customers="")
    await store.write("customers", *[customer(f"c{i}") for i in range(3)])
    await store.head()
    first = next(f.place for f in await store.frames(lenses) if f.place is not None)
    since = replace(first, last=("customers", "c0"), scope=scope_of(lenses))
    await store.write("customers", customer("c0", name="Renamed"))
    for i in range(25):
        await store.write("interactions", talk(f"t{i}", "c0", "small"))
    await store.write("customers", customer("c2", name="Later"))
    head = await store.head()
    found = await store.frames(lenses, since)
    told = [(f.count, f.place.number) for f in found if f.place is not None]
    start = since.number
    moves = [(1, start + 10), (0, start + 20), (0, head.number)]
    assert head.number == start + 27
    assert told[:3] == moves and sum(count for count, _ in told) == 3
    assert [f.ends for f in found if not f.count] == [True, True]
    again = await store.frames(lenses, found[1].place)
    assert [f.keys for f in again] == [f.keys for f in found[2:]]
