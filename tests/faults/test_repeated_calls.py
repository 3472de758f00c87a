"""Calls with a request id, repeated until they are answered, take effect once, whatever is
killed."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import Reply, RunningHub, eventually, new_customer

pytestmark = pytest.mark.lane("faults/own_hub")

CALLS = int(os.environ.get("PENSTOCK_REPEATED_CALLS", "150"))
KILLS = int(os.environ.get("PENSTOCK_REPEATED_KILLS", "4"))


class Caller:
    """Creates customers and increments them until it is stopped; repeats unanswered calls."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.enough = threading.Event()
        self.attempts = 0
        self.done: list[tuple[str, list[Reply]]] = []
        self._notes = itertools.count(1)

    def work(self) -> None:
        """Create one customer after the other, and change each once."""
        while not self.enough.is_set():
            record = new_customer(notes="0")
            path = f"/v1/customers/{record['customerId']}"
            replies = [self.call("POST", "/v1/customers", record)]
            replies.append(self.call("PATCH", path, {"notes": str(next(self._notes))}))
            self.done.append((record["customerId"], replies))

    def call(self, method: str, path: str, body: object) -> Reply:
        """The answer to a call, which is repeated under one id until it is answered."""
        request_id = str(uuid.uuid4())
        reply: Reply = eventually(lambda: self._attempt(method, path, body, request_id))
        return reply

    def _attempt(self, method: str, path: str, body: object, request_id: str) -> Reply | None:
        self.attempts += 1
        headers = {"Idempotency-Key": request_id}
        try:
            reply = self.hub.request(
                method, path, consumer="admin", json_body=body, headers=headers
            )
        except (OSError, http.client.HTTPException):
            return None
        if reply.status in (500, 502, 503, 504):
            return None
        if reply.status == 409 and reply.reason in ("REQUEST_IN_FLIGHT", "CONFLICT"):
            return None
        return reply


def kill_meanwhile(caller: Caller) -> None:
    """Kill one process after another, spread over the calls, which continue until the last kill."""
    for number in range(KILLS):
        eventually(lambda n=number: len(caller.done) >= CALLS * (n + 1) // (KILLS + 1))  # type: ignore[misc]
        if number % 2:
            caller.hub.kill("worker")
        else:
            caller.hub.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'penstock'"
            )
    eventually(lambda: len(caller.done) >= CALLS)


def test_killed_calls_are_done_once(own_hub: RunningHub) -> None:
    """Workers and PostgreSQL's backends are killed meanwhile. A call that took effect twice would
    fail with RECORD_EXISTS, or change the record a second time."""
    caller = Caller(own_hub)
    own_hub.token("admin")
    with ThreadPoolExecutor(9) as pool:
        working = [pool.submit(caller.work) for _ in range(8)]
        try:
            pool.submit(kill_meanwhile, caller).result()
        finally:
            caller.enough.set()
        for worker in working:
            worker.result()
    for key, replies in caller.done:
        assert [r.status for r in replies] == [200, 200], [r.text for r in replies]
        assert json.loads(replies[1].body)["customerId"] == key
    own_hub.head()
    keys = [key for key, _ in caller.done]
    changes = own_hub.sql(
        "SELECT key, array_agg(operation ORDER BY operation)::int[] FROM hub.change"
        " WHERE key = ANY($1) GROUP BY key",
        keys,
    )
    assert sorted(changes) == sorted((key, [1, 2]) for key in keys)
    calls = sum(len(replies) for _, replies in caller.done)
    print(f"{caller.attempts - calls} repeats of {calls} calls")
    assert caller.attempts > calls, "nothing was killed that mattered"
