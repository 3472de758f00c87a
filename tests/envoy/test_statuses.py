"""HTTP statuses that follow from no status of gRPC: the hub tells them in a header, which no client
sees."""

from __future__ import annotations

import pytest

from door import Door, raw
from penstockd.answers.problem import http_status
from penstockd.answers.reasons import REASONS

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATUSES = sorted({http_status(reason) for reason in REASONS.values()} | {401, 505})
#: Headers by which earlier routes told calls apart.
HEADERS = [
    {},
    {"accept": "application/jsonl"},
    {"accept": "application/json"},
    {"if-match": '"a"'},
    {"if-none-match": '"a"'},
]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("way", ["told", "bare"])
async def test_a_told_status_is_that_of_the_reply(door: Door, way: str, status: int) -> None:
    item, file = f"/v1/customers/{way}-{status}", f"/v1/customers:export?format={way}-{status}"
    for path in (item, file):
        for headers in HEADERS:
            got, told, _ = await door.call("GET", path, headers=headers)
            assert (got, "x-http-status" in told) == (status, False), (path, headers)
        reply = await raw(door, f"GET {path} HTTP/1.1")
        assert b"x-http-status" not in reply.lower()


async def test_a_status_that_comes_too_late_is_told_to_nobody(door: Door) -> None:
    reply = await raw(door, "GET /v1/customers:export?format=late HTTP/1.1")
    assert reply.startswith(b"HTTP/1.1 200") and b"grpc-status: 8" in reply
    assert b"x-http-status" not in reply


async def test_an_import_that_fails_late_has_its_status(door: Door) -> None:
    for way, expected in (("late", 507), ("CSV", 200)):
        status, headers, said = await door.call(
            "POST", f"/v1/customers:import?format={way}", data=b"x"
        )
        assert (status, "x-http-status" in headers) == (expected, False)
        assert said == b"full" if way == "late" else "rowCount" in said


async def test_no_script_runs_for_other_replies(door: Door) -> None:
    """Nor fails: the sidecar would log that."""
    for path in ("/v1/customers/c1", "/v1/customers/missing", "/v1/customers/told-412"):
        await door.call("GET", path)
    assert "script" not in door.envoy.log.read_text()
