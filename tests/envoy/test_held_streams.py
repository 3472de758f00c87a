"""Callers that request much and read nothing: HTTP/2 with a window of 0.

The memory that one stream makes the sidecar hold is read from the sidecar's own statistics. The
earlier way of serving the console, and codecs without limits, are the negative controls.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from door import Door, opened
from harness import PATIENCE, folder
from http2 import DATA, WINDOW_UPDATE, connected, frame
from penstockd import resources

FOLDER = resources.find_portal()
FILE = max((p for p in FOLDER.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
SCRIPT = f"/portal/{FILE.relative_to(FOLDER).as_posix()}"
SIZE = FILE.stat().st_size
#: The most that a stream may hold: its window of 64 KiB, plus a codec and bookkeeping.
BOUND = 300_000
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
#: Longer than any test.
NEVER = 3600
STREAMS = 100


async def memory(door: Door) -> int:
    """Bytes that the sidecar has allocated."""
    reply = await door.envoy.admin("GET", "/memory")
    found = re.search(r'"allocated": "(\d+)"', reply)
    assert found is not None, reply
    return int(found[1])


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  what is waited for is counted by a reader of frames
            await asyncio.sleep(0.02)


async def settled(door: Door) -> int:
    """Its memory, once that has stopped growing."""
    before = -1
    async with asyncio.timeout(PATIENCE):
        while (now := await memory(door)) > before:
            before = now
            await asyncio.sleep(0.3)
    return before


async def held_by_a_stream(
    door: Door, path: str, headers: dict[str, str], count: int = STREAMS
) -> float:
    """The bytes that the sidecar holds for each of ``count`` streams that read nothing of a
    reply."""
    # Caches and a connection to the hub remain after the first stream; they do not count.
    async with connected(door.envoy.config.port) as first:
        first.request(1, path, **headers)
        await until(lambda: first.answered)
    before = await settled(door)
    async with connected(door.envoy.config.port, window=0) as connection:
        for number in range(count):
            connection.request(2 * number + 1, path, **headers)
        await until(lambda: len(connection.answered) == count)
        assert not connection.received
        return (await settled(door) - before) / count


@contextlib.asynccontextmanager
async def as_before(**changes: Any) -> AsyncIterator[Door]:
    """A door that serves the console's script as its own response, and compresses it."""
    with folder() as copy:
        shutil.copytree(resources.envoy_templates(), copy / "envoy")
        routes = copy / "envoy" / "public" / "routes.yaml.j2"
        text, head, mark = (
            routes.read_text(),
            "            name: public\n",
            "              routes:\n",
        )
        assert head in text and mark in text
        answer = {
            "match": {"path": SCRIPT},
            "direct_response": {"status": 200, "body": {"filename": str(FILE)}},
            "response_headers_to_add": [{"header": {"key": "content-type", "value": "text/css"}}],
            "typed_per_filter_config": {
                f"envoy.filters.http.{name}": {
                    "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
                    "disabled": True,
                }
                for name in ("grpc_json_transcoder", "file_server")
            },
        }
        bound = f"{head}            max_direct_response_body_size_bytes: {SIZE}\n"
        text = text.replace(head, bound)
        routes.write_text(text.replace(mark, f"{mark}              - {json.dumps(answer)}\n"))
        filters = copy / "envoy" / "public" / "filters.yaml.j2"
        text = filters.read_text()
        for new, old in ((", window_bits: 18, input_block_bits: 18", ""), ('"exports"', '""')):
            assert new in text
            text = text.replace(new, old)
        filters.write_text(text)
        sidecar = copy / "envoy" / "sidecar.yaml.j2"
        text = sidecar.read_text()
        for line in ("stream_flush_timeout", "HTTP_DOWNSTREAM_STREAM_FLUSH"):
            text, count = re.subn(rf".*{line}.*\n", "", text)
            assert count == 1
        sidecar.write_text(text.replace("power_of_two: 14", "power_of_two: 20"))
        async with opened(template=sidecar, **changes) as door:
            yield door


async def test_a_stream_holds_little_that_is_not_taken() -> None:
    async with opened(stalled_seconds=NEVER) as door:
        bearer = {"authorization": f"Bearer {door.keys.token()}"}
        for encoding in ("identity", "gzip", "br", "zstd"):
            script = await held_by_a_stream(door, SCRIPT, {"accept_encoding": encoding})
            assert script < SIZE / 2, encoding
            path = "/v1/customers/c1"
            reply = await held_by_a_stream(door, path, bearer | {"accept_encoding": encoding})
            assert reply < BOUND, encoding


async def test_the_way_it_was_is_found_out() -> None:
    async with as_before(stalled_seconds=NEVER) as door:
        assert await held_by_a_stream(door, SCRIPT, {"accept_encoding": "identity"}, 20) > SIZE
        assert await held_by_a_stream(door, SCRIPT, {"accept_encoding": "br"}, 20) > 10 * SIZE


async def test_who_takes_nothing_is_let_go() -> None:
    """Both what the sidecar serves itself and what the hub has answered in full."""
    async with opened(stalled_seconds=1, call_seconds=1) as door:
        for path in (SCRIPT, "/v1/customers/c1", "/v1/customers/missing"):
            async with connected(door.envoy.config.port, window=0) as connection:
                for number in range(STREAMS):
                    connection.request(2 * number + 1, path, accept_encoding="identity")
                await until(lambda c=connection: len(c.reset) == STREAMS)
                # Their places are free for other streams on the same connection.
                connection.request(2 * STREAMS + 1, path)
                await until(lambda c=connection: 2 * STREAMS + 1 in c.answered)


async def test_a_slow_client_gets_all_of_a_large_reply() -> None:
    """It takes a little at a time, for longer than others wait who have no credentials."""
    async with (
        opened(stalled_seconds=1, call_seconds=60) as door,
        connected(door.envoy.config.port, window=0) as slow,
    ):
        bearer = f"Bearer {door.keys.token()}"
        slow.request(1, "/v1/customers/c1", accept_encoding="identity", authorization=bearer)
        await until(lambda: slow.answered)
        began = time.monotonic()
        while time.monotonic() < began + 3:
            slow.writer.write(frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")))
            await asyncio.sleep(0.1)
            assert not slow.ended | slow.reset
        slow.writer.write(frame(WINDOW_UPDATE, 0, 1, (65536).to_bytes(4, "big")))
        await until(lambda: slow.ended | slow.reset)
        assert slow.ended and slow.received[1] > 2000
        # The way it was, by a route for anybody.
        slow.request(3, SCRIPT, accept_encoding="identity")
        await until(lambda: 3 in slow.reset)


def idle_seconds(route: dict[str, Any], usual: float) -> float:
    """The seconds for which a stream of a route may be silent; 0 for ever."""
    given = route.get("route", {}).get("idle_timeout")
    return usual if given is None else float(given.removesuffix("s"))


async def public_manager(door: Door) -> dict[str, Any]:
    """The sidecar's own dump of the HTTP settings of its public listener."""
    connector = aiohttp.UnixConnector(str(door.envoy.config.admin_socket))
    url = "http://envoy/config_dump?resource=static_listeners"
    async with aiohttp.ClientSession(connector=connector) as http, http.get(url) as reply:
        listeners = [c["listener"] for c in (await reply.json(content_type=None))["configs"]]
    (public,) = [one for one in listeners if one["name"] == "public"]
    manager: dict[str, Any] = public["filter_chains"][0]["filters"][-1]["typed_config"]
    return manager


async def test_no_stream_may_be_silent_for_ever() -> None:
    async with opened() as door:
        manager = await public_manager(door)
    usual = float(manager["stream_idle_timeout"].removesuffix("s"))
    assert 0 < usual <= 300
    assert 0 < float(manager["stream_flush_timeout"].removesuffix("s")) <= 5
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert len(routes) > 10
    for route in routes:
        assert 0 < idle_seconds(route, usual) <= 300, route["match"]
        taken = route.get("route", {}).get("flush_timeout", "5s")
        assert 0 < float(taken.removesuffix("s")) <= 60, route["match"]
    assert idle_seconds({"route": {"idle_timeout": "0s"}}, usual) == 0


def total_seconds(route: dict[str, Any]) -> float:
    """The seconds for which a stream of a route may last; 0 without limit."""
    if "direct_response" in route:
        return 1
    given = route["route"].get("max_stream_duration", {}).get("max_stream_duration", "0s")
    return float(given.removesuffix("s"))


async def test_only_streams_last_as_long_as_they_like() -> None:
    """By the descriptors: a call with one request message and one reply message ends after a
    time."""
    inputs = json.loads(resources.envoy_inputs().read_text())
    async with opened() as door:
        manager = await public_manager(door)
    endless = [
        route["match"]
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]
        if not 0 < total_seconds(route) <= 120
    ]
    # Once for gRPC, once for gRPC-Web; those of REST are matched by their verbs.
    by_path = Counter(match["path"] for match in endless if "path" in match)
    assert by_path == dict.fromkeys(inputs["grpc_streams"], 2)
    patterns = {match["safe_regex"]["regex"] for match in endless if "path" not in match}
    verbs = {f"/v1/(data/)?[^:/]+:{verb}" for verb in ("export", "import", "review")}
    assert patterns == {"/v1/[^:]+:(watch)", "/v1/audit/entries:export", *verbs}
    for path in inputs["stream_paths"] + inputs["upload_paths"]:
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
    assert all(path.endswith(":watch") for path in inputs["feed_paths"])
    assert total_seconds({"route": {"timeout": "0s"}}) == 0


async def test_a_call_without_a_stream_ends_although_bytes_come() -> None:
    """The miniature worker waits for its message, as any handler of a library does."""
    async with opened(call_seconds=1, header_seconds=1) as door:
        for path in ("/penstock.api.v1.Customers/GetCustomer", REFLECTION):
            async with connected(door.envoy.config.port) as slow:
                slow.begin(1, path, content_type="application/grpc", te="trailers")
                while 1 not in slow.ended:
                    slow.writer.write(frame(DATA, 0, 1, b"\0"))
                    await asyncio.sleep(0.1)
                await until(lambda c=slow: 1 in c.reset)
        # A caller's stream, where the method allows one, continues as long as bytes arrive.
        async with connected(door.envoy.config.port) as slow:
            path = "/penstock.api.v1.Customers/ImportCustomers"
            slow.begin(1, path, content_type="application/grpc", te="trailers")
            for _ in range(30):
                slow.writer.write(frame(DATA, 0, 1, b"\0\0\0\0\0"))
                await asyncio.sleep(0.1)
            assert not slow.ended | slow.reset


async def hold(door: Door, connections: int, stack: contextlib.AsyncExitStack) -> None:
    """Let callers request more in total than the sidecar has memory for, and read nothing."""
    port = door.envoy.config.port
    held = [await stack.enter_async_context(connected(port, window=0)) for _ in range(connections)]
    for connection in held:
        for number in range(STREAMS):
            connection.request(2 * number + 1, SCRIPT, accept_encoding="identity")
    await until(lambda: any(len(c.answered) == STREAMS or c.closed for c in held))
    await settled(door)


async def served(door: Door, seconds: float = PATIENCE) -> bool:
    """Whether a well-behaved client's call is served, on a connection of its own."""
    close = {"connection": "close"}
    try:
        async with asyncio.timeout(seconds):
            token = door.keys.token()
            status, _, _ = await door.call("GET", "/v1/customers/c1", token=token, headers=close)
            return status == 200
    except (TimeoutError, aiohttp.ClientError):
        return False


async def test_a_good_client_is_served_when_memory_is_short() -> None:
    async with opened() as door:
        usual = await memory(door)
    # Room for less than a third of what the streams would hold if each held the whole file.
    heap, connections = usual + (60 << 20), 8
    assert connections * STREAMS * SIZE > 3 * (heap - usual)
    async with contextlib.AsyncExitStack() as stack:
        door = await stack.enter_async_context(opened(stalled_seconds=60, heap_bytes=heap))
        await hold(door, connections, stack)
        async with asyncio.timeout(PATIENCE):
            streak = 0
            while streak < 50:
                streak = streak + 1 if await served(door) else 0
    async with contextlib.AsyncExitStack() as stack:
        door = await stack.enter_async_context(as_before(heap_bytes=heap))
        await hold(door, connections, stack)
        assert [await served(door, 2) for _ in range(3)] == [False] * 3
