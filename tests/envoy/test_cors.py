"""Web pages of other origins: the configured ones are allowed, others are not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from door import Door, opened
from penstock.api.v1 import customers_service_pb2 as api

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/customers/c1"
KNOWN = "https://app.example.com"
OTHERS = [
    "https://evil.example.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com.evil.com",
    "https://xapp.example.com",
    "https://APP.example.com",
    "null",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    async with opened(cors_origins=[KNOWN, "http://localhost:3000"]) as door:
        yield door


async def preflight(door: Door, origin: str, path: str = PATH) -> tuple[int, Any]:
    headers = {
        "origin": origin,
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "authorization,content-type,idempotency-key",
    }
    status, got, _ = await door.call("OPTIONS", path, headers=headers)
    return status, got


def cors_headers(headers: Any) -> list[str]:
    return [name for name in headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("path", [PATH, "/v1/customers:export", "/oauth2/token", "/pkg.Svc/Method"])
async def test_a_named_origin_may_ask(door: Door, path: str) -> None:
    calls = door.hub.calls
    for origin in (KNOWN, "http://localhost:3000"):
        status, headers = await preflight(door, origin, path)
        assert (status, headers["access-control-allow-origin"]) == (200, origin)
        assert headers["access-control-max-age"] == "7200"
        allowed = headers["access-control-allow-headers"].split(", ")
        wanted = {"authorization", "content-type", "x-api-key", "idempotency-key", "x-grpc-web"}
        assert wanted <= set(allowed)
        assert headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST, PATCH, DELETE"
        assert "access-control-allow-credentials" not in headers, "no cookies"
    assert door.hub.calls == calls, "a preflight is not the hub's business"


@pytest.mark.parametrize("origin", OTHERS)
async def test_another_origin_gets_nothing(door: Door, origin: str) -> None:
    status, headers = await preflight(door, origin)
    assert (status, cors_headers(headers)) == (404, [])
    status, headers, _ = await door.call("GET", PATH, headers={"origin": origin})
    assert (status, cors_headers(headers)) == (200, []), "the browser keeps it from the page"


@pytest.mark.parametrize("path", [PATH, "/v1/customers/missing", "/nowhere", f"{PATH}?nothing=1"])
async def test_replies_and_errors_may_be_read(door: Door, path: str) -> None:
    _, headers, _ = await door.call("GET", path, headers={"origin": KNOWN})
    assert headers["access-control-allow-origin"] == KNOWN
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "retry-after", "grpc-status", "x-ratelimit-remaining"} <= set(exposed)
    assert {"etag", "location", "link", "ratelimit", "ratelimit-policy", "allow"} <= set(exposed)
    assert {"content-disposition", "penstock-next-page-token", "penstock-receipt"} <= set(exposed)
    assert "access-control-allow-credentials" not in headers


async def test_grpc_web_may_be_called(door: Door) -> None:
    path = "/penstock.api.v1.Customers/GetCustomer"
    assert (await preflight(door, KNOWN, path))[0] == 200
    message = api.GetCustomerRequest(customer_id="w").SerializeToString()
    status, headers, body = await door.call(
        "POST",
        path,
        data=b"\0" + len(message).to_bytes(4, "big") + message,
        headers={"content-type": "application/grpc-web+proto", "origin": KNOWN},
    )
    assert (status, headers["access-control-allow-origin"]) == (200, KNOWN)
    assert b"grpc-status:0" in body.replace(b" ", b"")


async def test_without_the_setting_no_origin_is_known() -> None:
    async with opened() as closed:
        status, headers = await preflight(closed, KNOWN)
        assert (status, cors_headers(headers)) == (404, [])
        _, headers, _ = await closed.call("GET", PATH, headers={"origin": KNOWN})
        assert cors_headers(headers) == []
