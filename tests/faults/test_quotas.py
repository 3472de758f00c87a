"""Quotas are exact whoever is killed or frozen, and streams that they end can be resumed."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from feeds import Made, consumer_with, grant, watch
from harness import PATIENCE, RunningHub, eventually, signal_processes

CALLS = (
    "SELECT count(*) FROM hub.audit_entry WHERE consumer_id = $1 AND phase = 'CALL'"
    " AND method LIKE '%ListCustomers' AND outcome <> ALL ($2)"
)
WRITES = {**grant("customers"), "actions": ["read", "create", "update"]}
#: Outcomes that are not charged.
FREE = ["QUOTA_EXHAUSTED", "RATE_LIMITED", "INTERNAL", "DATABASE_UNAVAILABLE", "HUB_UNAVAILABLE"]


def limit(hub: RunningHub, made: Made, **limits: Any) -> None:
    """Give a consumer these limits alone; they are in force on return."""
    path = f"/v1/access/consumers/{made.name}?update_mask=limits"
    reply = hub.insist("PATCH", path, consumer="admin", json_body={"limits": limits})
    assert reply.status == 200, reply.text
    hub.settle()


def quota(what: str, most: int, **more: Any) -> dict[str, Any]:
    return {"what": what, "per": "month", "limit": str(most), **more}


def used(hub: RunningHub, made: Made) -> int:
    """What the ledger says was spent of the one quota, with what processes hold."""
    found = hub.sql("SELECT sum(used)::int FROM hub.allowance WHERE consumer_id = $1", made.name)
    return int(found[0][0] or 0)


class Callers:
    """Threads that call until every answer for a while is a refusal."""

    def __init__(self, hub: RunningHub, made: Made) -> None:
        self._hub, self._headers = hub, {"x-api-key": made.key.removeprefix("key:")}
        self.answered: Counter[int] = Counter()
        self.stop = threading.Event()

    def call(self) -> None:
        while not self.stop.is_set():
            try:
                reply = self._hub.request("GET", "/v1/customers?page_size=1", headers=self._headers)
                self.answered[reply.status] += 1
            except (OSError, http.client.HTTPException):
                continue


def freeze(hub: RunningHub) -> None:
    """Freeze a worker until what it held was taken back."""

    def spenders() -> set[Any]:
        return {row[0] for row in hub.sql("SELECT spender_id FROM hub.spender")}

    worker, before = hub.processes("worker")[0], spenders()
    worker.send_signal(signal.SIGSTOP)
    eventually(lambda: before - spenders())
    signal_processes([worker], signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_a_quota_is_exact_though_workers_die(own_hub: RunningHub, harm: str) -> None:
    """What a dead or frozen worker held comes back, and nothing is admitted twice."""
    most = 400
    with consumer_with(own_hub, grant("customers")) as made, ThreadPoolExecutor(4) as pool:
        limit(own_hub, made, quotas=[quota("calls", most)])
        callers = Callers(own_hub, made)
        calling = [pool.submit(callers.call) for _ in range(4)]
        try:
            for at in (100, 200):
                eventually(lambda at=at: callers.answered[200] >= at)  # type: ignore[misc]
                if harm == "kill":
                    own_hub.kill("worker")
                    continue
                freeze(own_hub)
            # The rest is admitted once the last term is over.
            eventually(lambda: own_hub.sql(CALLS, made.name, FREE) == [(most,)])
            refused = callers.answered[429]
            eventually(lambda: callers.answered[429] > refused + 20)
        finally:
            callers.stop.set()
        for each in calling:
            each.result(PATIENCE)
        assert own_hub.sql(CALLS, made.name, FREE) == [(most,)]
        assert callers.answered[200] <= most
        eventually(lambda: used(own_hub, made) == most)


def export(hub: RunningHub, made: Made, **query: object) -> tuple[bytes, str]:
    """What an export sent before it ended, and its receipt."""
    headers = {"x-api-key": made.key.removeprefix("key:")}
    place = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE)
    path = "/v1/customers:export?" + "&".join(f"{k}={v}" for k, v in query.items())
    place.request("GET", path, headers=headers)
    reply = place.getresponse()
    data = b""
    try:
        while piece := reply.read1(65536):
            data += piece
    except (OSError, http.client.HTTPException):
        pass
    finally:
        place.close()
    return data, reply.headers.get("penstock-receipt", "")


@pytest.mark.slow
def test_an_export_that_a_quota_ends_can_be_resumed(roomy: RunningHub) -> None:
    """And it is charged for exactly what the audit states as sent."""
    with consumer_with(roomy, grant("customers")) as made:
        whole, _ = export(roomy, made, format="NDJSON")
        records = whole.count(b"\n")
        ((before,),) = roomy.sql("SELECT max(entry_id) FROM hub.audit_entry")
        limit(roomy, made, quotas=[quota("records", records // 2)])
        start, receipt = export(roomy, made, format="NDJSON")
        assert 0 < start.count(b"\n") <= records // 2
        found = roomy.request(
            "GET", f"/v1/receipts/{receipt}", headers={"x-api-key": made.key.removeprefix("key:")}
        ).json()
        assert (found["state"], found["reason"]) == ("FAILED", "QUOTA_EXHAUSTED")
        limit(roomy, made, quotas=[quota("records", 2 * records)])
        rest, _ = export(
            roomy, made, format="NDJSON", resume_receipt=receipt, resume_offset=len(start)
        )
        assert start + rest == whole
        # What the audit states as sent under the quotas, the part that broke off twice included.
        sent = (
            "SELECT sum(row_count)::int FROM hub.audit_entry"
            " WHERE consumer_id = $1 AND phase = 'END' AND entry_id > $2"
        )
        eventually(lambda: roomy.sql(sent, made.name, before) == [(used(roomy, made),)])
        assert records <= used(roomy, made) < 2 * records


def test_a_feed_that_a_quota_ends_can_be_resumed(own_hub: RunningHub) -> None:
    run = uuid.uuid4().hex[:8]
    rows = [{"customerId": f"q-{run}-{n}", "name": "Q"} for n in range(30)]
    with consumer_with(own_hub, grant("customers")) as made:
        limit(own_hub, made, quotas=[quota("records", 10)])
        with watch(own_hub, made.key, "customers", batch_size=5) as stream:
            for row in rows:
                reply = own_hub.request("POST", "/v1/customers", consumer="admin", json_body=row)
                assert reply.status == 200, reply.text
            with pytest.raises(grpc.RpcError) as ended:
                stream.until(lambda: False)
            error: Any = ended.value
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            keys = [event.key for event in stream.events]
        assert 0 < len(keys) <= 10
        limit(own_hub, made, quotas=[quota("records", 100)])
        assert stream.end is not None and stream.end.reason == "QUOTA_EXHAUSTED"
        cursor = stream.end.cursor
        with watch(own_hub, made.key, "customers", cursor=cursor) as rest:
            rest.until(lambda: len(rest.events) + len(keys) >= 30)
            keys += [event.key for event in rest.events]
        assert [k for k in keys if run in k] == [row["customerId"] for row in rows]


def test_imports_are_charged_when_they_commit(own_hub: RunningHub) -> None:
    run = uuid.uuid4().hex[:8]
    with consumer_with(own_hub, WRITES) as made:
        limit(own_hub, made, quotas=[quota("import_records", 5)])
        headers = {
            "x-api-key": made.key.removeprefix("key:"),
            "content-type": "application/x-ndjson",
        }

        def load(first: int, count: int) -> Any:
            lines = [
                json.dumps({"customer_id": f"i-{run}-{n}", "name": "I"})
                for n in range(first, first + count)
            ]
            return own_hub.request(
                "POST", "/v1/customers:import?format=NDJSON", headers=headers,
                body="\n".join(lines).encode(),
            )  # fmt: skip

        assert load(0, 3).status == 200
        refused = load(3, 3)
        assert (refused.status, refused.reason) == (429, "QUOTA_EXHAUSTED")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["ratelimit"].startswith('"import_records-per-month";r=')
        stored = "SELECT count(*) FROM data.customers WHERE customer_id LIKE $1"
        assert own_hub.sql(stored, f"i-{run}-%") == [(3,)], "nothing of a refused import stays"
        assert load(3, 2).status == 200
        assert own_hub.sql(stored, f"i-{run}-%") == [(5,)]
        eventually(lambda: used(own_hub, made) == 5)
