"""Limits of consumers through the door: rates, places and quotas, and what callers are told."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from feeds import Made, consumer_with, grant, rest, watch
from harness import PATIENCE, Reply, RunningHub, eventually
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from posted import Posts, receiving

LIST = "/v1/customers?page_size=2"


class Limited:
    """A consumer with limits of its own."""

    def __init__(self, hub: RunningHub, made: Made) -> None:
        self.hub, self.made = hub, made
        self.key = made.key.removeprefix("key:")

    def limit(self, **limits: Any) -> None:
        """Give it these limits alone; they are in force on return."""
        path = f"/v1/access/consumers/{self.made.name}?update_mask=limits"
        reply = self.hub.request("PATCH", path, consumer="admin", json_body={"limits": limits})
        assert reply.status == 200, reply.text
        self.hub.settle()

    def ask(self, verb: str, path: str) -> Reply:
        kinds = {
            "/v1/customers": "application/json",
            "/v1/customers:import": "application/x-ndjson",
        }
        headers = {"x-api-key": self.key}
        if verb == "POST":
            headers["content-type"] = kinds[path.partition("?")[0]]
        return self.hub.request(verb, path, headers=headers, body=b"{}" * (verb == "POST") or None)

    def get(self, path: str = LIST) -> Reply:
        return self.ask("GET", path)

    def flood(self, count: int, threads: int = 16, path: str = LIST) -> Counter[int]:
        """So many calls at once; the answers by status."""
        with ThreadPoolExecutor(threads) as pool:
            return Counter(
                reply.status for reply in pool.map(lambda _: self.get(path), range(count))
            )

    def standing(self) -> dict[str, dict[str, Any]]:
        """What it is told of its limits; the call itself counts, too."""
        reply = self.hub.request("GET", f"/v1/limits?consumer={self.made.name}", consumer="admin")
        return {limit["name"]: limit for limit in reply.json().get("limits", [])}

    def audited(self, outcome: str) -> tuple[int, int]:
        """The calls of lists in the audit that ended so, and their records."""
        sql = (
            "SELECT count(*), coalesce(sum(row_count), 0)::int FROM hub.audit_entry"
            " WHERE consumer_id = $1 AND outcome = $2 AND method LIKE '%ListCustomers'"
        )
        return self.hub.sql(sql, self.made.name, outcome)[0]


@pytest.fixture
def limited(hub: RunningHub) -> Iterator[Limited]:
    with consumer_with(hub, grant("customers")) as made:
        yield Limited(hub, made)


def quota(what: str, limit: int, per: str = "month", **more: Any) -> dict[str, Any]:
    return {"what": what, "per": per, "limit": str(limit), **more}


def detail(reply: Reply, kind: str) -> dict[str, Any]:
    """A detail of an error by the end of its type."""
    return next(d for d in reply.json()["details"] if d["@type"].endswith(kind))


def fields(header: str) -> dict[str, dict[str, str]]:
    """A structured list of a rate limit header: the parameters of each item by its name."""
    found = {}
    for item in re.split(r",\s*(?=\")", header):
        name, *parameters = item.split(";")
        found[name.strip().strip('"')] = dict(p.split("=", 1) for p in parameters)
    return found


@pytest.mark.parametrize("limit", [1, 40])
def test_a_quota_admits_exactly_its_limit(limited: Limited, limit: int) -> None:
    """At both workers at once, and again when it is raised."""
    limited.limit(quotas=[quota("calls", limit)])
    assert limited.flood(limit + 40) == {200: limit, 429: 40}
    assert limited.audited("OK")[0] == limit and limited.audited("QUOTA_EXHAUSTED")[0] == 40
    found = limited.standing()["calls-per-month"]
    assert (found["used"], found.get("remaining", "0")) == (str(limit), "0")
    limited.limit(quotas=[quota("calls", limit + 5)])
    assert limited.flood(20) == {200: 5, 429: 15}


def test_a_refusal_says_when_to_come_again(limited: Limited) -> None:
    limited.limit(quotas=[quota("calls", 0, "day")])
    reply = limited.get()
    assert (reply.status, reply.reason) == (429, "QUOTA_EXHAUSTED")
    seconds = int(reply.headers["retry-after"])
    assert 0 < seconds <= 86_400
    assert detail(reply, "RetryInfo")["retryDelay"] == f"{seconds}s"
    assert detail(reply, "QuotaFailure")["violations"] == [
        {"subject": "consumer", "description": "a quota of the plan"}
    ]
    assert detail(reply, "ErrorInfo")["metadata"] == {"limit": "calls-per-day"}
    state = fields(reply.headers["ratelimit"])["calls-per-day"]
    assert state["r"] == "0" and abs(int(state["t"]) - seconds) <= 1
    policy = fields(reply.headers["ratelimit-policy"])["calls-per-day"]
    assert (policy["q"], policy["w"]) == ("0", "86400")
    assert limited.made.name not in reply.headers["ratelimit"], "the key tells nothing"


def test_every_answer_tells_what_is_left(limited: Limited) -> None:
    """Successes, errors and streams, over REST and gRPC, with one partition key."""
    limited.limit(
        rates=[{"perSecond": 100, "burst": 200}],
        concurrent={"calls": 7},
        quotas=[quota("calls", 1000), quota("bytes", 10**9, "hour"), quota("calls", 5, soft=True,
                dataset="orders")],
    )  # fmt: skip
    names = {"rate", "concurrent-calls", "calls-per-month", "bytes-per-hour"}
    first, second = limited.get(), limited.get("/v1/customers/nobody")
    assert (first.status, second.status) == (200, 404)
    keys = set()
    for reply in (first, second):
        state, policy = (fields(reply.headers[n]) for n in ("ratelimit", "ratelimit-policy"))
        assert state.keys() == policy.keys() == names
        keys |= {p["pk"] for p in (*state.values(), *policy.values())}
        assert policy["bytes-per-hour"]["qu"] == '"content-bytes"'
        assert policy["concurrent-calls"]["qu"] == '"concurrent-requests"'
        assert policy["rate"] == {"q": "200", "w": "2", "pk": policy["rate"]["pk"]}
        assert 900 < int(state["calls-per-month"]["r"]) < 1000
    assert len(keys) == 1
    metadata = (("x-api-key", limited.key),)
    with grpc.insecure_channel(f"127.0.0.1:{limited.hub.port}") as channel:
        stub: Any = CustomersStub(channel)
        listing = stub.ListCustomers.with_call(
            api.ListCustomersRequest(page_size=1), metadata=metadata, timeout=PATIENCE
        )[1]
        assert fields(str(dict(listing.initial_metadata())["ratelimit"])).keys() == names
        with pytest.raises(grpc.RpcError) as missing:
            stub.GetCustomer(
                api.GetCustomerRequest(customer_id="nobody"), metadata=metadata, timeout=PATIENCE
            )
        failed: Any = missing.value
        told = dict([*failed.initial_metadata(), *failed.trailing_metadata()])
        assert fields(str(told["ratelimit"])).keys() == names
        export = stub.StreamExportCustomers(
            api.StreamExportCustomersRequest(format="CSV"), metadata=metadata, timeout=PATIENCE
        )
        assert b"".join(piece.data for piece in export)
        assert "calls-per-month" in str(dict(export.initial_metadata())["ratelimit"])
    with consumer_with(limited.hub) as free:
        reply = limited.hub.request(
            "GET", "/v1/limits", headers={"x-api-key": free.key.removeprefix("key:")}
        )
        assert reply.status == 200 and "ratelimit" not in reply.headers
        assert "limits" not in reply.json()


ANSWERS = [
    ("GET", "/v1/customers?page_size=1", 200),
    ("GET", "/v1/customers?page_size=1&format=XML", 400),
    ("HEAD", "/v1/customers?page_size=1", 200),
    ("OPTIONS", "/v1/customers", 200),
    ("GET", "/v1", 200),
    ("GET", "/v1/nothing/here", 404),
    ("GET", "/v1/customers/nobody", 404),
    ("PUT", "/v1/customers", 405),
    ("GET", "/v1/customers?page_size=x", 400),
    ("POST", "/v1/customers", 403),
    ("GET", "/v1/customers:export?format=CSV", 200),
    ("HEAD", "/v1/customers:export?format=CSV", 200),
    ("GET", "/v1/customers:export?format=nonsense", 400),
    ("GET", "/v1/orders:export?format=CSV", 403),
    ("GET", "/v1/customers:watch?cursor=nonsense", 400),
    ("GET", "/v1/orders:watch", 403),
    ("POST", "/v1/customers:import?format=NDJSON", 403),
    ("GET", "/v1/usage:export?format=CSV", 200),
]


def test_every_answer_of_http_tells_what_is_left(limited: Limited) -> None:
    """Once each: from the hub, whatever kind of reply or error it is."""
    limited.limit(quotas=[quota("calls", 1000), quota("records", 10**6, "day")])
    for verb, path, status in ANSWERS:
        reply = limited.ask(verb, path)
        assert (verb, path, reply.status) == (verb, path, status)
        state, policy = (fields(reply.headers[n]) for n in ("ratelimit", "ratelimit-policy"))
        assert state.keys() == policy.keys() == {"calls-per-month", "records-per-day"}, path
        left = int(state["calls-per-month"]["r"])
        assert 900 < left < 1000
        assert {n: v for n, v in reply.headers.items() if n.startswith("x-ratelimit-")} == {
            "x-ratelimit-limit": "1000",
            "x-ratelimit-remaining": str(left),
            "x-ratelimit-reset": state["calls-per-month"]["t"],
        }


def test_no_answer_of_http_passes_a_quota(limited: Limited) -> None:
    """Nothing but the refusal leaves, with when to come again, and in JSON."""
    limited.limit(quotas=[quota("calls", 0, "day")])
    for verb, path, _ in ANSWERS:
        reply = limited.ask(verb, path)
        assert (verb, path, reply.status) == (verb, path, 429)
        assert fields(reply.headers["ratelimit"])["calls-per-day"]["r"] == "0"
        assert reply.headers["x-ratelimit-remaining"] == "0"
        seconds = reply.headers["retry-after"]
        assert 0 < int(seconds) <= 86_400
        if verb != "HEAD":
            assert reply.headers["content-type"] == "application/json"
            assert reply.reason == "QUOTA_EXHAUSTED"
            assert detail(reply, "RetryInfo")["retryDelay"] == f"{seconds}s"
            assert detail(reply, "QuotaFailure")["violations"]


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_a_feed_over_http_tells_what_is_left(limited: Limited, accept: str) -> None:
    limited.limit(quotas=[quota("calls", 1000)])
    with rest(limited.hub, "/v1/customers:watch", limited.made.key, accept) as reply:
        assert "calls-per-month" in fields(reply.headers["ratelimit"])
        assert int(reply.headers["x-ratelimit-remaining"]) < 1000


def test_callers_of_no_plan_and_unknown_callers_are_told_nothing(hub: RunningHub) -> None:
    told = ("ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining")
    for reply in (
        hub.request("GET", LIST),
        hub.request("GET", LIST, headers={"x-api-key": "nonsense"}),
        hub.request("GET", LIST, consumer="admin"),
        hub.request("GET", "/v1/errors"),
    ):
        assert not set(told) & reply.headers.keys()


def test_records_are_charged_as_they_are(limited: Limited) -> None:
    """A page that does not fit is refused whole, and a smaller one is not."""
    limited.limit(quotas=[quota("records", 10, dataset="customers")])
    assert limited.get("/v1/customers?page_size=8").status == 200
    refused = limited.get("/v1/customers?page_size=3")
    assert refused.reason == "QUOTA_EXHAUSTED" and "customers" not in refused.json()
    assert limited.get("/v1/customers?page_size=2").status == 200
    eventually(lambda: {_records_left(limited) for _ in range(6)} == {"0"})  # at both workers
    assert limited.audited("OK") == (2, 10) and limited.audited("QUOTA_EXHAUSTED") == (1, 0)
    assert limited.standing()["records-per-month:customers"]["used"] == "10"


def _records_left(limited: Limited) -> str:
    missing = limited.get("/v1/customers/nobody")
    assert missing.status == 404, "it shows no record"
    return fields(missing.headers["ratelimit"])["records-per-month:customers"]["r"]


def test_what_does_not_leave_is_not_charged(limited: Limited) -> None:
    """HEAD gets headers alone."""
    limited.limit(quotas=[quota("bytes", 10**6), quota("records", 100)])
    assert limited.ask("HEAD", "/v1/customers?page_size=5").status == 200
    assert limited.ask("HEAD", "/v1/customers:export?format=CSV").status == 200
    used = {name: found.get("used", "0") for name, found in limited.standing().items()}
    assert used == {"bytes-per-month": "0", "records-per-month": "0"}


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/v1/customers?page_size=5", "application/json"),
        ("/v1/customers?page_size=5", "text/csv"),
        ("/v1/customers:exportPage?page_size=5&format=CSV", "*/*"),
    ],
)
def test_bytes_end_within_one_reply(limited: Limited, path: str, accept: str) -> None:
    """Whether a page leaves as a reply like others or as a file."""
    limited.limit(quotas=[quota("bytes", 3000)])
    headers = {"x-api-key": limited.key, "accept": accept}
    replies = [limited.hub.request("GET", path, headers=headers) for _ in range(30)]
    statuses = [reply.status for reply in replies]
    admitted = statuses.index(429)
    assert admitted > 0 and set(statuses[admitted:]) == {429}
    ((most, total),) = limited.hub.sql(
        "SELECT max(byte_count)::int, sum(byte_count)::int FROM hub.audit_entry"
        " WHERE consumer_id = $1 AND outcome = 'OK'",
        limited.made.name,
    )
    assert 3000 <= total < 3000 + most
    assert limited.standing()["bytes-per-month"]["used"] == str(total)


def test_a_soft_quota_refuses_nothing(limited: Limited) -> None:
    limited.limit(quotas=[quota("calls", 2, soft=True)])
    assert limited.flood(6) == {200: 6}
    found = limited.standing()["calls-per-month"]
    assert (found["used"], found["soft"]) == ("6", True)
    assert fields(limited.get().headers["ratelimit"])["calls-per-month"]["r"] == "0"


def test_limits_of_one_method_or_dataset(limited: Limited) -> None:
    method = "/penstock.api.v1.Customers/GetCustomer"
    limited.limit(quotas=[quota("calls", 1, method=method), quota("calls", 2, dataset="customers")])
    assert limited.get("/v1/customers/nobody").status == 404
    assert limited.get("/v1/customers/nobody").status == 429
    assert limited.get().status == 200
    assert limited.get().status == 429
    assert limited.get("/v1/limits").status == 200, "it is none of the dataset's"


def test_a_rate_is_kept_by_all_workers(limited: Limited) -> None:
    """The burst, and then the rate: a flood of both workers gets no more, however long it takes."""
    limited.limit(rates=[{"perSecond": 2, "burst": 10}])
    stop, answers = threading.Event(), Counter[int]()

    def call() -> None:
        while not stop.is_set():
            reply = limited.get()
            answers[reply.status] += 1
            if reply.status == 429:
                assert reply.reason == "RATE_LIMITED" and int(reply.headers["retry-after"]) >= 1

    with ThreadPoolExecutor(4) as pool:
        calling = [pool.submit(call) for _ in range(4)]
        eventually(lambda: answers[200] >= 20)
        stop.set()
        for each in calling:
            each.result(PATIENCE)
    ((admitted, seconds),) = limited.hub.sql(
        "SELECT count(*), extract(epoch FROM max(entry_time) - min(entry_time))::float8"
        " FROM hub.audit_entry WHERE consumer_id = $1 AND outcome = 'OK'",
        limited.made.name,
    )
    assert admitted == answers[200] and answers[429] > 0
    assert admitted <= 10 + 2 * seconds * 1.1 + 2


def test_a_rate_in_shadow_only_counts(limited: Limited) -> None:
    name = limited.made.name
    plan = {"planId": name, "shadow": True, "rates": [{"perSecond": 0.01, "burst": 3}]}
    hub = limited.hub
    assert hub.request("POST", "/v1/plans", consumer="admin", json_body=plan).status == 200
    path = f"/v1/access/consumers/{name}"
    try:
        hub.request("PATCH", path, consumer="admin", json_body={"plan": name})
        hub.settle()
        assert limited.flood(8) == {200: 8}
        sql = "SELECT count(*) FROM hub.audit_entry WHERE consumer_id = $1 AND query ->> $2 = $3"
        assert hub.sql(sql, name, "over_rate", "rate") == [(5,)]
    finally:
        hub.request("PATCH", f"{path}?update_mask=plan", consumer="admin", json_body={})
        hub.request("DELETE", f"/v1/plans/{name}", consumer="admin")


def test_places_of_streams(limited: Limited) -> None:
    limited.limit(concurrent={"streams": 2})
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(watch(limited.hub, limited.made.key, "customers"))
        with (
            pytest.raises(grpc.RpcError) as refused,
            watch(limited.hub, limited.made.key, "customers") as third,
        ):
            third.until(lambda: False)
        error: Any = refused.value
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert limited.get().status == 200, "calls have places of their own"
        found = limited.standing()["concurrent-streams"]
        assert (found["limit"], found["used"]) == ("2", "2")

    def opens() -> bool:
        with watch(limited.hub, limited.made.key, "customers"):
            return True

    eventually(lambda: _try(opens))


def _try(attempt: Any) -> bool:
    try:
        return bool(attempt())
    except grpc.RpcError:
        return False


def test_a_consumer_sees_its_own_limits(limited: Limited) -> None:
    limited.limit(quotas=[quota("calls", 1000, "day"), quota("records", 10, "hour")])
    limited.get()
    own = limited.get("/v1/limits").json()
    assert own["consumerId"] == limited.made.name
    found = {limit["name"]: limit for limit in own["limits"]}
    assert found["calls-per-day"]["per"] == "day" and "resetTime" in found["calls-per-day"]
    assert limited.get("/v1/limits?consumer=admin").reason == "PERMISSION_DENIED"
    text = limited.hub.command("limits", "--consumer", limited.made.name).stdout.decode()
    assert "calls-per-day" in text and "1000" in text
    document = json.loads(
        limited.hub.command(*("limits", "--consumer", limited.made.name, "--format", "json")).stdout
    )
    assert {limit["name"] for limit in document} == {"calls-per-day", "records-per-hour"}
    missing = limited.hub.request("GET", "/v1/limits?consumer=nobody-at-all", consumer="admin")
    assert missing.reason == "RECORD_NOT_FOUND"


class Posted:
    """A webhook of crm for customers of its own, and the quota of crm."""

    def __init__(self, hub: RunningHub, posts: Posts) -> None:
        self.hub, self.posts = hub, posts
        self.key, self.path = f"k-{uuid.uuid4().hex[:8]}", f"/{uuid.uuid4().hex}"
        selection = {"dataset": "customers", "filter": f'customer_id = "{self.key}*"'}
        document = {"url": posts.url + self.path, "selections": [selection]}
        reply = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=document)
        self.address = f"/v1/webhooks/{reply.json()['webhook']['webhookId']}"

    def limit(self, most: int) -> dict[str, Any]:
        """Set the quota of attempts; returns where it stands."""
        self._change({"limits": {"quotas": [quota("webhook_attempts", most)]}})
        (found,) = self.hub.get("/v1/limits", "crm").json()["limits"]
        return dict(found)

    def write(self, count: int) -> None:
        for n in range(count):
            row = {"customerId": f"{self.key}{n}", "name": "W"}
            reply = self.hub.request("POST", "/v1/customers", consumer="admin", json_body=row)
            assert reply.status == 200, reply.text

    def states(self) -> Counter[str]:
        """The messages by their states."""
        found = self.hub.get(f"{self.address}/deliveries", "crm").json()["deliveries"]
        return Counter(delivery["state"] for delivery in found)

    def end(self) -> None:
        self.hub.request("DELETE", self.address, consumer="crm")
        self._change({})

    def _change(self, document: dict[str, Any]) -> None:
        path = "/v1/access/consumers/crm?update_mask=limits"
        reply = self.hub.request("PATCH", path, consumer="admin", json_body=document)
        assert reply.status == 200, reply.text
        self.hub.settle()


@pytest.fixture
def posted(hub: RunningHub) -> Iterator[Posted]:
    with receiving() as posts:
        made = Posted(hub, posts)
        try:
            yield made
        finally:
            made.end()


def test_messages_to_webhooks_wait_while_a_quota_is_used_up(posted: Posted) -> None:
    """Exactly as many are posted as there are attempts, and the others when there are more."""
    before = int(posted.limit(10**6).get("used", "0"))
    posted.limit(before + 2)
    posted.write(5)
    eventually(lambda: posted.states() == {"DELIVERED": 2, "PENDING": 3})
    found = posted.limit(before + 2)
    assert (found["used"], found.get("remaining", "0")) == (str(before + 2), "0")
    posted.limit(before + 4)
    eventually(lambda: posted.states() == {"DELIVERED": 4, "PENDING": 1})
    posted.limit(before + 5)
    eventually(lambda: posted.states() == {"DELIVERED": 5})
    assert len(posted.posts.wait(posted.path, 5)) == 5
    eventually(lambda: posted.limit(before + 5)["used"] == str(before + 5))


def test_limits_are_told_when_they_are_used_up(limited: Limited) -> None:
    limited.limit(quotas=[quota("calls", 1), quota("bytes", 1)])
    assert limited.get().status == 200
    assert limited.get().reason == "QUOTA_EXHAUSTED"
    for _ in range(3):
        told = limited.get("/v1/limits")
        assert told.status == 200
        assert told.headers["x-ratelimit-remaining"] == "0"
    found = {limit["name"]: limit.get("remaining", "0") for limit in told.json()["limits"]}
    assert found == {"calls-per-month": "0", "bytes-per-month": "0"}


def test_a_stream_is_charged_by_limits_that_are_newer(limited: Limited) -> None:
    """It began without any, and ends when they are used up."""
    with watch(limited.hub, limited.made.key, "customers") as feed:
        limited.limit(quotas=[quota("records", 1)])
        keys = [f"n-{uuid.uuid4().hex[:8]}" for _ in range(2)]
        for key in keys:
            row = {"customerId": key, "name": "N"}
            reply = limited.hub.request("POST", "/v1/customers", consumer="admin", json_body=row)
            assert reply.status == 200, reply.text
        with pytest.raises(grpc.RpcError) as ended:
            feed.until(lambda: False)
    error: Any = ended.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert limited.standing()["records-per-month"]["used"] == "1"
