"""W1, and the days after: bad receivers, retries by a clock that the test sets, dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from certificates import Authority
from harness import PATIENCE
from penstockd.webhooks.model import DEFAULT_SCHEDULE, Selection, State, next_time
from penstockd.webhooks.queue import requeue_dead
from penstockd.webhooks.sender import READ_BYTES, retry_after
from webhook_rig import START, Receiver, Rig, customer, receiving, status

Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw(answer: Raw, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that treats each connection in its own way; its URL."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await answer(reader, writer)
        running.discard(task)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}/in"
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def head(reader: asyncio.StreamReader) -> None:
    """Read a whole request."""
    lines = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(lines.partition(b"content-length:")[2].split(b"\r\n")[0])
    await reader.readexactly(length)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head(reader)
    await asyncio.Event().wait()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head(reader)
    writer.transport.abort()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head(reader)
    writer.write(b"\x00\x01SSH-2.0-no\r\n\r\n")
    await writer.drain()
    await asyncio.Event().wait()


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-a: " + b"y" * 8000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reset, "CONNECTION_FAILED"),
        (garbage, "REPLY_BROKEN"),
        (endless_head, "REPLY_BROKEN"),
    ],
)
async def test_a_receiver_that_does_not_answer_is_tried_again(
    rig: Rig, answer: Raw, reason: str
) -> None:
    async with raw(answer) as url:
        name = await rig.endpoint(url)
        await rig.log(("c1", None, customer("c1")))
        assert await rig.deliver() == 1
    assert await rig.states(name) == [("PENDING", reason)]


@pytest.mark.parametrize("answer", [hang, drip])
async def test_a_receiver_that_takes_too_long_is_tried_again(hasty: Rig, answer: Raw) -> None:
    async with raw(answer) as url:
        name = await hasty.endpoint(url)
        await hasty.log(("c1", None, customer("c1")))
        # The deadline is a second; the point is that the attempt ends.
        async with asyncio.timeout(PATIENCE):
            assert await hasty.deliver() == 1
    assert await hasty.states(name) == [("PENDING", "TIMEOUT")]


@pytest.mark.parametrize(
    ("code", "reason"), [(500, "STATUS"), (404, "STATUS"), (302, "REDIRECT"), (307, "REDIRECT")]
)
async def test_other_statuses_fail_and_no_redirect_is_followed(
    rig: Rig, receiver: Receiver, code: int, reason: str
) -> None:
    receiver.answers["/in"] = status(code, location=receiver.url + "/elsewhere")
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    assert await rig.states(name) == [("PENDING", reason)]
    assert receiver.of("/elsewhere") == []


async def test_no_more_than_64_kib_of_a_reply_is_read(rig: Rig) -> None:
    sent = 0
    ended = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")
        piece = b"x" * 16384
        try:
            while True:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        finally:
            ended.set()

    async with raw(flood) as url:
        name = await rig.endpoint(url)
        await rig.log(("c1", None, customer("c1")))
        await rig.deliver()
        await asyncio.wait_for(ended.wait(), 30)
    # Its status was read, so it counts as delivered; the network in between holds some megabytes.
    assert await rig.states(name) == [("DELIVERED", "")]
    assert READ_BYTES <= sent < 64 * 1024 * 1024


async def test_a_gzip_bomb_stays_packed(rig: Rig, receiver: Receiver) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"content-encoding": "gzip"})

    receiver.answers["/in"] = answer
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    assert await rig.states(name) == [("DELIVERED", "")]
    ((kept,),) = await rig.rows("SELECT reply_body FROM hub.webhook_attempt")
    assert bytes(kept) == bomb[:1024]


async def test_a_certificate_that_nobody_vouches_for_is_refused(rig: Rig, tmp_path: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(Authority("nobody's").pair().file(tmp_path / "pair.pem"))
    async with receiving(tls) as receiver:
        name = await rig.endpoint(receiver.url + "/in")
        await rig.log(("c1", None, customer("c1")))
        await rig.deliver()
        assert receiver.requests == []
    assert await rig.states(name) == [("PENDING", "TLS_FAILED")]


async def test_nobody_there(rig: Rig) -> None:
    name = await rig.endpoint("http://127.0.0.1:9/in")
    other = await rig.endpoint("http://does-not-exist.invalid/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    assert await rig.states(name) == [("PENDING", "CONNECTION_FAILED")]
    assert await rig.states(other) == [("PENDING", "ADDRESS_REFUSED")]


async def test_410_disables_and_buries_what_waits(rig: Rig, receiver: Receiver) -> None:
    receiver.answers["/in"] = status(
        410, **{"retry-after": f"Sun, 01 Mar 2026 12:05:00 +{'9' * 20}"}
    )
    name = await rig.endpoint(receiver.url + "/in", concurrency=1)
    told = await rig.endpoint(receiver.url + "/told", notices=True)
    await rig.log(*[(f"c{i}", None, customer(f"c{i}")) for i in range(5)])
    await rig.deliver()
    states = await rig.states(name)
    assert {s for s, _ in states} == {"DEAD"}
    assert {r for _, r in states} == {"GONE", "ENDPOINT_DISABLED"}
    assert (await rig.webhook(name)).state is State.DISABLED
    await rig.log(("c9", None, customer("c9")))
    await rig.deliver()
    assert (await rig.states(name))[-1] == ("DEAD", "ENDPOINT_DISABLED")
    kinds = {json.loads(r.body)["type"] for r in receiver.of("/told")}
    assert kinds == {"customer.created", "webhook.disabled"}
    assert await rig.states(told)


async def test_scopes_decide_on_events_and_notices(rig: Rig, receiver: Receiver) -> None:
    """The webhook's scopes bound what it delivers, whatever its owner's roles allow."""
    receiver.answers["/in"] = status(410)
    both = (Selection("customers"), Selection("orders"))
    await rig.endpoint(receiver.url + "/in", concurrency=1)
    for path, scopes in (("/some", "customers:read"), ("/none", "orders:read webhooks.read")):
        narrow = frozenset(scopes.split())
        await rig.endpoint(receiver.url + path, selections=both, scopes=narrow, notices=True)
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()

    def told(path: str) -> set[str]:
        return {json.loads(r.body)["type"] for r in receiver.of(path)}

    assert told("/some") == {"customer.created"}
    assert told("/none") == {"webhook.disabled"}


async def test_retry_after_is_honoured(rig: Rig, receiver: Receiver) -> None:
    receiver.answers["/in"] = status(429, **{"retry-after": "3600"})
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    ((next_try,),) = await rig.rows(
        "SELECT next_time FROM hub.webhook_delivery WHERE webhook_id = $1", name
    )
    assert next_try == START + timedelta(hours=1)


def test_what_retry_after_may_say() -> None:
    assert retry_after("120", START) == timedelta(minutes=2)
    assert retry_after("Sun, 01 Mar 2026 12:05:00 GMT", START) == timedelta(minutes=5)
    assert retry_after("Sun, 01 Mar 2020 12:05:00 GMT", START) == timedelta()
    assert retry_after("9" * 400, START) == timedelta(days=1)
    beyond = "9" * 20
    for text in (
        *(None, "", "soon", "-5", "1e9"),
        f"Sun, 01 Mar 2026 12:05:00 +{beyond}",
        f"Sun, {beyond} Mar 2026 12:05:00 GMT",
        f"Sun, 01 Mar {beyond} 12:05:00 GMT",
    ):
        assert retry_after(text, START) is None


def test_ten_attempts_over_75_hours_and_35_minutes() -> None:
    at, tries = START, 1
    while (following := next_time(DEFAULT_SCHEDULE, tries, at, chance=lambda: 0.5)) is not None:
        at, tries = following, tries + 1
    assert tries == 10
    assert at - START == timedelta(hours=75, minutes=35, seconds=5)


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 240), (0.5, 300), (0.999999, 360)])
def test_jitter_is_a_fifth_either_way(chance: float, seconds: int) -> None:
    found = next_time((5, 300), 2, START, chance=lambda: chance)
    assert found is not None
    assert abs((found - START).total_seconds() - seconds) < 0.01


async def test_every_attempt_of_the_days_is_kept_and_the_last_is_final(
    rig: Rig, receiver: Receiver
) -> None:
    receiver.answers["/in"] = status(503)
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    for seconds in DEFAULT_SCHEDULE:
        assert await rig.dispatcher.drain() == 0
        rig.clock.move(seconds=seconds)
        assert await rig.dispatcher.drain() == 1
    assert await rig.states(name) == [("DEAD", "STATUS")]
    assert len({r.id for r in receiver.requests}) == 1
    stamps = [int(r.headers["webhook-timestamp"]) for r in receiver.requests]
    assert len(set(stamps)) == 10 and stamps == sorted(stamps)
    assert len({r.headers["webhook-signature"] for r in receiver.requests}) == 10
    rows = await rig.rows("SELECT attempt, status FROM hub.webhook_attempt ORDER BY attempt")
    assert rows == [(i, 503) for i in range(1, 11)]
    # After a recovery, it starts again under its id.
    receiver.answers.clear()
    async with rig.database.transaction() as connection:
        assert await requeue_dead(connection, name, rig.clock(), START) == 1
    assert await rig.dispatcher.drain() == 1
    assert await rig.states(name) == [("DELIVERED", "")]
    assert len({r.id for r in receiver.requests}) == 1


async def test_days_of_failure_warn_and_then_disable(rig: Rig, receiver: Receiver) -> None:
    receiver.answers["/in"] = status(500)
    name = await rig.endpoint(receiver.url + "/in", schedule=(3600,) * 20)
    await rig.endpoint(receiver.url + "/told", notices=True, consumer="crm")
    stranger = await rig.endpoint(receiver.url + "/stranger", notices=True, consumer="admin")
    said: list[tuple[float, str]] = []
    for hour in range(0, 126, 6):
        await rig.log((f"c{hour}", None, customer(f"c{hour}")))
        await rig.deliver()
        for request in receiver.of("/told"):
            event = json.loads(request.body)
            percent = str(event["data"].get("percent", event["type"]))
            if event["type"].startswith("webhook.") and percent not in {p for _, p in said}:
                said.append((hour, percent))
        if (await rig.webhook(name)).state is State.DISABLED:
            break
        rig.clock.move(hours=6)
    assert said == [(60, "50"), (84, "70"), (108, "90"), (120, "webhook.disabled")]
    assert (await rig.webhook(name)).reason == "FAILED_FOR_DAYS"
    assert {s for s, _ in await rig.states(name)} == {"DEAD"}
    kinds = {json.loads(r.body)["type"] for r in receiver.of("/stranger")}
    assert kinds == {"customer.created"} and stranger


async def test_one_success_ends_the_count(rig: Rig, receiver: Receiver) -> None:
    receiver.answers["/in"] = status(500)
    name = await rig.endpoint(receiver.url + "/in")
    await rig.log(("c1", None, customer("c1")))
    await rig.deliver()
    assert (await rig.webhook(name)).failing_time == START
    receiver.answers.clear()
    rig.clock.move(days=4)
    await rig.dispatcher.drain()
    found = await rig.webhook(name)
    assert (found.failing_time, found.warned, found.state) == (None, 0, State.ACTIVE)
