"""The limits of the public port: headers, streams, connections, slow senders, calls of one
caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from door import Door, opened, raw, rich_status
from fake_hub import Keys
from harness import PATIENCE, ROOT, folder
from http2 import frame
from penstock.api.v1 import customers_service_pb2 as api
from penstockd import resources
from penstockd.node.ring import RateLimit

pytestmark = pytest.mark.lane(priority=6)

PATH = "/v1/customers/c1"
GET = f"GET {PATH} HTTP/1.1"
LIMIT = RateLimit(rate=10, burst=20)
"""The anonymous get 1 a second, 2 at once; addresses with keys 20, 40 at once."""


@contextlib.asynccontextmanager
async def limited(**changes: Any) -> AsyncIterator[Door]:
    """A door with LIMIT in which a second lasts an hour, so that the speed of a test does not
    matter."""
    with folder() as copy:
        shutil.copytree(resources.envoy_templates(), copy / "envoy")
        buckets = copy / "envoy" / "public" / "buckets.yaml.j2"
        text = buckets.read_text()
        assert "fill_interval: 1s" in text
        buckets.write_text(text.replace("fill_interval: 1s", "fill_interval: 3600s"))
        template = copy / "envoy" / "sidecar.yaml.j2"
        async with opened(template=template, rate_limit=LIMIT, **changes) as door:
            yield door


def reason(body: dict[str, Any]) -> str:
    return next(str(d["reason"]) for d in body["details"] if "reason" in d)


async def test_headers_have_limits() -> None:
    async with opened() as door:
        cases: list[tuple[bytes, list[str]]] = [
            (b"200", [f"x-long: {'a' * 40_000}"]),
            (b"431", [f"x-long: {'a' * 60_000}"]),
            (b"200", [f"x-{i}: 1" for i in range(90)]),
            (b"431", [f"x-{i}: 1" for i in range(110)]),
            (b"400", ["x_api_key: 1"]),
        ]
        for status, headers in cases:
            reply = await raw(door, GET, *headers)
            assert reply.startswith(b"HTTP/1.1 " + status), headers[0][:20]
            if status != b"200":
                body = json.loads(reply.partition(b"\r\n\r\n")[2])
                assert reason(body) in ("REQUEST_TOO_LARGE", "REQUEST_MALFORMED")
        assert door.hub.calls == 2


async def test_a_connection_has_a_hundred_streams_and_no_more() -> None:
    """Written in raw frames: well-behaved clients never request too many."""
    head = b"\x83\x86\x84" + b"\x41\x03hub"  # POST http / hub, from the static table
    async with opened() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.envoy.config.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        writer.write(b"".join(frame(1, 4, 2 * i + 1, head) for i in range(101)))
        told: dict[int, int] = {}
        async with asyncio.timeout(PATIENCE):
            while 201 not in told:
                length, kind, _, stream = struct.unpack(
                    ">IBBI", b"\0" + await reader.readexactly(9)
                )
                payload = await reader.readexactly(length)
                if kind == 4:
                    settings = dict(struct.iter_unpack(">HI", payload))
                    assert not settings or settings[3] == 100
                if kind == 3:
                    told[stream] = int.from_bytes(payload, "big")
        assert told == {201: 7}, "REFUSED_STREAM: safe to send again"
        writer.close()


async def test_who_sends_slowly_is_not_waited_for() -> None:
    async with opened(header_seconds=1, call_seconds=1) as door:
        for sent in (f"{GET}\r\nhost: hub\r\n", "POST /v1/customers HTTP/1.1\r\nhost: hub\r\n"):
            body = "" if sent.startswith("GET") else "content-length: 50\r\n\r\n{"
            reader, writer = await asyncio.open_connection("127.0.0.1", door.envoy.config.port)
            writer.write((sent + body).encode())
            async with asyncio.timeout(PATIENCE):
                reply = await reader.read()
            assert reply.split(b" ")[1] in (b"408", b"504"), reply
            assert b"CALL_TIMEOUT" in reply
            writer.close()
        assert door.hub.calls == 0


async def answered(reader: asyncio.StreamReader) -> None:
    """Read what has arrived on a connection, so that its end shows if it has come."""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(0.3):
            while await reader.read(1 << 16):
                pass


def open_(reader: asyncio.StreamReader) -> bool:
    return not reader.at_eof() and reader.exception() is None


async def ask_for_keys(door: Door) -> None:
    """One of the hub's own connections, which comes and goes."""
    reader, writer = await asyncio.open_unix_connection(door.envoy.config.private_socket)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()


async def test_connections_have_a_limit() -> None:
    async with contextlib.AsyncExitStack() as held, opened(max_connections=8) as door:

        async def connect() -> tuple[asyncio.StreamWriter, asyncio.StreamReader, bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", door.envoy.config.port)
            held.callback(writer.close)
            async with asyncio.timeout(PATIENCE):
                try:
                    writer.write(f"{GET}\r\nhost: hub\r\n\r\n".encode())
                    return writer, reader, await reader.read(15)
                except ConnectionError:
                    return writer, reader, b""

        served = [await connect() for _ in range(8)]
        assert {line for *_, line in served} == {b"HTTP/1.1 200 OK"}
        # With Envoy's limit for the whole process, each of these that ended made room for another.
        for _ in range(3):
            await ask_for_keys(door)
        served += [await connect() for _ in range(4)]
        assert served[-1][2] == b""
        # A place is free only after one of them has closed: never are more than eight open.
        async with asyncio.timeout(PATIENCE):
            while sum(open_(reader) for _, reader, _ in served) > 8:
                await asyncio.gather(*(answered(reader) for _, reader, _ in served))
        served[0][0].close()
        async with asyncio.timeout(PATIENCE):
            while not (await connect())[2]:  # the place of a closed one is free
                pass


async def test_memory_is_watched() -> None:
    async with opened() as door:
        stats = await door.envoy.admin("GET", "/stats?filter=overload")
        for action in (
            "shrink_heap",
            "disable_http_keepalive",
            "stop_accepting_requests",
            "stop_accepting_connections",
            "reduce_timeouts",
            "reset_high_memory_stream",
        ):
            assert f"overload.envoy.overload_actions.{action}.active: 0" in stats
        assert "fixed_heap.pressure" in stats


async def calls(door: Door, number: int, **headers: str) -> list[tuple[int, Any, Any]]:
    return [await door.call("GET", PATH, headers=headers) for _ in range(number)]


def statuses(replies: list[tuple[int, Any, Any]]) -> Counter[int]:
    return Counter(status for status, _, _ in replies)


async def test_a_consumer_has_a_limit_of_its_own() -> None:
    async with limited(public_url="https://hub.example.com") as door:
        crm, bi = (f"Bearer {door.keys.token(sub=sub)}" for sub in ("crm", "bi"))
        replies = await calls(door, 40, authorization=crm)
        counts = statuses(replies)
        assert counts == {200: 20, 429: 20}
        assert [status for status, _, _ in replies[:20]] == [200] * 20
        _, headers, body = next(reply for reply in replies if reply[0] == 429)
        assert "x-ratelimit-limit" not in headers, "those are the hub's, about the caller's plan"
        assert int(headers["retry-after"]) >= 1
        details = {d["@type"].rpartition(".")[2]: d for d in body["details"]}
        assert body["code"] == 8 and details["ErrorInfo"]["reason"] == "RATE_LIMITED"
        assert details["RetryInfo"]["retryDelay"] == "1s"
        assert details["QuotaFailure"]["violations"]
        assert details["Help"]["links"][0]["url"].startswith("https://hub.example.com/v1/errors/")
        # Another consumer is not affected, and a new token does not make a new consumer.
        assert statuses(await calls(door, 5, authorization=bi)) == {200: 5}
        again = f"Bearer {door.keys.token(sub='crm', jti='another')}"
        assert statuses(await calls(door, 5, authorization=again)) == {429: 5}
        asked = {"authorization": crm, "accept": "application/problem+json"}
        problems = await calls(door, 5, **asked)
        _, headers, body = next(reply for reply in problems if reply[0] == 429)
        assert headers["content-type"] == "application/problem+json"
        told = json.loads(body)
        assert (told["status"], told["reason"]) == (429, "RATE_LIMITED")


async def test_the_limit_is_one_of_time() -> None:
    async with opened(rate_limit=LIMIT) as door:

        async def status() -> int:
            return (await door.call("GET", PATH))[0]

        async with asyncio.timeout(PATIENCE):
            while 429 not in await asyncio.gather(*(status() for _ in range(20))):
                pass
            while await status() != 200:
                pass


async def test_grpc_is_told_resource_exhausted() -> None:
    async with limited() as door:
        stub, token = door.stub(), door.keys.token()
        request = api.GetCustomerRequest(customer_id="c1")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            for _ in range(40):
                await stub.GetCustomer(request, metadata=[("authorization", f"Bearer {token}")])
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rich_status(error.value)
        assert "RATE_LIMITED" in str(status) and "retry" in str(status).lower()


async def test_a_key_has_a_limit_of_its_own_and_made_up_keys_share_one() -> None:
    async with limited() as door:
        headers = {"x-api-key": "psk_a_x"}
        assert statuses(await calls(door, 40, **headers)) == {200: 20, 429: 20}
        headers["x-api-key"] = "psk_b_x"
        assert statuses(await calls(door, 5, **headers)) == {200: 5}
        made_up: Counter[int] = Counter()
        for number in range(100):
            (reply,) = await calls(door, 1, **{"x-api-key": f"psk_{number}_x"})
            made_up[reply[0]] += 1
            if made_up[429]:
                break
        # The two keys have used 25 of the address's calls; what is refused uses none.
        assert made_up == {200: 15, 429: 1}, "40 at once, whatever their names"


async def test_without_credentials_an_address_has_little() -> None:
    async with limited() as door:
        assert statuses(await calls(door, 8)) == {200: 2, 429: 6}
        # Callers with credentials are not affected by those at the same address that have none.
        good = await calls(door, 3, authorization=f"Bearer {door.keys.token()}")
        assert statuses(good) == {200: 3}
        for headers in ({"authorization": "Bearer of-another-issuer"}, {"x-api-key": "psk_a_x"}):
            assert statuses(await calls(door, 3, **headers)) == {200: 3}
        status, _, _ = await door.call("POST", "/oauth2/token", data="secret=x")
        assert status == 200
        assert (await door.call("GET", "/healthz"))[0] == 200


@pytest.mark.parametrize("kind", ["bad", "expired", "stranger", "sign-in"])
async def test_credentials_that_only_the_hub_can_check_count_by_address(kind: str) -> None:
    async with limited() as door:
        counts: Counter[int] = Counter()
        for number in range(25):
            if kind == "sign-in":
                counts[(await door.call("POST", "/oauth2/token", data="secret=x"))[0]] += 1
                continue
            token = {
                "bad": f"x{number}",
                "expired": door.keys.token(exp=1, sub=f"c{number}"),
                "stranger": Keys().token(sub=f"c{number}"),
            }[kind]
            counts += statuses(await calls(door, 1, authorization=f"Bearer {token}"))
        most = 4 if kind == "sign-in" else 20
        assert counts == {200: most, 429: 25 - most}
        good = await calls(door, 3, authorization=f"Bearer {door.keys.token()}")
        assert statuses(good) == {200: 3}


async def test_tickets_in_urls_count_like_tokens_that_only_the_hub_can_check() -> None:
    async with limited() as door:
        counts: Counter[int] = Counter()
        for number in range(25):
            path = f"/v1/customers:watch?filter=a&ticket=t{number}"
            counts[(await door.call("GET", path))[0]] += 1
        assert counts == {200: 20, 429: 5}
        # Elsewhere it is no credential.
        elsewhere = [await door.call("GET", f"{PATH}?ticket=x") for _ in range(8)]
        assert statuses(elsewhere) == {400: 2, 429: 6}, "the hub knows no such parameter"


async def preflight(door: Door) -> int:
    headers = {"origin": "https://a.example", "access-control-request-method": "GET"}
    return (await door.call("OPTIONS", PATH, headers=headers))[0]


async def probe(door: Door) -> int:
    return (await door.call("GET", "/readyz"))[0]


async def document(door: Door) -> int:
    headers = {"x-api-key": "psk_a_x", "authorization": f"Bearer {door.keys.token()}"}
    return (await door.call("GET", "/portal/", headers=headers))[0]


@pytest.mark.parametrize("file", ["", "assets/{script}"])
async def test_a_file_that_is_refused_is_neither_compressed_nor_kept(file: str) -> None:
    """The headers of the file are not those of the error in its place."""
    script = next((ROOT / "gen/portal/assets").glob("index-*.js"))
    async with limited() as door:
        path = f"/portal/{file.format(script=script.name)}"
        (sent, kept, _), (refused, headers, body) = [await door.call("GET", path) for _ in range(2)]
    assert (sent, refused) == (200, 429)
    assert kept["content-encoding"] == "gzip" and "no-store" not in kept["cache-control"]
    assert "content-encoding" not in headers and headers["cache-control"] == "no-store"
    assert body["details"][0]["reason"] == "RATE_LIMITED"


@pytest.mark.parametrize(("call", "most"), [(preflight, 2), (probe, 2), (document, 1)])
async def test_what_is_open_to_all_has_limits_by_address(call: Any, most: int) -> None:
    """Before and after the limits of callers, and with any credentials."""
    async with limited(cors_origins=["https://a.example"], trusted_proxies=1) as door:
        assert Counter([await call(door) for _ in range(6)]) == {200: most, 429: 6 - most}
        if call is not probe:
            assert await probe(door) == 200, "health checks are refused for no other calls"
        assert statuses(await calls(door, 2)) == {200: 2}
        status, _, _ = await door.call(
            "GET", "/healthz", headers={"x-forwarded-for": "203.0.113.1"}
        )
        assert status == 200


async def test_reflection_has_a_limit_and_health_has_its_own() -> None:
    async with limited() as door, channel(door) as made:
        codes = Counter([await grpc_code(made, REFLECTION, b"") for _ in range(4)])
        # The miniature worker has no reflection.
        assert codes == {
            grpc.StatusCode.UNIMPLEMENTED: 1,
            grpc.StatusCode.RESOURCE_EXHAUSTED: 3,
        }
        await calls(door, 8)
        assert await grpc_code(made, "/grpc.health.v1.Health/Check", b"") is grpc.StatusCode.OK
        # The call would last for ever, for any caller.
        watch = await grpc_code(made, "/grpc.health.v1.Health/Watch", b"")
        assert watch is grpc.StatusCode.UNIMPLEMENTED


REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def channel(door: Door) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{door.envoy.config.port}")


async def grpc_code(made: grpc.aio.Channel, path: str, request: bytes) -> grpc.StatusCode:
    call: Any = made.unary_unary(path)
    try:
        await call(request)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_behind_a_proxy_the_address_is_the_callers() -> None:
    async with limited(trusted_proxies=1) as door:

        def from_(address: str) -> dict[str, str]:
            return {"x-forwarded-for": address}

        assert statuses(await calls(door, 6, **from_("203.0.113.1"))) == {200: 2, 429: 4}
        assert door.hub.metadata["x-envoy-external-address"] == "203.0.113.1"
        assert statuses(await calls(door, 2, **from_("203.0.113.2"))) == {200: 2}
        # What a caller writes before the proxy's own entry is not trusted.
        forged = from_("198.51.100.7, 203.0.113.3")
        assert statuses(await calls(door, 1, **forged)) == {200: 1}
        assert door.hub.metadata["x-envoy-external-address"] == "203.0.113.3"
        # A network of 64 bits counts as one address.
        six = [await calls(door, 1, **from_(f"2001:db8::{i:x}")) for i in range(1, 9)]
        assert sum((statuses(replies) for replies in six), Counter()) == {200: 2, 429: 6}
    async with limited() as door:
        await calls(door, 1, **from_("203.0.113.1"))
        assert door.hub.metadata["x-envoy-external-address"] == "127.0.0.1"
