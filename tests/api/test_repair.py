"""Repairs: a copy with any differences becomes exactly the hub's records at the cursor."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from google.protobuf import json_format

from harness import Reply, RunningHub, eventually
from penstock.client import Client
from penstock.client.canonical import format_canonical, record_digest
from penstock.client.dataset import DatasetClient
from penstock.client.digest import Repaired, range_digest
from penstock.hub.v1.digests_pb2 import RangeDigest

SHA = "0" * 64
PREFIX = "rp-"


class Copy:
    """A store in memory that records the calls it gets."""

    def __init__(self, key: str, records: Iterable[Any] = ()) -> None:
        self._key = key
        self.records = {getattr(r, key): r for r in records}
        self.upserts: list[str] = []
        self.deletes: list[str] = []

    def digests(self, start: str, end: str) -> Iterator[tuple[str, bytes]]:
        for key in sorted(self.records):
            if start <= key and (not end or key < end):
                yield key, record_digest(self.records[key])

    def apply(self, upserts: Sequence[Any], deletes: Sequence[str]) -> None:
        self.upserts += [getattr(r, self._key) for r in upserts]
        self.deletes += deletes
        self.records |= {getattr(r, self._key): r for r in upserts}
        for key in deletes:
            del self.records[key]

    def damage(self, count: int, seed: int) -> set[str]:
        """Change, drop and add some records; returns their keys."""
        chance = random.Random(seed)
        keys = chance.sample(sorted(self.records), count)
        touched = set()
        for i, key in enumerate(keys):
            record = self.records[key]
            if i % 3 == 0:
                del self.records[key]
            elif i % 3 == 1:
                changed = type(record)()
                changed.CopyFrom(record)
                changed.source = f"damaged {i}"
                self.records[key] = changed
            else:
                key = f"{key}-extra"
                added = type(record)()
                added.CopyFrom(record)
                setattr(added, self._key, key)
                self.records[key] = added
            touched.add(key)
        return touched

    def content(self) -> dict[str, bytes]:
        """The copy's records without the fields that digests leave out."""
        return {key: format_canonical(r) for key, r in self.records.items()}


@contextmanager
def connected(hub: RunningHub, consumer: str, dataset: str) -> Iterator[DatasetClient]:
    with Client(hub.url, token=hub.token(consumer)) as client:
        yield client.dataset(dataset)


def held(client: DatasetClient, **query: str) -> Copy:
    """A copy of all records that the consumer sees."""
    return Copy(client.key, client.list(page_size=1000, **query))


@pytest.fixture(scope="module")
def many(spare: RunningHub) -> RunningHub:
    """Adds 3,000 customers to the demo's."""
    with connected(spare, "admin", "customers") as customers:
        records = [
            {"customerId": f"{PREFIX}{i:05}", "name": f"Ñame {i}", "status": "ACTIVE"}
            for i in range(3000)
        ]
        customers.batch_upsert(records)
    return spare


@pytest.mark.parametrize(
    ("dataset", "consumer"),
    [("customers", "admin"), ("customers", "bi"), ("orders", "crm"), ("products", "bi")],
)
def test_exactly_what_differs_is_told(many: RunningHub, dataset: str, consumer: str) -> None:
    with connected(many, consumer, dataset) as client:
        copy = held(client)
        right = copy.content()
        assert client.digests.repair(copy).equal
        for seed, count in enumerate((1, 10, 30)):
            wrong = copy.damage(count, seed)
            copy.upserts, copy.deletes = [], []
            repaired = client.digests.repair(copy, range_rows=64)
            assert copy.content() == right
            assert {*copy.upserts, *copy.deletes} == wrong
            assert repaired.upserts + repaired.deletes == len(wrong) == count
            assert repaired.cursor


def test_of_some_records_and_fields(many: RunningHub) -> None:
    some: dict[str, Any] = {"filter": f'customer_id >= "{PREFIX}01000"', "fields": "name,source"}
    with connected(many, "crm", "customers") as customers:
        copy = Copy(
            "customer_id",
            customers.list(page_size=1000, **{**some, "fields": "customer_id,name,source"}),
        )
        right = copy.content()
        assert customers.digests.repair(copy, **some).equal
        wrong = copy.damage(30, 7)
        assert not customers.digests.repair(copy, **some).equal
        assert copy.content() == right and {*copy.upserts, *copy.deletes} == wrong


@pytest.mark.parametrize("start", ["empty", "strange"])
def test_a_copy_that_shares_nothing(many: RunningHub, start: str) -> None:
    with connected(many, "bi", "customers") as customers:
        right = held(customers)
        copy = Copy("customer_id")
        if start == "strange":
            kind: Any = customers.record_class
            copy = Copy("customer_id", [kind(customer_id=f"x{i:05}") for i in range(9000)])
        repaired = customers.digests.repair(copy)
        assert copy.content() == right.content()
        assert repaired.upserts == len(right.records)


def test_large_records_come_in_several_replies(spare: RunningHub) -> None:
    keys = [f"large-{i}" for i in range(10)]
    large = [{"customerId": key, "name": key, "notes": "x" * 450_000} for key in keys]
    with connected(spare, "admin", "customers") as customers:
        for record in large:
            customers.create(record)
        bounds: dict[str, Any] = {"filter": 'customer_id >= "large-0" AND customer_id < "large-~"'}
        first = customers.digests.compare([_range("", "", 0)], **bounds)
        assert 1 < len(first.upserts) < 10 and not first.complete
        assert first.next_key == f"large-{len(first.upserts)}"
        copy = Copy("customer_id")
        repaired = customers.digests.repair(copy, **bounds)
        assert sorted(copy.records) == keys and repaired.calls >= 2
        for key in keys:
            customers.delete(key)


def _range(start: str, end: str, rows: int, sha256: str = SHA) -> Any:
    return RangeDigest(start_key=start, end_key=end, row_count=rows, sha256=sha256)


class Writers:
    """Threads that create, change and delete customers until the test stops them."""

    def __init__(self, hub: RunningHub, seed: str, count: int) -> None:
        self._stop = threading.Event()
        self.writes = 0
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._write, args=(hub, f"{seed}-{n}", n), daemon=True)
            for n in range(count)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors

    def done(self, writes: int) -> bool:
        """Whether there were that many writes, or an error."""
        return bool(self.errors) or self.writes >= writes

    def _write(self, hub: RunningHub, seed: str, number: int) -> None:
        chance = random.Random(seed)
        try:
            with connected(hub, "admin", "customers") as customers:
                while not self._stop.is_set():
                    key = f"{PREFIX}{chance.randrange(number, 3000, 2):05}"
                    status = chance.choice(["ACTIVE", "ACTIVE", "LEAD"])
                    if chance.random() < 0.2:
                        customers.delete(key, allow_missing=True)
                    else:
                        record = {
                            "customerId": key,
                            "name": f"N{chance.random()}",
                            "status": status,
                        }
                        customers.update(record, allow_missing=True)
                    self.writes += 1
        except BaseException as error:
            self.errors.append(error)


def follow(hub: RunningHub, consumer: str, copy: dict[str, bytes], of: Repaired, kind: Any) -> None:
    """Apply the feed to a copy, from the place where it was repaired to the end."""
    cursor, more = of.cursor, True
    while more:
        page = hub.get("/v1/customers:changes", consumer, cursor=cursor, page_size=1000)
        assert page.status == 200, page.text
        assert page.json()["view"] == of.view
        for change in page.json().get("changes", []):
            if "after" in change:
                copy[change["key"]] = format_canonical(
                    json_format.ParseDict(change["after"], kind())
                )
            else:
                copy.pop(change["key"], None)
        more = page.json().get("more", False)
        cursor = page.json()["nextCursor"]


@pytest.mark.parametrize("consumer", ["admin", "bi"])
def test_repair_and_feed_fit_exactly_while_others_write(many: RunningHub, consumer: str) -> None:
    """repair@C + feed(C, D] = the records at D."""
    with connected(many, consumer, "customers") as customers:
        copy = held(customers)
        copy.damage(200, 3)
        with Writers(many, consumer, 2) as writers:
            for _ in range(3):  # the copy falls behind and is repaired each time
                repaired = customers.digests.repair(copy, range_rows=32)
                enough = writers.writes + 20
                eventually(functools.partial(writers.done, enough))
        many.head()
        content = copy.content()
        followed = dict(content)
        follow(many, consumer, followed, repaired, customers.record_class)
        right = held(customers).content()
        assert followed == right
        # Negative control: without the feed the copy differs, because of the writes after C.
        assert content != right


def test_a_repair_begins_anew_where_its_state_is_gone(
    many: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sessions that hold states are cut once, between two calls."""
    with connected(many, "admin", "customers") as customers:
        copy = held(customers)
        right, wrong = copy.content(), copy.damage(20, 5)
        digests, calls = customers.digests, 0
        compare = digests.compare

        def cut(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                many.sql(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE state = 'idle in transaction' AND query LIKE '%pg_export_snapshot%'"
                )
            return compare(*arguments, **more)

        monkeypatch.setattr(digests, "compare", cut)
        digests.repair(copy, range_rows=64)
        assert copy.content() == right and {*copy.upserts, *copy.deletes} == wrong
        assert calls == 4


def call(hub: RunningHub, ranges: Any, consumer: str = "crm", **more: Any) -> Reply:
    body = {"ranges": ranges, **more}
    return hub.request("POST", "/v1/customers:repair", consumer=consumer, json_body=body)


RECORD = {"key": "b", "sha256": SHA}


@pytest.mark.parametrize(
    ("ranges", "field"),
    [
        ([], "ranges"),
        ([{"startKey": "b", "endKey": "a"}], "ranges[0].endKey"),
        ([{"startKey": "\0"}], "ranges[0].startKey"),
        ([{"endKey": "b"}, {"startKey": "a"}], "ranges[1].startKey"),
        ([{}, {"startKey": "a"}], "ranges[1].startKey"),
        ([{"rowCount": -1, "sha256": SHA}], "ranges[0].rowCount"),
        ([{"rowCount": 1}], "ranges[0].sha256"),
        ([{"rowCount": 1, "sha256": SHA[1:]}], "ranges[0].sha256"),
        ([{"rowCount": 1, "sha256": " " + SHA[2:] + " "}], "ranges[0].sha256"),
        ([{"rowCount": 1, "sha256": "g" * 64}], "ranges[0].sha256"),
        ([{"rowCount": 2, "records": [RECORD]}], "ranges[0].rowCount"),
        ([{"rowCount": 2, "records": [RECORD, RECORD]}], "ranges[0].rowCount"),
        ([{"rowCount": 2, "records": [RECORD, {**RECORD, "key": "a"}]}], "ranges[0].records"),
        ([{"startKey": "c", "rowCount": 1, "records": [RECORD]}], "ranges[0].records"),
        ([{"endKey": "b", "rowCount": 1, "records": [RECORD]}], "ranges[0].records"),
        ([{"rowCount": 1, "records": [{"key": "b"}]}], "ranges[0].records[0].sha256"),
    ],
)
def test_what_nobody_can_hold(spare: RunningHub, ranges: Any, field: str) -> None:
    reply = call(spare, ranges)
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
    assert list(reply.violations()) == [field]


def test_what_is_refused_beside_ranges(spare: RunningHub) -> None:
    whole = [{"rowCount": 0}]
    assert call(spare, whole, filter='tax_id = "1"').reason == "FIELD_UNKNOWN"
    assert call(spare, whole, fields="credit_limit").reason == "FIELD_UNKNOWN"
    assert call(spare, whole, state="x").violations().keys() == {"state"}
    many = [{"startKey": f"a{i:05}", "endKey": f"a{i:05}b"} for i in range(4097)]
    assert call(spare, many).reason == "REQUEST_TOO_LARGE"
    assert call(spare, many[:-1]).status == 200
    reply = spare.request(
        "POST", "/v1/products:repair", consumer="crm", json_body={"ranges": whole}
    )
    assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
    huge = [{"endKey": "x" * (17 << 20)}]
    assert call(spare, huge).status == 413


def test_a_range_tells_whether_it_is_the_same(many: RunningHub) -> None:
    bounds = {"startKey": f"{PREFIX}00010", "endKey": f"{PREFIX}00200"}
    with connected(many, "admin", "customers") as customers:
        copy = held(customers)
    told = list(copy.digests(bounds["startKey"], bounds["endKey"]))
    sha256 = range_digest(digest for _, digest in told)
    same = call(many, [{**bounds, "rowCount": len(told), "sha256": sha256}], "admin").json()
    assert same["complete"] and "differing" not in same and "upserts" not in same
    other = call(many, [{**bounds, "rowCount": len(told), "sha256": SHA}], "admin").json()
    assert not other.get("complete") and int(other["rowCount"]) == len(told)
    # Smaller ranges that together make up the requested one.
    assert len(other["differing"]) == -(-len(told) // 32)
    assert other["differing"][0]["startKey"] == bounds["startKey"]
    assert other["differing"][-1]["endKey"] == bounds["endKey"]
    keys = [key for key, _ in told]
    assert [r["startKey"] for r in other["differing"][1:]] == keys[32::32]
