"""Negative controls of the validator: it finds each fault that is put into a feed."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from chance import SEED
from faults.streams import Judge
from faults.validator import Broken, FeedValidator, State, Write
from penstock.hub.v1.changes_pb2 import WatchChangesResponse
from penstock.model.v1.customers_pb2 import Customer
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.store.cursor import Ahead, Cursor
from penstockd.store.log import Change
from penstockd.store.writer import Operation
from places import PLACES

TIME = dt.datetime(2024, 2, 29, tzinfo=dt.UTC)

#: A feed: changes, and checkpoints, as bare numbers for positions in the log.
Feed = list[Change | int | Ahead]


@dataclass
class Story:
    """A correct feed, the table that it makes, and the writes behind it."""

    feed: Feed
    table: State
    writes: list[Write]

    @property
    def marks(self) -> dict[int, bytes]:
        """The log's marks, by the last numbers of transactions."""
        return {c.transaction: mark_at(c.transaction) for c in self.changes}

    @property
    def changes(self) -> list[Change]:
        return [c for c in self.feed if isinstance(c, Change)]


def mark_at(number: int) -> bytes:
    """The log's mark at a number."""
    return number.to_bytes(8)


def place_of(item: int | Ahead) -> tuple[int, bytes]:
    """The number and mark of a checkpoint."""
    return (item, mark_at(item)) if isinstance(item, int) else (item.revision, item.mark)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(find_descriptors())


def tell(chance: random.Random, transactions: int = 60) -> Story:
    """Make transactions of one to four changes over ten contended keys."""
    feed: Feed = []
    table: State = {}
    writes = []
    number = 0
    for revision in range(1, transactions + 1):
        keys = chance.sample([f"k{i}" for i in range(10)], chance.randint(1, 4))
        last = number + len(keys)
        for key in keys:
            number += 1
            before = table.get(("customers", key))
            if before is not None and chance.random() < 0.2:
                operation, after, mark = Operation.DELETED, None, ""
                del table["customers", key]
            else:
                operation = Operation.UPDATED if before else Operation.CREATED
                mark = f"w{number}"
                record = Customer(customer_id=key, source_id=mark, etag=str(revision))
                after = record.SerializeToString(deterministic=True)
                table["customers", key] = after
            change = Change(number, last, "customers", key, operation, before, after, TIME)
            feed.append(change)
            writes.append(Write("customers", key, mark))
        feed.append(last)
    return Story(feed, table, writes)


def judge(catalog: Catalog, story: Story, feed: Feed) -> set[Broken]:
    validator = FeedValidator(catalog)
    for item in feed:
        if isinstance(item, Change):
            validator.change(item)
        else:
            validator.checkpoint(*place_of(item))
    validator.finish(story.table, story.writes, story.writes, story.marks)
    return {fault.broken for fault in validator.faults}


def streamed(catalog: Catalog, story: Story, feed: Feed) -> set[Broken]:
    """The feed as messages of a stream, each with changes followed by its checkpoint."""
    judge = Judge(FeedValidator(catalog), PLACES.seal(Cursor("e", 0)))
    message = WatchChangesResponse()
    for item in feed:
        if not isinstance(item, Change):
            number, mark = place_of(item)
            message.checkpoint.cursor = PLACES.seal(Cursor("e", number, mark=mark))
            judge.message(message)
            message = WatchChangesResponse()
            continue
        add_change(message, item)
    judge.message(message)
    judge.validator.finish(story.table, story.writes, story.writes, story.marks)
    return {fault.broken for fault in judge.validator.faults}


def add_change(message: WatchChangesResponse, item: Change) -> None:
    """Put an entry of the log into a message, as the hub does."""
    change = message.changes.add(
        operation=int(item.operation),
        key=item.key,
        dataset=item.dataset,
        transaction_id=PLACES.sequences.transaction(item.transaction),
        sequence=PLACES.sequences.sequence(item.number),
    )
    if item.before is not None:
        change.before.value = item.before
    if item.after is not None:
        change.after.value = item.after


def numbered(changes: list[Change]) -> Feed:
    """The same changes with new numbers, without a gap, transaction by transaction."""
    sizes: dict[int, int] = {}
    for change in changes:
        sizes[change.transaction] = sizes.get(change.transaction, 0) + 1
    feed: Feed = []
    for number, change in enumerate(changes, 1):
        last = sum(size for first, size in sizes.items() if first <= change.transaction)
        feed.append(replace(change, number=number, transaction=last))
        if number == last:
            feed.append(last)
    return feed


def naive_cursor(story: Story, chance: random.Random) -> Feed:
    """A reader of ``seq > cursor`` misses a transaction that had its numbers but was not
    committed."""
    transactions = sorted({c.transaction for c in story.changes})
    late = chance.choice(transactions[:-1])
    return [c for c in story.feed if (c.transaction if isinstance(c, Change) else c) != late]


def drop(story: Story, chance: random.Random) -> Feed:
    lost = chance.choice(story.changes[:-1])
    return [c for c in story.feed if c is not lost]


def duplicate(story: Story, chance: random.Random) -> Feed:
    at = story.feed.index(chance.choice(story.changes))
    return [*story.feed[: at + 1], *story.feed[at:]]


def swap(story: Story, chance: random.Random) -> Feed:
    """Two changes of one record in the wrong order, with numbers in the right order."""
    changes = story.changes
    pairs = [
        (i, j)
        for i, one in enumerate(changes)
        for j, two in enumerate(changes[i + 1 :], i + 1)
        if one.key == two.key and one.transaction != two.transaction
    ]
    i, j = chance.choice(pairs)
    one, two = changes[i], changes[j]
    changes[i] = replace(two, number=one.number, transaction=one.transaction)
    changes[j] = replace(one, number=two.number, transaction=two.transaction)
    return list(changes)


def split_transaction(story: Story, chance: random.Random) -> Feed:
    """One transaction delivered as two, each of which looks complete."""
    sizes: dict[int, list[Change]] = {}
    for change in story.changes:
        sizes.setdefault(change.transaction, []).append(change)
    able = [c for c in sizes.values() if sum(x.after is not None for x in c) > 1]
    chosen = chance.choice(able)
    cut = next(i for i, c in enumerate(chosen) if c.after is not None) + 1
    first = chosen[:cut]
    last = first[-1].number
    feed: Feed = []
    for item in story.feed:
        if isinstance(item, Change) and item in first:
            feed.append(replace(item, transaction=last))
            if item.number == last:
                feed.append(last)
        else:
            feed.append(item)
    return feed


def early_checkpoint(story: Story, chance: random.Random) -> Feed:
    """The cursor moves on before the rest of a transaction is delivered."""
    amid = chance.choice([c for c in story.changes if c.number < c.transaction])
    at = story.feed.index(amid)
    return [*story.feed[: at + 1], amid.number, *story.feed[at + 1 :]]


def promised_checkpoint(story: Story, chance: random.Random) -> Feed:
    """The cursor moves on to a transaction of which nothing was delivered."""
    at = chance.choice([i for i, c in enumerate(story.feed) if isinstance(c, int)][:-1])
    following = next(c for c in story.feed[at + 1 :] if isinstance(c, int))
    return [*story.feed[:at], following, *story.feed[at + 1 :]]


def stale_before_image(story: Story, chance: random.Random) -> Feed:
    images: dict[str, list[bytes]] = {}
    stale = []
    for change in story.changes:
        older = [i for i in images.get(change.key, []) if i != change.before]
        if change.before is not None and older:
            stale.append((change, older[-1]))
        if change.after is not None:
            images.setdefault(change.key, []).append(change.after)
    chosen, image = chance.choice(stale)
    return [replace(c, before=image) if c is chosen else c for c in story.feed]


def silent_compaction(story: Story, chance: random.Random) -> Feed:
    """Two updates of a record merged into one, and all later numbers and images adjusted."""
    changes = story.changes
    pairs = []
    for i, one in enumerate(changes):
        later = next((c for c in changes[i + 1 :] if c.key == one.key), None)
        if one.after is not None and later is not None and later.after is not None:
            pairs.append((one, later))
    first, second = chance.choice(pairs)
    kept = []
    for change in changes:
        if change is second:
            change = replace(change, before=first.before, operation=first.operation)
        if change is not first:
            kept.append(change)
    return numbered(kept)


def aliased_cursor(story: Story, chance: random.Random) -> Feed:
    """A cursor of an undone future is accepted after the log has passed its number again; the
    changes before the return and after it happen to fit together."""
    at = chance.choice([i for i, c in enumerate(story.feed) if isinstance(c, int)])
    number = story.feed[at]
    assert isinstance(number, int)
    return [*story.feed[:at], Ahead(number, chance.randbytes(8)), *story.feed[at + 1 :]]


SEEDED: dict[Callable[[Story, random.Random], Feed], Broken] = {
    naive_cursor: Broken.GAP,
    drop: Broken.GAP,
    duplicate: Broken.ORDER,
    swap: Broken.IMAGE,
    split_transaction: Broken.ATOMICITY,
    early_checkpoint: Broken.CHECKPOINT,
    promised_checkpoint: Broken.CHECKPOINT,
    stale_before_image: Broken.IMAGE,
    silent_compaction: Broken.LOST,
    aliased_cursor: Broken.ALIAS,
}


def test_a_feed_that_is_right_has_no_fault(catalog: Catalog) -> None:
    print(f"seed {SEED}")
    story = tell(random.Random(SEED))
    assert judge(catalog, story, story.feed) == set()
    assert judge(catalog, story, numbered(story.changes)) == set()
    assert streamed(catalog, story, story.feed) == set()


@pytest.mark.parametrize("fault", SEEDED, ids=lambda f: f.__name__)
def test_a_seeded_fault_is_found(
    catalog: Catalog, fault: Callable[[Story, random.Random], Feed]
) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for _ in range(20):
        story = tell(chance)
        faulty = fault(story, chance)
        assert SEEDED[fault] in judge(catalog, story, faulty)
        assert SEEDED[fault] in streamed(catalog, story, faulty)


def test_what_comes_again_after_a_reconnection_is_passed_over(catalog: Catalog) -> None:
    """Changes since the last checkpoint may be repeated; earlier ones may not."""
    story = tell(random.Random(SEED))
    judge = Judge(FeedValidator(catalog), PLACES.seal(Cursor("e", 0)))
    wholes = [c for c in story.changes if c.number == c.transaction]
    first, second = wholes[3].number, wholes[4].number

    def give(after: int, upto: int) -> None:
        message = WatchChangesResponse()
        for item in story.changes:
            if after < item.number <= upto:
                add_change(message, item)
        judge.message(message)

    give(0, first)
    judge.checkpoint(PLACES.seal(Cursor("e", first)))
    give(first, second)
    judge.again()
    give(first, second)
    assert not judge.validator.faults and judge.repeated == second - first
    judge.again()
    give(first - 1, second)
    assert {f.broken for f in judge.validator.faults} == {Broken.CHECKPOINT}


def test_what_nobody_wrote_and_what_is_not_in_the_table_is_found(catalog: Catalog) -> None:
    story = tell(random.Random(SEED))
    phantom = Story(story.feed, story.table, story.writes[:-1])
    assert judge(catalog, phantom, story.feed) == {Broken.PHANTOM}
    story.table.popitem()
    assert judge(catalog, story, story.feed) == {Broken.STATE}


def test_a_feed_that_ends_amid_a_transaction_is_found(catalog: Catalog) -> None:
    story = tell(random.Random(SEED))
    end = next(i for i, c in enumerate(story.feed) if isinstance(c, Change) and c.number > 100)
    amid = next(
        i
        for i, c in enumerate(story.feed[end:], end)
        if isinstance(c, Change) and c.number < c.transaction
    )
    assert Broken.ATOMICITY in judge(catalog, story, story.feed[: amid + 1])
