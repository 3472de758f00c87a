"""Calls with a request id, repeated until they are answered, are done once, whatever is killed."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from harness import Reply, RunningHub, eventually, new_customer

CALLS = int(os.environ.get("PENSTOCK_REPEATED_CALLS", "150"))
KILLS = int(os.environ.get("PENSTOCK_REPEATED_KILLS", "4"))


def test_killed_calls_are_done_once(own_hub: RunningHub) -> None:
    """Workers and PostgreSQL's backends are killed while customers are created and counted up: a
    call that was done twice would be RECORD_EXISTS, or a second change of the record."""
    hub, enough = own_hub, threading.Event()
    repeats, began = 0, itertools.count(1)
    done: list[tuple[str, list[Reply]]] = []
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

        found: Reply = eventually(attempt)
        return found

    def work() -> None:
        while not enough.is_set():
            record = new_customer(notes="0")
            path = f"/v1/customers/{record['customerId']}"
            replies = [once("POST", "/v1/customers", record)]
            replies.append(once("PATCH", path, {"notes": str(next(began))}))
            done.append((record["customerId"], replies))

    def finished(calls: int) -> None:
        eventually(lambda: len(done) >= calls)

    def kill() -> None:
        """One kill after another, spread over the calls, which go on until all have been."""
        for number in range(KILLS):
            finished(CALLS * (number + 1) // (KILLS + 1))
            if number % 2:
                eventually(lambda: hub.processes("worker"))[0].kill()
            else:
                hub.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'penstock'"
                )
        finished(CALLS)

    with ThreadPoolExecutor(9) as pool:
        working = [pool.submit(work) for _ in range(8)]
        try:
            pool.submit(kill).result()
        finally:
            enough.set()
        for worker in working:
            worker.result()
    calls = sum(len(replies) for _, replies in done)
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
    print(f"{repeats - calls} repeats of {calls} calls")
    assert repeats > calls, "nothing was killed that mattered"
