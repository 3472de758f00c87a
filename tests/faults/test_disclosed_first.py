"""The audit records data before it leaves: if the entry cannot be written, nothing leaves.

The database is made to refuse entries that name disclosed records, all of them or some of a
stream's. The audit must name every record that a client received.

A consumer that may receive no more records is the same case, except that no entry reports them as
sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import asyncpg
import grpc
import pytest

from faults.disclosing import BODILESS, MARK, Caller, Prepared, guarded
from harness import PATIENCE, RunningHub, eventually, folder, new_customer
from own_worker import worker
from penstock.api.v1 import customers_service_pb2
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstockd.audit.entry import Entry
from penstockd.audit.keys import find_key
from penstockd.errors import RateLimited
from posted import receiving

ROWS = 2000
FORMATS = ("CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW", "XLSX")

_FUNCTION = """
CREATE OR REPLACE FUNCTION hub.refuse_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {condition} THEN
        PERFORM nextval('hub.refused_entry');
        RAISE EXCEPTION 'this entry is refused';
    END IF;
    RETURN new;
END $$
"""
#: Counts refusals: a sequence keeps its value when the transaction fails.
_SEQUENCE = "CREATE SEQUENCE IF NOT EXISTS hub.refused_entry"
_FROM_ONE = "ALTER SEQUENCE hub.refused_entry RESTART"
_TRIGGER = """
CREATE OR REPLACE TRIGGER refuse_entry BEFORE INSERT ON hub.audit_entry
    FOR EACH ROW EXECUTE FUNCTION hub.refuse_entry()
"""
_NO_TRIGGER = "DROP TRIGGER IF EXISTS refuse_entry ON hub.audit_entry"
#: Entries that name records.
DISCLOSING = "new.shown IS NOT NULL OR new.keys IS NOT NULL"
#: Entries for messages to endpoints.
DISCLOSING_KEYS = "new.record_key IS NOT NULL OR new.keys IS NOT NULL"
#: A third of the entries of a stream's records; a refused entry is refused again on a retry.
SOME_PARTS = "new.phase = 'PART' AND hashtext(new.request_id || md5(new.keys)) % 3 = 0"
#: At most this many streams run until one of them has been cut.
STREAMS = 30


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """A hub for these tests only, with a marked record and some megabytes of others."""
    with folder() as data:
        running = RunningHub(data / "hub", customers=50)
        running.start()
        try:
            note = "n" * 1500
            rows = (new_customer(notes=note, name=f"Row {i}") for i in range(ROWS))
            lines = "\n".join(map(json.dumps, rows)).encode()
            path = "/v1/customers:import?format=NDJSON"
            done = running.request("POST", path, consumer="admin", body=lines)
            assert done.status == 200, done.text
            record = new_customer(customerId=MARK, name=MARK)
            done = running.request("POST", "/v1/customers", consumer="admin", json_body=record)
            assert done.status == 200, done.text
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def refusing(hub: RunningHub, condition: str) -> Iterator[None]:
    """Make the database refuse entries during the block."""
    run_script(hub, _SEQUENCE)
    run_script(hub, _FROM_ONE)
    run_script(hub, _FUNCTION.format(condition=condition))
    run_script(hub, _TRIGGER)
    try:
        yield
    finally:
        run_script(hub, _NO_TRIGGER)


def run_script(hub: RunningHub, script: str) -> None:
    """Run the script again if it deadlocks with the hub's own work."""

    def done() -> bool:
        try:
            hub.sql(script)
        except asyncpg.DeadlockDetectedError:
            return False
        return True

    eventually(done)


@pytest.fixture
def caller(hub: RunningHub) -> Iterator[Caller]:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        yield Caller(hub, channel)


def test_no_method_shows_a_record_whose_entry_is_refused(hub: RunningHub, caller: Caller) -> None:
    """Each method that can show records according to the model; the control is that it does show
    them."""
    routes = {r.method.name: r for r in guarded() if r.method.name not in BODILESS}
    requests = Prepared(hub).requests()
    assert routes.keys() == requests.keys(), "a method that can show records is tried here"
    made = {name: values() for name, values in requests.items()}
    with refusing(hub, DISCLOSING):
        for name, route in routes.items():
            found, code = caller.call(route, made[name])
            assert (MARK.encode() in found, code) == (False, "INTERNAL"), name
    for name, route in routes.items():
        found, code = caller.call(route, requests[name]())  # a refused lease keeps running
        assert MARK.encode() in found, (name, code)


def test_nothing_is_posted_whose_entry_is_refused(hub: RunningHub) -> None:
    """The dispatcher of webhooks, which no route reaches; with each form of a body."""
    envelopes = ("STANDARD", "CLOUDEVENTS_STRUCTURED", "CLOUDEVENTS_BINARY")
    with receiving() as posts:
        for name in envelopes:
            body = {
                "url": f"{posts.url}/{name}",
                "selections": [{"dataset": "customers"}],
                "options": {"envelope": name},
            }
            made = hub.request("POST", "/v1/webhooks", consumer="admin", json_body=body)
            assert made.status == 200, made.text
        with refusing(hub, f"new.surface = 'WEBHOOK' AND ({DISCLOSING_KEYS})"):
            path, change = f"/v1/customers/{MARK}", {"notes": f"{MARK} again"}
            done = hub.request("PATCH", path, consumer="admin", json_body=change)
            assert done.status == 200, done.text
            # Refused once and tried again, at least: by then the first message would have left.
            drawn = "SELECT last_value > 2 FROM hub.refused_entry"
            eventually(lambda: hub.sql(drawn) == [(True,)])
            assert not posts.taken
        for name in envelopes:
            (post, *_) = posts.wait(f"/{name}", 1)
            assert MARK.encode() in post.body, "the control: it leaves when it may"
            rows = hub.sql(
                "SELECT count(*) FROM hub.audit_entry WHERE surface = 'WEBHOOK'"
                " AND record_key = $1 AND query ->> 'webhook' IS NOT NULL",
                MARK,
            )
            assert rows[0][0] >= len(envelopes)


@pytest.mark.parametrize("name", FORMATS)
def test_no_byte_of_a_file_leaves_whose_entry_is_refused(hub: RunningHub, name: str) -> None:
    with refusing(hub, DISCLOSING):
        reply = hub.get("/v1/customers:export", format=name)
        assert reply.status == 500 and b"Row" not in reply.body
        page = hub.get("/v1/customers:exportPage", format=name)
        assert page.status == 500 and b"Row" not in page.body
    assert hub.get("/v1/customers:export", format=name, limit=10).status == 200


def given_out(hub: RunningHub, path: str, keys: str, **query: object) -> tuple[str, set[str]]:
    """What a stream delivered before it ended: its request id, and the keys in it."""
    place = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE)
    with contextlib.closing(place):
        headers = {"authorization": f"Bearer {hub.token('admin')}"}
        place.request("GET", f"{path}?{urlencode(query)}", headers=headers)
        reply = place.getresponse()
        data = b""
        with contextlib.suppress(http.client.IncompleteRead, OSError):
            while piece := reply.read1(1 << 16):
                data += piece
        return str(reply.headers["x-request-id"]), set(re.findall(keys, data.decode()))


def undisclosed(hub: RunningHub, request_id: str, keys: set[str]) -> set[str]:
    """The given keys that no audit entry of the call names."""
    rows = hub.sql(
        "SELECT keys FROM hub.audit_entry WHERE request_id = $1 AND keys IS NOT NULL", request_id
    )
    return {key for key in keys if not any(find_key(row[0], key) for row in rows)}


@pytest.mark.parametrize(
    ("path", "query", "keys"),
    [
        (":export", {"format": "NDJSON"}, r'"customerId":"([^"]+)"'),
        (":export", {"format": "CSV"}, r"(?m)^(t-[0-9a-f]{12}),"),
        (":watch", {"snapshot": "true", "batch_size": "100"}, r'"key":"([^"]+)"'),
    ],
    ids=["NDJSON", "CSV", "watch"],
)
def test_a_stream_whose_entries_fail_at_times_has_given_out_what_is_there(
    hub: RunningHub, path: str, query: dict[str, str], keys: str
) -> None:
    """The stream ends where an entry fails; every record delivered before is in the audit."""
    with refusing(hub, SOME_PARTS):
        for _ in range(STREAMS):
            request_id, found = given_out(hub, f"/v1/customers{path}", keys, **query)
            assert not undisclosed(hub, request_id, found), request_id
            if 0 < len(found) < ROWS:
                break
        else:
            raise AssertionError("no stream broke off with something given out")
    assert undisclosed(hub, request_id, {"never-there"}) == {"never-there"}, "the control"


class Counted:
    """Allows records to leave up to a number; the others may leave later."""

    def __init__(self, most: float) -> None:
        self.left = most
        self.methods: set[str] = set()

    def take(self, entry: Entry, count: int) -> None:
        self.methods.add(entry.method)
        if self.left <= 0:
            raise RateLimited("no more records for now")
        self.left -= count


def entries_of(hub: RunningHub, request_id: str) -> list[tuple[object, ...]]:
    """The numbers of records, and the keys, that a call has shown according to the audit."""
    return hub.sql(
        "SELECT row_count, keys FROM hub.audit_entry WHERE request_id = $1"
        " AND phase <> 'END' AND (coalesce(row_count, 0) > 0 OR keys IS NOT NULL)",
        request_id,
    )


async def test_no_method_shows_a_record_beyond_what_the_consumer_may_be_given(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All methods count in one place, which can refuse; then no entry reports a record as sent."""
    routes = {r.method.name: r for r in guarded() if r.method.name not in BODILESS}
    requests = (await asyncio.to_thread(Prepared, hub)).requests()
    assert routes.keys() == requests.keys(), "a method that can show records is tried here"
    allowance, run = Counted(0), uuid.uuid4().hex[:8]
    async with worker(hub, monkeypatch, allowance=allowance) as served:
        with grpc.insecure_channel(served.socket) as channel:
            caller = Caller(hub, channel)
            for name, route in routes.items():
                values = await asyncio.to_thread(requests[name])
                allowance.left = 0
                asked = (route, values, f"{run}-{name}")
                found, code = await asyncio.to_thread(caller.call, *asked)
                assert (MARK.encode() in found, code) == (False, "RESOURCE_EXHAUSTED"), name
                assert await asyncio.to_thread(entries_of, hub, f"{run}-{name}") == [], name
                allowance.left = float("inf")
                values = await asyncio.to_thread(requests[name])  # one lease was given out
                found, code = await asyncio.to_thread(caller.call, route, values)
                assert MARK.encode() in found, (name, code)
    assert allowance.methods == {r.method.path for r in routes.values()}


async def test_an_export_that_is_refused_on_its_way_can_be_resumed(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowance = Counted(1)
    plain = {"format": "NDJSON"}

    def export(**more: object) -> tuple[bytes, str, str]:
        """The bytes, the receipt, and the final code."""
        request = customers_service_pb2.StreamExportCustomersRequest(**plain, **more)  # type: ignore[arg-type]
        with grpc.insecure_channel(served.socket) as channel:
            call: Any = CustomersStub(channel).StreamExportCustomers(
                request, metadata=hub.metadata("admin"), timeout=PATIENCE
            )
            data = b""
            try:
                for piece in call:
                    data += piece.data
            except grpc.RpcError:
                pass
            headers = dict(call.initial_metadata())
            return data, str(headers["penstock-receipt"]), call.code().name

    async with worker(hub, monkeypatch, allowance=allowance) as served:
        start, receipt, code = await asyncio.to_thread(export)
        assert code == "RESOURCE_EXHAUSTED"
        assert 0 < start.count(b"\n") < ROWS, "it is refused on its way"
        found = hub.get(f"/v1/receipts/{receipt}").json()
        assert (found["state"], found["reason"]) == ("FAILED", "RATE_LIMITED")
        allowance.left = float("inf")
        rest, _, code = await asyncio.to_thread(
            lambda: export(resume_receipt=receipt, resume_offset=len(start))
        )
        assert code == "OK"
        whole, _, _ = await asyncio.to_thread(export)
    keys = [json.loads(line)["customerId"] for line in (start + rest).splitlines()]
    assert keys == [json.loads(line)["customerId"] for line in whole.splitlines()]
    assert len(keys) > ROWS


async def test_a_feed_that_is_refused_on_its_way_can_be_resumed(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowance = Counted(1)

    def watch(cursor: str, missing: set[str]) -> tuple[set[str], Any]:
        """The keys that arrived, until none is missing, and the stream's last record."""
        request = customers_service_pb2.WatchCustomersRequest(cursor=cursor, batch_size=100)
        keys: set[str] = set()
        end = None
        with grpc.insecure_channel(served.socket) as channel:
            call: Any = CustomersStub(channel).WatchCustomers(
                request, metadata=hub.metadata("admin"), timeout=PATIENCE
            )
            try:
                for message in call:
                    keys |= {change.key for change in message.changes}
                    end = message.end if message.HasField("end") else end
                    if missing <= keys:
                        break
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            call.cancel()
        return keys, end

    async with worker(hub, monkeypatch, allowance=allowance) as served:
        oldest = hub.get("/v1/changes:log").json()["oldestCursor"]
        found = await asyncio.to_thread(
            hub.sql, "SELECT customer_id FROM data.customers WHERE name LIKE 'Row %'"
        )
        imported = {str(row[0]) for row in found}
        some, end = await asyncio.to_thread(watch, oldest, imported)
        assert end.reason == "RATE_LIMITED" and some and imported - some
        allowance.left = float("inf")
        rest, _ = await asyncio.to_thread(watch, end.cursor, imported - some)
        assert imported <= some | rest
