"""R6: an export is one state of the data, whatever is written meanwhile and however often it is
cut.

PENSTOCK_R6_CUTS sets the size, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chance import SEED
from faults.exporting import (
    begun,
    between,
    changes_after,
    export,
    receipt,
    records,
    replayed,
    stands_for,
)
from faults.traffic import BETWEEN, Traffic, others_write
from harness import EVERY_WORKER, PATIENCE, RunningHub, eventually
from penstockd.catalog import Catalog

pytestmark = pytest.mark.lane("faults/roomy")

CUTS = int(os.environ.get("PENSTOCK_R6_CUTS", "10"))
ROWS_PER_SECOND = 500
BATCH = 25
#: The cuts of one export; then another one begins.
CUTS_PER_EXPORT = 5
PLAIN: dict[str, Any] = {"format": "NDJSON"}


@contextlib.asynccontextmanager
async def written(hub: RunningHub) -> AsyncIterator[Traffic]:
    """Write 500 rows a second during the block."""
    over = asyncio.Event()

    async def write(traffic: Traffic, chance: random.Random) -> None:
        began, count = time.monotonic(), 0
        keys: list[str] = []
        while not over.is_set():
            fresh = [f"{traffic.prefix}-{count}-{i}" for i in range(BATCH - 5)]
            old = chance.sample(keys, min(5, len(keys)))
            await traffic.upsert([*fresh, *old])
            keys = [*keys, *fresh][-400:]
            count += 1
            with contextlib.suppress(TimeoutError):  # the pace, not a wait for anything
                pause = began + count * BATCH / ROWS_PER_SECOND - time.monotonic()
                await asyncio.wait_for(over.wait(), max(0.001, pause))

    async with Traffic(hub.url, hub.api_key, SEED) as traffic:
        writing = asyncio.create_task(write(traffic, random.Random(SEED)))
        try:
            yield traffic
        finally:
            over.set()
            await writing


def cut_and_resumed(hub: RunningHub, traffic: Traffic, chance: random.Random, cuts: int) -> str:
    """Cut and resume an export that many times; returns the id of its receipt.

    Others write before it begins, and after each cut.
    """
    others_write(traffic)
    size = len(export(hub, **PLAIN).data) * 9 // 10
    places = sorted(chance.randrange(1, size) for _ in range(cuts))
    got = export(hub, until=places[0], **PLAIN)
    identifier, data = got.receipt, got.data
    for place in [*places[1:], None]:
        others_write(traffic)
        until = None if place is None else place - len(data)
        if until == 0:
            continue
        resumed: dict[str, Any] = {"resume_receipt": identifier, "resume_offset": len(data)}
        got = export(hub, until=until, **PLAIN, **resumed)
        assert got.status == 200, got.data
        assert got.receipt == identifier
        data += got.data
    found = receipt(hub, identifier)
    assert stands_for(found, data), (found, len(data), places)
    # The same state again, in one piece.
    whole = export(hub, **PLAIN, resume_receipt=identifier, resume_offset=0)
    assert whole.data == data
    return identifier


async def test_cut_exports_go_on_and_fit_the_log(roomy: RunningHub, catalog: Catalog) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    async with written(roomy) as traffic:
        start = await asyncio.to_thread(export, roomy, **PLAIN)
        done = 0
        while done < CUTS:
            cuts = min(CUTS_PER_EXPORT, CUTS - done)
            last = await asyncio.to_thread(cut_and_resumed, roomy, traffic, chance, cuts)
            done += cuts
    end = await asyncio.to_thread(export, roomy, **PLAIN, resume_receipt=last, resume_offset=0)
    assert end.status == 200, end.data
    await asyncio.to_thread(roomy.head)
    places = [(await asyncio.to_thread(receipt, roomy, g.receipt))["cursor"] for g in (start, end)]
    after_start, after_end = [await changes_after(roomy, place) for place in places]
    beyond = {c.number for c in after_end}
    changes = [c for c in after_start if c.number not in beyond]
    print(f"{done} cuts, {len(changes)} changes between, {len(traffic.acked)} writes")
    assert len(changes) >= 500, "others wrote before the last export began"
    assert len(beyond) >= CUTS_PER_EXPORT * BETWEEN, "others wrote while it was read"
    began, ended = records(catalog, start.data), records(catalog, end.data)
    assert replayed(catalog, began, changes) == ended
    # Negative control: the changes that are last for their key are all needed.
    lasting = {c.key: c for c in changes}
    dropped = chance.choice(list(lasting.values()))
    assert replayed(catalog, began, [c for c in changes if c is not dropped]) != ended


def test_a_worker_that_was_killed_cannot_go_on_and_says_so(roomy: RunningHub) -> None:
    def served() -> bool:
        return roomy.get("/v1/customers", page_size=1).status == 200

    with begun(roomy, 1 << 20, **PLAIN) as got:
        assert receipt(roomy, got.receipt)["state"] == "RUNNING"
        workers = roomy.processes("worker")
        for worker in workers:
            worker.kill()
            worker.wait(PATIENCE)
        eventually(lambda: len(roomy.processes("worker")) == len(workers))
        # Ask often enough that a call reaches a worker that Envoy has yet to find dead or alive.
        eventually(lambda: all(served() for _ in range(EVERY_WORKER)))
    found = receipt(roomy, got.receipt)
    assert (found["state"], found["reason"]) == ("FAILED", "EXPORT_NOT_RESUMABLE")
    resumed: dict[str, Any] = {"resume_receipt": got.receipt, "resume_offset": len(got.data)}
    again = export(roomy, **PLAIN, **resumed)
    assert (again.status, again.reason) == (400, "EXPORT_NOT_RESUMABLE")


def test_the_command_goes_on_when_its_connection_breaks(roomy: RunningHub, tmp_path: Path) -> None:
    sent: dict[int, int] = {}

    def cut(number: int, data: bytes) -> bytes | None:
        sent[number] = sent.get(number, 0) + len(data)
        return None if sent[number] > 1_000_000 and len(sent) < 4 else data

    target = tmp_path / "c.csv"
    with between(roomy.port, cut) as url:
        done = roomy.command("export", "customers", "-o", str(target), "--url", url, "--as=admin")
    assert len(sent) == 4, sent  # the token's connection, those that were cut, and the last
    found = receipt(roomy, re.findall(rb"receipt (\w+)", done.stderr)[0].decode())
    assert stands_for(found, target.read_bytes())
    assert found["resumeCount"] >= 2
    printed = roomy.command("receipt", found["receiptId"], "--as=admin").stdout.decode()
    assert found["sha256"] in printed


@pytest.mark.parametrize("flip", [True, False])
def test_the_command_finds_a_flipped_byte(roomy: RunningHub, tmp_path: Path, flip: bool) -> None:
    flipped: list[int] = []

    def alter(number: int, data: bytes) -> bytes:
        at = data.find(b"copy-7-c0")
        if not flip or flipped or at < 0:
            return data
        flipped.append(number)
        return data[:at] + b"C" + data[at + 1 :]

    target = tmp_path / "c.csv"
    with between(roomy.port, alter) as url:
        arguments = ("export", "customers", "-o", str(target), "--url", url, "--as=admin")
        done = roomy.command(*arguments, check=False)
    assert bool(flipped) is flip
    assert (done.returncode, target.exists()) == ((1, False) if flip else (0, True))
    assert (b"EXPORT_INCOMPLETE" in done.stderr) is flip
