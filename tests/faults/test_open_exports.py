"""R12 for exports: access that is narrowed or revoked ends running exports; access that grows does
not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from faults.exporting import receipt
from harness import PATIENCE, RunningHub, promptly_awaited

pytestmark = pytest.mark.lane("faults/roomy", priority=4)

STREAMS = int(os.environ.get("PENSTOCK_R12_STREAMS", "20"))
WITHIN = 5.0
#: The bytes that a slow reader takes, and the seconds between. The whole file would take a minute,
#: so no export ends by itself, yet none counts as stalled.
SIP, PAUSE = 32 << 10, 0.5

ALL_CLEAR = '{"PUBLIC": "clear", "INTERNAL": "clear", "PII": "clear", "SENSITIVE": "clear"}'
NO_PERSONS = '{"PUBLIC": "clear", "INTERNAL": "clear"}'
MASKS = "UPDATE hub.grant SET class_masks = $1 WHERE role_id = 'crm' AND dataset = 'customers'"
ROWS = "UPDATE hub.grant SET row_filter = $1 WHERE role_id = 'crm' AND dataset = 'customers'"


@dataclass
class Slow:
    """An XML export whose reader takes little at a time, until it is told to hurry."""

    receipt: str
    reader: asyncio.StreamReader
    hurry: asyncio.Event
    body: bytearray = field(default_factory=bytearray)
    trailers: dict[str, str] = field(default_factory=dict)
    #: Whether the body ended as a complete one does.
    whole: bool = False

    async def read(self) -> None:
        """All of it, as chunks of HTTP/1.1 with trailers."""
        while head := (await self.reader.readline()).strip():
            size = int(head, 16)
            self.whole = not size
            if self.whole:
                break
            left = size
            while left:
                piece = await self.reader.read(min(left, SIP))
                if not piece:
                    return
                left -= len(piece)
                self.body += piece
                if not self.hurry.is_set():
                    with contextlib.suppress(TimeoutError):  # the pace, not a wait for anything
                        await asyncio.wait_for(self.hurry.wait(), PAUSE)
            await self.reader.readline()
        while line := (await self.reader.readline()).decode().strip():
            name, _, value = line.partition(": ")
            self.trailers[name] = value

    def in_band(self) -> dict[str, str] | None:
        """The receipt at the end of the file."""
        last = self.body.splitlines()[-1].decode(errors="replace")
        if not last.startswith("<!-- penstock-receipt "):
            return None
        return dict(json.loads(last[len("<!-- penstock-receipt ") : -len(" -->")]))


@contextlib.asynccontextmanager
async def opened(hub: RunningHub, consumer: str, count: int) -> AsyncIterator[list[Slow]]:
    """That many running exports, each with its reader."""
    hurry, found, writers = asyncio.Event(), list[Slow](), list[asyncio.StreamWriter]()
    authorization = hub.metadata(consumer)[0][1]
    for _ in range(count):
        plain = socket.create_connection(("127.0.0.1", hub.port))
        # The kernel's buffer for a reader that has stopped counts as sent; we cannot recall it.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        reader, writer = await asyncio.open_connection(sock=plain, limit=SIP)
        writers.append(writer)
        writer.write(
            b"GET /v1/customers:export?format=XML&receipt=inline HTTP/1.1\r\n"
            b"host: hub\r\nte: trailers\r\n" + f"authorization: {authorization}\r\n\r\n".encode()
        )
        head = dict[str, str]()
        assert b"200" in await reader.readline()
        while line := (await reader.readline()).decode().strip():
            name, _, value = line.partition(": ")
            head[name] = value
        found.append(Slow(head["penstock-receipt"], reader, hurry))
    reading = [asyncio.create_task(slow.read()) for slow in found]
    try:
        yield found
        hurry.set()
        await asyncio.wait_for(asyncio.gather(*reading), PATIENCE)
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for writer in writers:
            writer.close()


async def states(hub: RunningHub, exports: list[Slow]) -> list[tuple[str, str]]:
    found = [await asyncio.to_thread(receipt, hub, slow.receipt) for slow in exports]
    return [(r["state"], r.get("reason", "")) for r in found]


async def change(hub: RunningHub, statement: str, value: str) -> None:
    await asyncio.to_thread(hub.sql, statement, value)


@contextlib.asynccontextmanager
async def restored(hub: RunningHub) -> AsyncIterator[None]:
    ((masks,),) = await asyncio.to_thread(
        hub.sql,
        "SELECT class_masks FROM hub.grant WHERE role_id = 'crm' AND dataset = 'customers'",
    )
    try:
        yield
    finally:
        await change(hub, MASKS, masks)
        await change(hub, ROWS, "")
        await asyncio.to_thread(hub.settle)  # the next test has the same role


@pytest.mark.parametrize(
    ("statement", "value"), [(MASKS, NO_PERSONS), (ROWS, "status = ACTIVE")], ids=["masks", "rows"]
)
async def test_what_is_narrowed_ends_and_what_grows_goes_on(
    roomy: RunningHub, statement: str, value: str
) -> None:
    await promptly_awaited(WITHIN, lambda: until_ended(roomy, statement, value))


async def until_ended(roomy: RunningHub, statement: str, value: str) -> float:
    """Seconds from the change of a grant until all affected exports ended."""

    def sees_more() -> bool:
        fields = {"fields": "customer_id,tax_id", "page_size": 1}
        return roomy.get("/v1/customers", "crm", **fields).status == 200

    await asyncio.to_thread(roomy.settle)  # an earlier attempt may have changed it
    async with restored(roomy), opened(roomy, "admin", 2) as others:
        async with opened(roomy, "crm", STREAMS) as exports:
            await change(roomy, MASKS, ALL_CLEAR)
            await asyncio.to_thread(roomy.settle)
            assert await asyncio.to_thread(sees_more)
            # Negative control: exports whose access grew continue.
            assert set(await states(roomy, exports)) == {("RUNNING", "")}
            began = time.monotonic()
            await change(roomy, statement, value)
            ended = {("FAILED", "ACCESS_CHANGED")}
            async with asyncio.timeout(PATIENCE):
                while set(await states(roomy, exports)) != ended:
                    pass
            taken = time.monotonic() - began
            print(f"{len(exports)} exports ended {taken:.2f} s after the change")
            assert set(await states(roomy, others)) == {("RUNNING", "")}
        for slow in exports:
            # The body is broken off; its last record may have been lost.
            assert not slow.whole and not slow.trailers
            if (said := slow.in_band()) is not None:
                assert (said["state"], said["reason"]) == ("FAILED", "ACCESS_CHANGED")
    for slow in others:
        said = slow.in_band()
        assert slow.whole
        assert said is not None and said["state"] == "COMPLETE"
        assert slow.trailers["grpc-status"] == "0"
        length = len(slow.body) - len(slow.body.splitlines(keepends=True)[-1])
        assert length == int(slow.trailers["penstock-receipt-bytes"])
    return taken


async def test_an_export_whose_credential_is_revoked_ends(roomy: RunningHub) -> None:
    revoke = "UPDATE hub.credential SET revoked = $1::text::boolean WHERE consumer_id = 'crm'"

    async def attempt() -> float:
        async with opened(roomy, "crm", 1) as exports:
            try:
                began = time.monotonic()
                await change(roomy, revoke, "true")
                async with asyncio.timeout(PATIENCE):
                    while await states(roomy, exports) != [("FAILED", "ACCESS_CHANGED")]:
                        pass
                taken = time.monotonic() - began
            finally:
                await change(roomy, revoke, "false")
                await asyncio.to_thread(roomy.settle)
        assert not exports[0].whole
        return taken

    await promptly_awaited(WITHIN, attempt)
