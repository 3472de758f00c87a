"""HEAD: the status of GET, and nothing else of it: no disclosure, wait, state, file or stream."""

from __future__ import annotations

from typing import Any

import pytest

from harness import RunningHub
from own_worker import worker
from penstock.rest.v1 import rest_pb2
from penstockd.commands import digest_records, list_changes, watch_changes
from penstockd.commands.access import review_access
from penstockd.commands.audit import export_entries, verify_entries
from penstockd.commands.scorecard import export_scorecard
from penstockd.commands.subscriptions import watch_subscription
from penstockd.commands.usage import export_usage

#: Calls that GET refuses: path, consumer, status.
REFUSED = [
    ("/v1/products:export", "crm", 403),
    ("/v1/products:exportPage", "crm", 403),
    ("/v1/products:watch", "crm", 403),
    ("/v1/products:changes", "crm", 403),
    ("/v1/products:digest", "crm", 403),
    ("/v1/audit/entries:export", "crm", 403),
    ("/v1/audit/entries:verify", "crm", 403),
    ("/v1/subscriptions/absent:watch", "admin", 404),
    ("/v1/customers:export?resume_receipt=absent", "admin", 404),
    ("/v1/customers:export?format=YAML", "admin", 400),
    ("/v1/customers:export?filter=x%20%3D", "admin", 400),
    ("/v1/customers:export?shape=absent", "admin", 404),
    ("/v1/customers:watch?fields=nothing", "admin", 400),
    ("/v1/customers:watch?cursor=nothing", "admin", 400),
    ("/v1/customers:watch?heartbeat_seconds=-1", "admin", 400),
    ("/v1/customers:watch?cursor=x&snapshot=true", "admin", 400),
    ("/v1/customers:changes?cursor=nothing", "admin", 400),
    ("/v1/customers:digest?parts=-1", "admin", 400),
    ("/v1/customers:digest?state=nothing", "admin", 400),
    ("/v1/usage:export?group_by=nothing", "admin", 400),
    ("/v1/audit/entries:export?start_day=x", "admin", 400),
    ("/v1/customers:import", "admin", 405),
    ("/v1/nothing", "admin", 404),
]


@pytest.mark.parametrize(("path", "consumer", "status"), REFUSED)
def test_head_is_refused_as_get_is(hub: RunningHub, path: str, consumer: str, status: int) -> None:
    for verb in ("GET", "HEAD"):
        reply = hub.request(verb, path, consumer=consumer)
        assert (reply.status, verb == "GET" or not reply.body) == (status, True), reply.text


@pytest.fixture(scope="module")
def cursor(hub: RunningHub) -> str:
    """A cursor after which there are changes."""
    before = str(hub.get("/v1/customers:changes").json()["nextCursor"])
    hub.request("PATCH", "/v1/customers/c00000003", consumer="admin", json_body={"notes": "head"})
    hub.head()
    return before


def paths_of(cursor: str) -> list[str]:
    """Calls that show or do something."""
    return [
        "/v1/customers",
        "/v1/customers/c00000003",
        "/v1/customers:exportPage?format=CSV",
        "/v1/customers:export?format=CSV",
        "/v1/customers:watch",
        f"/v1/customers:watch?cursor={cursor}",
        "/v1/customers:watch?snapshot=true",
        f"/v1/customers:changes?cursor={cursor}",
        f"/v1/changes?cursor={cursor}",
        f"/v1/changes:watch?cursor={cursor}",
        "/v1/customers:digest?parts=4",
        "/v1/audit/entries:export",
        "/v1/audit/entries:verify",
        "/v1/usage:export",
        "/v1/access:review",
        "/v1/scorecard:export",
    ]


def test_head_discloses_nothing(hub: RunningHub, cursor: str) -> None:
    for path in paths_of(cursor):
        reply = hub.request("HEAD", path, consumer="admin")
        assert (reply.status, reply.body) == (200, b""), path
        entries = hub.sql(
            "SELECT phase, outcome, row_count, byte_count, shown, keys, receipt_id"
            " FROM hub.audit_entry WHERE request_id = $1",
            reply.request_id,
        )
        assert entries == [("CALL", "OK", 0, 0, None, None, None)], path
    # The control: GET of a poll discloses what it shows.
    polled = hub.get(f"/v1/customers:changes?cursor={cursor}")
    count = "SELECT count(*) FROM hub.audit_entry WHERE request_id = $1 AND row_count > 0"
    assert hub.sql(count, polled.request_id) != [(0,)]


async def test_head_begins_nothing(
    hub: RunningHub, cursor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts that wait, hold a state, or send are never reached."""
    made = hub.request(
        "POST",
        "/v1/subscriptions",
        consumer="admin",
        json_body={"subscription": {"subscriptionId": "head"}},
    )
    assert made.status == 200, made.text
    begun: list[str] = []

    def reached(name: str) -> Any:
        def begin(*_: Any, **__: Any) -> Any:
            begun.append(name)
            raise AssertionError(name)

        return begin

    for module, name in [
        (list_changes, "read_page"),
        (watch_changes, "ChangeStream"),
        (digest_records, "held_state"),
        (watch_subscription, "LeaseStream"),
        (export_entries, "sending_document"),
        (export_usage, "sending_document"),
        (review_access, "sending_document"),
        (export_scorecard, "sending_document"),
        (verify_entries, "verify_database"),
    ]:
        monkeypatch.setattr(module, name, reached(name))
    monkeypatch.setattr("penstockd.exports.run.open_export", reached("open_export"))
    wait = f"/v1/customers:changes?wait=30s&cursor={hub.get('/v1/changes').json()['nextCursor']}"
    async with worker(hub, monkeypatch) as served:
        for path in [*paths_of(cursor), wait, "/v1/subscriptions/head:watch"]:
            service = "Streams" if ":watch" in path or ":export?" in path else "Calls"
            if path.endswith(("entries:export", "usage:export", "access:review", "card:export")):
                service = "Streams"
            call: Any = served.channel.unary_stream(f"/penstock.rest.v1.{service}/Call")
            metadata = (
                ("x-api-key", hub.api_key),
                ("x-envoy-original-path", path),
                ("x-envoy-original-method", "HEAD"),
            )
            pieces = [
                p async for p in call(rest_pb2.HttpCall().SerializeToString(), metadata=metadata)
            ]
            assert pieces == [], path
    assert begun == []
