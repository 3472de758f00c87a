"""Calls with a request id, repeated until they are answered, are done once, whatever is killed."""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chance import SEED
from harness import Reply, RunningHub, eventually, folder, new_customer

pytestmark = pytest.mark.slow

CALLS = int(os.environ.get("PENSTOCK_REPEATED_CALLS", "150"))
KILLS = int(os.environ.get("PENSTOCK_REPEATED_KILLS", "4"))


@pytest.fixture
def fragile() -> Iterator[RunningHub]:
    with folder() as data:
        hub = RunningHub(data / "hub", customers=5)
        hub.start()
        try:
            yield hub
        finally:
            hub.stop()


def test_killed_calls_are_done_once(fragile: RunningHub) -> None:
    """Workers and PostgreSQL's backends are killed while customers are created and counted up: a
    call that was done twice would be RECORD_EXISTS, or a second change of the record."""
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    hub, draw, stopped = fragile, random.Random(SEED), threading.Event()
    repeats = 0
    hub.token("admin")

    def once(method: str, path: str, body: object) -> Reply:
        nonlocal repeats
        request_id = str(uuid.uuid4())

        def attempt() -> Reply | None:
            nonlocal repeats
            repeats += 1
            try:
                reply = hub.request(
                    method,
                    path,
                    consumer="admin",
                    json_body=body,
                    headers={"Idempotency-Key": request_id},
                )
            except (OSError, http.client.HTTPException):
                return None
            if reply.status in (500, 502, 503, 504):
                return None
            if reply.status == 409 and reply.reason in ("REQUEST_IN_FLIGHT", "CONFLICT"):
                return None
            return reply

        found: Reply = eventually(attempt, 60)
        return found

    def work(number: int) -> tuple[str, list[Reply]]:
        record = new_customer(notes="0")
        path = f"/v1/customers/{record['customerId']}"
        replies = [once("POST", "/v1/customers", record)]
        replies.append(once("PATCH", path, {"notes": str(number)}))
        return record["customerId"], replies

    def kill() -> None:
        for number in range(KILLS):
            if stopped.wait(draw.uniform(0.3, 0.8)):
                return
            if number % 2:
                hub.kill("worker")
            else:
                hub.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'penstock'"
                )

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(1, CALLS + 1)))
    stopped.set()
    killer.join()
    for key, replies in done:
        assert [r.status for r in replies] == [200, 200], [r.text for r in replies]
        assert json.loads(replies[1].body)["customerId"] == key
    hub.head()
    keys = [key for key, _ in done]
    changes = hub.sql(
        "SELECT key, array_agg(operation ORDER BY operation)::int[] FROM hub.change"
        " WHERE key = ANY($1) GROUP BY key",
        keys,
    )
    assert sorted(changes) == sorted((key, [1, 2]) for key in keys)
    print(f"{repeats - 2 * CALLS} repeats of {2 * CALLS} calls")
    assert repeats > 2 * CALLS, "nothing was killed that mattered"
