"""R4: the log drops its oldest changes; a consumer that returns too late is told so, and never gets
a part.

PENSTOCK_R4_RESUMES sets the size, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from chance import SEED
from feeds import Told, at, caught_up, here, number, pages, patch, put, watch
from harness import RunningHub
from penstockd.feed.retention import LogRetention
from penstockd.store.database import Database

pytestmark = pytest.mark.lane("faults/own_hub")

RESUMES = int(os.environ.get("PENSTOCK_R4_RESUMES", "200"))
THREADS = 8
#: Transactions of one to five changes; the log keeps about the younger half.
TRANSACTIONS = 120


def oldest(error: Any) -> int:
    """The place that an error names as the oldest usable one."""
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert any(d.Unpack(info) for d in status.details)
    assert (error.code(), info.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
    return number(info.metadata["oldest"])


def resume(hub: RunningHub, place: int, head: int, *, streams: bool) -> list[Told] | int:
    """The changes after a place, or after the oldest place that the log keeps."""
    try:
        if streams:
            return caught_up(hub, "admin", "", at(hub, place), head)
        return [e for p in pages(hub, "admin", "", at(hub, place), head, page_size=40) for e in p]
    except grpc.RpcError as error:
        return oldest(error)


@pytest.fixture(scope="module")
def history(breakable: RunningHub) -> tuple[int, int, list[Told]]:
    """The start and the end of a history of some hundred changes, and all of the changes."""
    hub = breakable
    hub.mend()
    chance = random.Random(f"{SEED}-history")
    prefix, start = f"t-{uuid.uuid4().hex[:8]}", hub.head()
    for _ in range(TRANSACTIONS):
        keys = chance.sample([f"{prefix}-{i}" for i in range(20)], chance.randint(1, 5))
        put(hub, "customers", *[{"customerId": k, "name": uuid.uuid4().hex} for k in keys])
    head = hub.head()
    return start, head, caught_up(hub, "admin", "", at(hub, start), head)


def test_a_suffix_is_exact_or_refused(
    own_hub: RunningHub, history: tuple[int, int, list[Told]]
) -> None:
    hub, (start, head, events) = own_hub, history
    chance = random.Random(SEED)
    outcomes: Counter[str] = Counter()
    pruned, lock = [start], threading.Lock()
    last = start + (head - start) // 2

    def one(turn: int) -> None:
        with lock:
            before = pruned[0]
            place = chance.randint(max(0, before - 60), before + 60)
            if turn % 4 == 0 and before < last:
                hub.sql("SELECT hub.prune_log($1)", min(last, before + chance.randint(1, 12)))
                pruned[0] = hub.sql("SELECT oldest_number FROM hub.log_head")[0][0]
        found = resume(hub, place, head, streams=turn % 2 == 0)
        if isinstance(found, int):
            outcomes["refused"] += 1
            assert place < found <= hub.sql("SELECT oldest_number FROM hub.log_head")[0][0]
            # The place that it names is usable, unless the log has moved on meanwhile.
            again = resume(hub, found, head, streams=turn % 2 == 1)
            assert again == [e for e in events if e.sequence > found] or isinstance(again, int)
        else:
            outcomes["resumed"] += 1
            known = [e for e in found if e.sequence > start]
            assert known == [e for e in events if e.sequence > place], place
            assert [e.sequence for e in found] == list(range(place + 1, head + 1))

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(one, turn) for turn in range(RESUMES)]:
            done.result()
    print(f"seed {SEED}: {RESUMES} resumes, {dict(outcomes)}, pruned {pruned[0] - start}")
    assert min(outcomes["refused"], outcomes["resumed"]) >= RESUMES // 20
    assert pruned[0] > start


def test_a_naive_reader_would_get_a_part(
    own_hub: RunningHub, history: tuple[int, int, list[Told]]
) -> None:
    """Negative control: the rest of the log after an expired cursor is not the complete suffix."""
    start, head, events = history
    hub = own_hub
    hub.sql("SELECT hub.prune_log($1)", start + (head - start) // 3)
    gone = hub.sql("SELECT oldest_number FROM hub.log_head")[0][0]
    assert gone > start
    left = hub.sql(
        "SELECT t.first_number + c.ordinal FROM hub.change AS c JOIN hub.log_transaction AS t"
        " USING (revision) WHERE t.first_number + c.ordinal > $1",
        start,
    )
    assert 0 < len(left) < len([e for e in events if e.sequence > start])
    with pytest.raises(grpc.RpcError) as raised:
        caught_up(hub, "admin", "", at(hub, gone - 1), head)
    assert oldest(raised.value) == gone
    assert caught_up(hub, "admin", "", at(hub, gone), head) == [
        e for e in events if e.sequence > gone
    ]


def test_a_stream_that_is_open_goes_on(own_hub: RunningHub) -> None:
    """The log is pruned to its end behind a stream that has read it."""
    hub, one = own_hub, f"t-{uuid.uuid4().hex[:12]}"
    with watch(hub, "admin", "customers", cursor=here(hub)) as stream:
        put(hub, "customers", {"customerId": one, "name": "a"})
        head = hub.head()
        stream.to(head)
        hub.sql("SELECT hub.prune_log($1)", head)
        patch(hub, "customers", one, name="b")
        assert [e.brief for e in stream.to(hub.head())] == [("CREATED", one), ("UPDATED", one)]


async def prune(dsn: str, hours: float) -> int:
    """The keeper's regular pruning, with another age."""
    database = Database(dsn, size=1)
    await database.open()
    try:
        return await LogRetention(database, hours).prune()  # type: ignore[arg-type]  # of less than an hour
    finally:
        await database.close()


def days(hub: RunningHub) -> set[str]:
    """The days of the log's partitions."""
    return {
        name[-8:]
        for (name,) in hub.sql(
            "SELECT c.relname FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid"
            " WHERE inhparent = 'hub.change'::regclass AND c.relname <> 'change_default'"
        )
    }


@pytest.fixture
def aged(own_hub: RunningHub) -> Iterator[tuple[int, str]]:
    """The whole log so far is ten days old; returns its end, and the day of its partition."""
    hub, day = own_hub, dt.datetime.now(dt.UTC).date() - dt.timedelta(days=10)
    name = f"{day:%Y%m%d}"
    one = f"t-{uuid.uuid4().hex[:12]}"
    put(hub, "customers", {"customerId": one, "name": "old"})
    end = hub.head()
    hub.sql(
        f"CREATE TABLE hub.change_{name} PARTITION OF hub.change"
        f" FOR VALUES FROM ('{day}') TO ('{day + dt.timedelta(days=1)}')"
    )
    hub.sql(f"UPDATE hub.change SET day = '{day}'")
    hub.sql(
        "UPDATE hub.log_transaction"
        f" SET day = '{day}', stamp_time = stamp_time - '10 days'::interval"
    )
    yield end, name


def test_what_is_old_goes_with_its_partition(own_hub: RunningHub, aged: tuple[int, str]) -> None:
    hub, (end, day) = own_hub, aged
    one = f"t-{uuid.uuid4().hex[:12]}"
    put(hub, "customers", {"customerId": one, "name": "young"})
    head = hub.head()
    with watch(hub, "admin", "customers", cursor=at(hub, end)) as stream:
        assert [e.brief for e in stream.to(head)] == [("CREATED", one)]
        assert day in days(hub)
        assert asyncio.run(prune(hub.dsn, 11 * 24)) == 0  # no change is that old
        assert asyncio.run(prune(hub.dsn, 168)) > 0
        assert day not in days(hub)
        assert hub.sql("SELECT oldest_number FROM hub.log_head") == [(end,)]
        assert asyncio.run(prune(hub.dsn, 168)) == 0
        # All young changes are there, for new streams and for open ones.
        assert [e.brief for e in caught_up(hub, "admin", "customers", at(hub, end), head)] == [
            ("CREATED", one)
        ]
        patch(hub, "customers", one, name="younger")
        assert stream.to(hub.head())[-1].brief == ("UPDATED", one)
    with pytest.raises(grpc.RpcError) as raised:
        caught_up(hub, "admin", "customers", at(hub, end - 1), head)
    assert oldest(raised.value) == end
    # The tables are the log's compacted form: a snapshot is always available.
    with watch(hub, "admin", "customers", snapshot=True, filter=f'customer_id = "{one}"') as new:
        new.until(lambda: new.marks)
        assert [e.brief for e in new.events] == [("SNAPSHOT", one)]


def test_the_catalog_says_how_far_back_the_log_goes(own_hub: RunningHub) -> None:
    hub = own_hub
    put(hub, "customers", {"customerId": f"t-{uuid.uuid4().hex[:12]}", "name": "a"})
    head = hub.head()
    hub.sql("SELECT hub.prune_log($1)", head - 1)

    log = hub.get("/v1/changes:log").json()
    assert number(log["newestCursor"]) == head
    oldest_number = hub.sql("SELECT oldest_number FROM hub.log_head")[0][0]
    assert number(log["oldestCursor"]) == oldest_number
    assert log["retentionHours"] == 168
    events = caught_up(hub, "admin", "", log["oldestCursor"], head)
    assert [e.sequence for e in events] == list(range(oldest_number + 1, head + 1))
    assert log["oldestCommitTime"] == hub.get("/v1/changes:log").json()["oldestCommitTime"]
    # Any caller that may read something may know.
    assert "oldestCursor" in hub.get("/v1/changes:log", "bi").json()
