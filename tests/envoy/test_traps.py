"""Requests that could be read in two ways. If one part refuses a reading, no part may act on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio

from door import Door, opened
from harness import PATIENCE, read_log
from penstock.api.v1 import customers_service_pb2 as api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    async with opened() as door:
        yield door


@dataclass(frozen=True)
class Trap:
    """A request, the status it gets and, if the hub may see it, the record that it names."""

    name: str
    path: str
    status: int
    seen: str | None = None
    method: str = "GET"
    headers: tuple[str, ...] = ()
    body: str = ""

    @property
    def request(self) -> bytes:
        """The request as sent on the wire."""
        first = f"{self.method} {self.path} HTTP/1.1"
        given = ("Connection: close", f"X-Trap: {self.name}", *self.headers)
        if not any(h.lower().startswith("host:") for h in given):
            given = ("Host: hub", *given)
        return "\r\n".join([first, *given, "", self.body]).encode()


JSON = "Content-Type: application/json"
C1 = "/v1/customers/c1"
TRAPS = [
    # A query parameter does not override a path parameter, however it is written.
    Trap("query over path, proto name", f"{C1}?customer_id=evil", 400),
    Trap("query over path, JSON name", f"{C1}?customerId=evil", 400),
    Trap("query over path, twice", f"{C1}?customer_id=evil&customerId=evil", 400),
    Trap("query over path, _ encoded", f"{C1}?customer%5Fid=evil", 400),
    Trap("query over path, first letter encoded", f"{C1}?%63ustomerId=evil", 400),
    Trap("query over path, second parameter", f"{C1}?fields=a&customer%5fid=evil", 400),
    Trap("query over path, NUL in the name", f"{C1}?customer_id%00=evil", 400),
    Trap("query over path, plus in the name", f"{C1}?customer+id=evil", 400),
    Trap("query over path, a field of it", f"{C1}?customer_id.x=evil", 400),
    Trap("semicolon is no separator", f"{C1}?fields=name;customer_id=evil", 200, "c1"),
    Trap("encoded ampersand is no separator", f"{C1}?fields=name%26customer_id=evil", 200, "c1"),
    # A path is decoded once, and only after its method is known.
    Trap("encoded slash stays in the key", "/v1/customers/a%2Fb", 200, "a/b"),
    Trap("doubly encoded slash is decoded once", "/v1/customers/a%252Fb", 200, "a%2Fb"),
    Trap("encoded question mark stays in the key", f"{C1}%3Fx=1", 200, "c1?x=1"),
    Trap("encoded number sign stays in the key", f"{C1}%23x", 200, "c1#x"),
    Trap("semicolon stays in the key", f"{C1};customer_id=evil", 200, "c1;customer_id=evil"),
    Trap("encoded slash does not climb", "/v1/customers/..%2Fdatasets", 200, "../datasets"),
    Trap("dots climb before anything else", "/v1/x/../customers/c1", 200, "c1"),
    Trap("encoded dots climb as well", "/v1/x/%2e%2e/customers/c1", 200, "c1"),
    Trap("dots do not reach gRPC", f"{C1}/../../../penstock.api.v1.Customers/GetCustomer", 404),
    Trap("slashes are merged", "//v1///customers//c1", 200, "c1"),
    Trap("backslashes are slashes", "/v1\\customers\\c1", 200, "c1"),
    Trap("two slashes name no host", "//evil.example/v1/customers/c1", 404),
    Trap("absolute URL names no host", "http://evil.example/v1/customers/c1", 200, "c1"),
    Trap("encoded NUL", "/v1/customers/a%00b", 400),
    Trap("fragment", f"{C1}#?customer_id=evil", 400),
    Trap("bytes beyond ASCII", "/v1/customers/é", 400),
    Trap("another case is another path", "/V1/Customers/c1", 404),
    # Fields that the method does not have.
    Trap("unknown parameter", f"{C1}?nothing=1", 400),
    Trap("unknown nested parameter", "/v1/customers?filter.x=1", 400),
    Trap("array parameter", "/v1/customers?filter[]=x", 400),
    Trap("prototype parameter", f"{C1}?__proto__=1", 400),
    Trap("unknown path", "/v1/nothing", 404),
    Trap("HEAD", C1, 404, method="HEAD"),
    Trap("PUT", C1, 404, method="PUT"),
    Trap("TRACE", C1, 404, method="TRACE"),
    Trap("OPTIONS without CORS", C1, 404, method="OPTIONS"),
    Trap("CONNECT", "hub:80", 404, method="CONNECT"),
    Trap("verb in small letters", C1, 400, method="get"),
    Trap("verb override", C1, 200, "c1", headers=("X-HTTP-Method-Override: DELETE",)),
    Trap("gRPC path by GET", "/penstock.api.v1.Customers/GetCustomer", 404),
    Trap(
        "gRPC path with JSON",
        "/penstock.api.v1.Customers/GetCustomer",
        404,
        method="POST",
        headers=(JSON, "Content-Length: 2"),
        body="{}",
    ),
    # The end of one request and the start of the next.
    Trap(
        "length and chunks",
        "/v1/customers",
        400,
        method="POST",
        headers=("Content-Length: 4", "Transfer-Encoding: chunked"),
        body="0\r\n\r\n",
    ),
    Trap(
        "chunks and length",
        "/v1/customers",
        400,
        method="POST",
        headers=("Transfer-Encoding: chunked", "Content-Length: 60"),
        body="0\r\n\r\nGET /v1/customers/evil HTTP/1.1\r\nHost: hub\r\n\r\n",
    ),
    Trap(
        "two lengths",
        "/v1/customers",
        400,
        method="POST",
        headers=("Content-Length: 4", "Content-Length: 5"),
        body="{}{}{",
    ),
    Trap(
        "unknown transfer encoding",
        "/v1/customers",
        501,
        method="POST",
        headers=("Transfer-Encoding: xchunked",),
        body="0\r\n\r\n",
    ),
    Trap("blank before the colon", C1, 400, headers=("Transfer-Encoding : chunked",)),
    Trap("NUL in a header", C1, 400, headers=("X-A: a\0b",)),
    Trap("two hosts", C1, 400, headers=("Host: hub", "Host: evil")),
    Trap("h2c upgrade is passed over", C1, 200, "c1", headers=("Upgrade: h2c",)),
    Trap("web socket", C1, 403, headers=("Upgrade: websocket", "Connection: upgrade")),
    Trap("header with an underscore", C1, 400, headers=("X_API_KEY: k",)),
    # A compressed body is not unpacked: it is not JSON.
    Trap(
        "packed body",
        C1,
        400,
        method="PATCH",
        headers=(JSON, "Content-Encoding: gzip", "Content-Length: 10"),
        body="\x1f\x08\0\0\0\0\0\0\0\0",
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replies(door: Door) -> dict[str, tuple[bytes, bool]]:
    """The status that each trap gets, and whether the hub saw it; all at once, as the sidecar waits
    a second before it closes a suspect connection."""
    seen: set[str] = set()
    note = door.hub.note_call

    def noting(context: Any) -> None:
        note(context)
        seen.add(door.hub.metadata.get("x-trap", ""))

    async def send(trap: Trap) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.envoy.config.port)
        writer.write(trap.request)
        async with asyncio.timeout(PATIENCE):
            reply = await reader.read()
        writer.close()
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door.hub, "note_call", noting)
        got = await asyncio.gather(*(send(trap) for trap in TRAPS))
    return {t.name: (r, t.name in seen) for t, r in zip(TRAPS, got, strict=True)}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
async def test_a_request_has_one_meaning(
    replies: dict[str, tuple[bytes, bool]], trap: Trap
) -> None:
    reply, seen = replies[trap.name]
    head, _, body = reply.partition(b"\r\n\r\n")
    assert int(head.split(b" ")[1]) == trap.status, reply
    assert reply.count(b"HTTP/1.1 ") == 1, "one request, one reply"
    assert b"\r\ngrpc-" not in head
    assert seen == (trap.seen is not None)
    if trap.seen is not None:
        assert json.loads(body)["customerId"] == trap.seen
    elif trap.method != "HEAD":
        assert json.loads(body)["details"][0]["reason"], "an error in the hub's shape"


async def test_a_header_cannot_be_made_by_a_key(door: Door) -> None:
    """Decoded parts of a path come back in bodies, never as a header line."""
    path = "/v1/customers/a%0d%0aSet-Cookie:%20x=1"
    status, headers, body = await door.call("GET", path)
    assert status == 200 and body["customerId"] == "a\r\nSet-Cookie: x=1"
    assert "set-cookie" not in headers


@pytest.mark.parametrize("surface", ["rest", "grpc"])
async def test_claims_and_addresses_are_not_the_callers_to_say(door: Door, surface: str) -> None:
    spoofed = {
        "x-envoy-original-path": "/evil",
        "x-envoy-original-method": "DELETE",
        "x-envoy-external-address": "6.6.6.6",
        "x-envoy-internal": "true",
        "x-envoy-decorator-operation": "evil",
        "x-envoy-retry-on": "5xx",
        "x-envoy-max-retries": "99",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-upstream-alt-stat-name": "evil",
        "x-envoy-ip-tags": "evil",
        "x-forwarded-for": "6.6.6.6",
        "x-forwarded-client-cert": "evil",
        "x-http-status": "299",
        "x-request-id": "evil",
        "x-jwt-payload": "evil",
    }
    if surface == "grpc":
        request = api.GetCustomerRequest(customer_id="g")
        await door.stub().GetCustomer(request, metadata=list(spoofed.items()))
    else:
        status, _, _ = await door.call("GET", f"{C1}?fields=name", headers=spoofed)
        assert status == 200
    got = {name: door.hub.metadata.get(name) for name in spoofed}
    assert got.pop("x-envoy-external-address") == "127.0.0.1"
    assert "6.6.6.6" not in str(got.pop("x-forwarded-for"))
    assert got.pop("x-request-id") not in (None, "evil")
    assert got.pop("x-jwt-payload") == "evil", "means nothing here: the token itself goes on"
    if surface == "rest":
        assert got.pop("x-envoy-original-path") == f"{C1}?fields=name"
        assert got.pop("x-envoy-original-method") == "GET"
    assert set(got.values()) == {None}


async def test_two_authorizations_go_on_as_both(door: Door) -> None:
    """The hub sees that there are two, and accepts neither (tests/security)."""
    token = door.keys.token()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.envoy.config.port)
    head = f"GET {C1} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n"
    writer.write(f"{head}Authorization: Bearer {token}\r\nAuthorization: Bearer x\r\n\r\n".encode())
    await reader.read()
    writer.close()
    assert door.hub.metadata["authorization"] == f"Bearer {token},Bearer x"


async def test_a_grpc_path_is_told_who_calls(door: Door) -> None:
    """Rules for /v1 alone would leave gRPC paths unchecked: the token's subject must arrive."""
    request = api.GetCustomerRequest(customer_id="g")
    call = door.stub().GetCustomer(
        request, metadata=[("authorization", f"Bearer {door.keys.token()}")]
    )
    await call
    assert await call.code() is grpc.StatusCode.OK
    async with asyncio.timeout(PATIENCE):
        while True:
            entries = read_log(door.envoy.config.access_log)
            grpc_calls = [e for e in entries if e["path"] and "Customers/Get" in e["path"]]
            if any(entry["sub"] == "crm" for entry in grpc_calls):
                return
            await asyncio.sleep(0.05)


async def test_errors_of_the_sidecar_come_as_problems_to_who_asks(door: Door) -> None:
    for method, path, status, reason in [("POST", "/oauth2/token", 413, "REQUEST_TOO_LARGE")]:
        headers = {"accept": "application/problem+json, application/json;q=0.5"}
        data = b"x" * 70_000 if method == "POST" else None
        got, headers_, body = await door.call(method, path, headers=headers, data=data)
        assert (got, headers_["content-type"]) == (status, "application/problem+json")
        told = json.loads(body)
        assert (told["status"], told["reason"]) == (status, reason)
        assert told["type"].endswith(f"/v1/errors/{reason}")
        assert told["title"] and told["detail"]
        assert told["requestId"] == headers_["x-request-id"]
