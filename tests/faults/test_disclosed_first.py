"""The audit records data before it leaves: if the entry cannot be written, nothing leaves.

The database is made to refuse entries that name disclosed records, all of them or some of a
stream's. The audit must name every record that a client received.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import asyncpg
import grpc
import pytest
from google.protobuf import message_factory

from harness import PATIENCE, RunningHub, eventually, folder, new_customer
from penstockd.audit.keys import find_key
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.rpc.door import Route, guard_reply
from posted import receiving
from security.calls import every_route, method_of

MARK = f"zqmark{uuid.uuid4().hex[:8]}"
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


class Caller:
    """Calls methods by their routes, with requests made of JSON-like values."""

    def __init__(self, hub: RunningHub, channel: grpc.Channel) -> None:
        self._hub, self._channel = hub, channel

    def call(self, route: Route, values: dict[str, Any]) -> tuple[bytes, str]:
        """Everything that arrives until it contains MARK, and the final code."""
        method = method_of(route)
        request = message_factory.GetMessageClass(method.input_type)(**values)
        kind = "unary_stream" if method.server_streaming else "unary_unary"
        stub = getattr(self._channel, kind)(
            route.method.path,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=lambda data: data,
        )
        found = b""
        metadata = self._hub.metadata("admin")
        try:
            reply = stub(request, metadata=metadata, timeout=PATIENCE)
            for frame in reply if method.server_streaming else [reply]:
                found += frame
                if MARK.encode() in found:
                    break
        except grpc.RpcError as error:
            return found, error.code().name
        return found, "OK"


@pytest.fixture
def caller(hub: RunningHub) -> Iterator[Caller]:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        yield Caller(hub, channel)


class _Organs:
    """The parts of a hub that the door needs to look at routes."""

    catalog = load_catalog(find_descriptors())


def guarded() -> list[Route]:
    """The routes whose replies can show records of the dataset, or of several."""
    organs: Any = _Organs()
    return [
        route
        for route in every_route()
        if route.method.dataset in (None, "customers") and guard_reply(organs, route) is not None
    ]


class Prepared:
    """The objects that methods need in order to show the marked record."""

    def __init__(self, hub: RunningHub) -> None:
        self._hub = hub
        self.start = hub.get("/v1/customers:changes").json()["nextCursor"]
        options = {"selections": [{"dataset": "customers"}], "kind": "LISTEN"}
        made = hub.request("POST", "/v1/webhooks", consumer="admin", json_body=options)
        assert made.status == 200, made.text
        self.webhook = made.json()["webhook"]["webhookId"]
        path = f"/v1/customers/{MARK}"
        done = hub.request("PATCH", path, consumer="admin", json_body={"notes": MARK})
        assert done.status == 200, done.text
        self.delivery = eventually(self._find_delivery)

    def _find_delivery(self) -> str:
        found = self._hub.get(f"/v1/webhooks/{self.webhook}/deliveries").json()
        listed = found.get("deliveries", [])
        return str(listed[0]["deliveryId"]) if listed else ""

    def subscription(self) -> dict[str, Any]:
        """A new subscription that has delivered nothing."""
        name = f"s-{uuid.uuid4().hex[:8]}"
        terms = {"subscriptionId": name, "datasets": ["customers"]}
        body = {"subscription": terms, "start": self.start}
        made = self._hub.request("POST", "/v1/subscriptions", consumer="admin", json_body=body)
        assert made.status == 200, made.text
        return {"subscription_id": name}

    def requests(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """By method, a request whose reply shows the marked record."""
        only = {"filter": f'customer_id = "{MARK}"'}
        webhook = {"webhook_id": self.webhook}
        return {
            "GetCustomer": lambda: {"customer_id": MARK},
            "ListCustomers": lambda: only,
            "CreateCustomer": lambda: {
                "customer": {"customer_id": f"{MARK}-{uuid.uuid4().hex[:6]}", "name": "new"}
            },
            "UpdateCustomer": lambda: {
                "customer": {"customer_id": MARK, "name": f"{MARK} {uuid.uuid4().hex[:6]}"},
                "update_mask": {"paths": ["name"]},
            },
            "ExportCustomers": lambda: {**only, "format": "JSON"},
            "StreamExportCustomers": lambda: {**only, "format": "NDJSON"},
            "WatchCustomers": lambda: {**only, "snapshot": True},
            "ListCustomerChanges": lambda: {"cursor": self.start},
            "RepairCustomers": lambda: {**only, "ranges": [{}]},
            "PreviewRecords": lambda: {"dataset": "customers", "consumer_id": "crm", **only},
            "WatchChanges": lambda: {"cursor": self.start},
            "ListChanges": lambda: {"cursor": self.start},
            "PullChanges": self.subscription,
            "WatchSubscription": self.subscription,
            "PullDeliveries": lambda: {**webhook, "max_deliveries": 100},
            "GetDelivery": lambda: {**webhook, "delivery_id": self.delivery},
        }


#: Methods whose replies could contain a body by their type, but never do: a list only names
#: deliveries.
BODILESS = {"TestWebhook", "ListDeliveries", "ListDeadLetters", "ResendDelivery"}


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
