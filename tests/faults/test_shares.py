"""S10 in small: a consumer, a dataset or a COMMIT that is blocked blocks nobody else.

Nothing here is measured in seconds: the other calls must continue while something is blocked.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import select
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from faults.exporting import multiply
from harness import Reply, RunningHub, eventually, folder, new_customer

STALLED = int(os.environ.get("PENSTOCK_S10_STALLED", "40"))
LISTS = int(os.environ.get("PENSTOCK_S10_LISTS", "200"))
WAIT, LOCK, COMMIT = 8, 3, 2
#: One consumer gets four of a worker's eight connections for exports.
SHARE = 4
LOCKED = "LOCK TABLE data.customers IN ACCESS EXCLUSIVE MODE"
WAITING = (
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'data.customers'::regclass"
)
#: Sessions that wait for a standby after their writes to customers.
IN_COMMIT = (
    "SELECT count(DISTINCT pid) FROM pg_stat_activity AS a JOIN pg_locks AS l USING (pid)"
    " WHERE a.wait_event = 'SyncRep' AND l.relation = 'data.customers'::regclass"
)


@pytest.fixture(scope="module")
def fair() -> Iterator[RunningHub]:
    """A hub of one worker with some megabytes of customers and short timeouts."""
    environment = {
        "PENSTOCK_WORKERS": "1",
        "PENSTOCK_WAIT_SECONDS": str(WAIT),
        "PENSTOCK_LOCK_SECONDS": str(LOCK),
        "PENSTOCK_COMMIT_SECONDS": str(COMMIT),
        "PENSTOCK_EXPORT_STALL_SECONDS": "600",
    }
    with folder() as data:
        hub = RunningHub(data / "hub", customers=300, environment=environment)
        try:
            hub.start()
            multiply(hub, 60)
            for consumer in ("admin", "crm", "bi"):
                hub.token(consumer)
            yield hub
        finally:
            hub.stop()


def beside(count: int, call: Callable[[], Reply]) -> tuple[list[threading.Thread], list[Reply]]:
    """Calls that run beside the test, and their replies as they arrive."""
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, replies


class Sent:
    """A GET that was sent, whose reply is not read until somebody asks for it."""

    def __init__(self, hub: RunningHub, consumer: str, path: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", hub.port))
        self._socket.settimeout(120)
        token = hub.token(consumer)
        head = f"GET {path} HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {token}\r\n\r\n"
        self._socket.sendall(head.encode())

    def answered(self) -> bool:
        """Whether the reply has begun."""
        poller = select.poll()  # ``select`` is limited to about a thousand descriptors
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def is_ok(self) -> bool:
        """Whether a reply has begun and reports success."""
        return self.answered() and self.status() == b"200"

    def status(self) -> bytes:
        """Wait for the reply's status, without reading the reply."""
        return self._socket.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)[-3:]

    def reply(self) -> Reply:
        """Read the whole reply."""
        reply = http.client.HTTPResponse(self._socket)
        reply.begin()
        found = {k.lower(): v for k, v in reply.getheaders()}
        return Reply(reply.status, found, reply.read())

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


@contextlib.contextmanager
def sent(hub: RunningHub, consumer: str, path: str, count: int) -> Iterator[list[Sent]]:
    calls = [Sent(hub, consumer, path) for _ in range(count)]
    try:
        yield calls
    finally:
        for call in calls:
            call.close()


def running_exports(hub: RunningHub, consumer: str) -> int:
    state = "SELECT count(*) FROM hub.receipt WHERE state = 'RUNNING' AND consumer_id = $1"
    return int(hub.sql(state, consumer)[0][0])


def test_stalled_exports_leave_room_for_the_exports_of_others(fair: RunningHub) -> None:
    with sent(fair, "crm", "/v1/customers:export?format=XML", STALLED) as stalled:
        eventually(lambda: running_exports(fair, "crm") == SHARE)
        # Waiting callers are told how long they waited, and when to retry.
        eventually(lambda: sum(s.answered() for s in stalled) == STALLED)
        assert running_exports(fair, "crm") == SHARE
        for path in ("products:export?format=CSV", "customers:export?format=CSV&limit=9"):
            reply = fair.get(f"/v1/{path}", "bi")
            assert reply.status == 200, reply.text
            assert "penstock-receipt" in reply.headers
        assert fair.get("/v1/customers:digest", "bi", parts=1).status == 200
        assert fair.get("/v1/customers", "crm", page_size=1).status == 200
        assert running_exports(fair, "crm") == SHARE
        refused = [s.reply() for s in stalled if s.status() == b"429"]
        assert len(refused) == STALLED - SHARE
    for reply in refused:
        assert (reply.status, reply.reason) == (429, "SHARE_EXHAUSTED")
        told = reply.json()
        assert (
            f"waited {WAIT} s for one of the 8 connections for exports and imports"
            in told["message"]
        )
        assert [d for d in told["details"] if d["@type"].endswith("RetryInfo")]
    eventually(lambda: running_exports(fair, "crm") == 0)


def test_a_burst_of_lists_does_not_come_before_a_call_of_another(fair: RunningHub) -> None:
    (first,) = fair.get("/v1/customers", "bi", page_size=1).json()["customers"]
    with sent(fair, "crm", "/v1/customers?page_size=500", LISTS) as burst:
        reply = fair.get(f"/v1/customers/{first['customerId']}", "bi")
        assert reply.status == 200, reply.text
        # In the order of arrival it would have come behind the whole burst.
        done = sum(call.is_ok() for call in burst)
        print(f"{done} of {LISTS} lists were answered before a call of another consumer")
        assert done < 0.8 * LISTS
        for call in burst:
            reply = call.reply()
            # The consumer's own calls wait for each other, for as long as a call may.
            assert reply.status == 200 or reply.reason in (
                "SHARE_EXHAUSTED",
                "CALL_TIMEOUT",
            ), reply.text


def test_a_dataset_that_is_locked_holds_up_itself_alone(fair: RunningHub) -> None:
    done = threading.Event()
    replies: list[Reply] = []

    def read_on() -> None:
        consumers = itertools.cycle(("admin", "crm", "bi"))
        while not done.is_set():
            replies.append(fair.get("/v1/customers", next(consumers), page_size=1))

    with fair.holding(f"BEGIN; {LOCKED}"):
        readers = [threading.Thread(target=read_on) for _ in range(70)]
        for reader in readers:
            reader.start()
        try:
            # Two thirds of fourteen connections, since others may use the rest.
            eventually(lambda: fair.sql(WAITING)[0][0] >= 8)
            for dataset, consumer in (("products", "bi"), ("orders", "crm"), ("products", "admin")):
                for _ in range(3):
                    reply = fair.get(f"/v1/{dataset}", consumer, page_size=5)
                    assert reply.status == 200, reply.text
                assert fair.sql(WAITING)[0][0] > 0
            product = {"productId": f"p-{uuid.uuid4().hex[:8]}", "name": "Free"}
            reply = fair.request("POST", "/v1/products", consumer="admin", json_body=product)
            assert reply.status == 200, reply.text
            eventually(lambda: len(replies) >= 20)
        finally:
            done.set()
            for reader in readers:
                reader.join()
        reply = fair.request("POST", "/v1/customers", consumer="crm", json_body=new_customer())
        assert (reply.status, reply.reason) == (503, "DATA_LOCKED"), reply.text
    reasons = Counter((r.status, r.reason) for r in replies)
    print(reasons)
    assert set(reasons) <= {(503, "DATA_LOCKED"), (429, "SHARE_EXHAUSTED")}
    assert reasons[503, "DATA_LOCKED"] > 0
    assert fair.get("/v1/customers", "crm", page_size=1).status == 200


@contextlib.contextmanager
def standby_is_gone(hub: RunningHub) -> Iterator[None]:
    """Every COMMIT waits for a standby that is away."""
    names = "synchronous_standby_names"

    def say(value: str) -> None:
        hub.sql(f"ALTER SYSTEM SET {names} = '{value}'")
        hub.sql("SELECT pg_reload_conf()")
        eventually(lambda: hub.sql(f"SELECT current_setting('{names}')") == [(value,)])

    say("nobody")
    try:
        yield
    finally:
        say("")


def test_a_commit_that_hangs_is_never_told_as_done(fair: RunningHub) -> None:
    warm = fair.request("POST", "/v1/customers", consumer="crm", json_body=new_customer())
    assert warm.status == 200
    record = new_customer()
    body = {**record, "name": "Once"}

    def write(**headers: str) -> Reply:
        return fair.request(
            "POST", "/v1/customers", consumer="crm", json_body=body, headers=headers
        )

    once = {"idempotency-key": f"once-{uuid.uuid4().hex}"}
    with standby_is_gone(fair):
        reply = write(**once)
        assert (reply.status, reply.reason) == (503, "OUTCOME_UNKNOWN"), reply.text
        assert "request_id" in reply.json()["message"]
        # The number of sessions that hang in the database is bounded: later writes are refused
        # before they begin.
        threads, replies = beside(
            30,
            lambda: fair.request("POST", "/v1/customers", consumer="crm", json_body=new_customer()),
        )
        for thread in threads:
            thread.join()
        assert fair.sql(IN_COMMIT)[0][0] <= 6
        assert {r.status for r in replies} <= {503, 429}, {r.text for r in replies}
        # Reads commit nothing but their audit entry, whose failure is reported as it is.
        assert fair.get("/v1/customers", "crm", page_size=1).status in (200, 503)
    # By now it is committed, as the standby is no longer waited for; a repeated call gets the
    # stored reply.
    eventually(lambda: write(**once).status == 200)
    logged = "SELECT count(*) FROM hub.change WHERE key = $1"
    assert fair.sql(logged, record["customerId"]) == [(1,)]
    outcomes = "SELECT DISTINCT outcome FROM hub.audit_entry WHERE request_id = $1"
    eventually(lambda: ("OUTCOME_UNKNOWN",) in fair.sql(outcomes, reply.request_id))
