"""The sidecar's limits of callers follow the plans' highest rate while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from door import Door, opened
from fake_hub import ROWS
from harness import PATIENCE
from penstockd.node import envoy
from penstockd.node.ring import RateLimit, RingRate, write_plan_rate

PATH = "/v1/customers/c1"
CALLS = 60
WIDE = RateLimit(rate=100_000, burst=100_000)


@contextlib.asynccontextmanager
async def following(limit: RateLimit) -> AsyncIterator[Door]:
    """A door that follows the plans, as the supervisor lets it."""
    async with opened(rate_limit=limit) as door:
        work = asyncio.create_task(door.envoy.follow_plans())
        try:
            yield door
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work


async def refused(door: Door, **headers: str) -> int:
    """How many of some calls at once the sidecar refuses; each refusal tells when to come again."""
    replies: list[tuple[int, Any, Any]] = await asyncio.gather(
        *(door.call("GET", PATH, headers=headers) for _ in range(CALLS))
    )
    assert {status for status, _, _ in replies} <= {200, 429}
    assert all(int(told["retry-after"]) >= 1 for status, told, _ in replies if status == 429)
    return sum(status == 429 for status, _, _ in replies)


async def wait_for_refusals(door: Door, wanted: bool, **headers: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while bool(await refused(door, **headers)) is not wanted:
            pass


async def test_limits_follow_the_plans_without_a_restart() -> None:
    async with following(WIDE) as door:
        process = door.envoy.process
        crm = {"authorization": f"Bearer {door.keys.token(sub='crm')}"}
        key = {"x-api-key": "psk_a_x"}
        assert not await refused(door, **crm) and not await refused(door, **key)
        # Everybody has a rate: nobody may do more than the highest.
        write_plan_rate(door.folder, RingRate(1, 2, all_limited=True))
        await wait_for_refusals(door, True, **crm)
        await wait_for_refusals(door, True, **key)
        # Callers without credentials have limits of their own.
        assert not await refused(door)
        write_plan_rate(door.folder, RingRate(50_000, 50_000, all_limited=True))
        await wait_for_refusals(door, False, **crm)
        await wait_for_refusals(door, False, **key)
        assert door.envoy.process is process and process is not None and process.code is None


async def test_a_plan_above_the_setting_is_not_held_back() -> None:
    async with following(RateLimit(rate=1, burst=2)) as door:
        crm = {"authorization": f"Bearer {door.keys.token(sub='crm')}"}
        await wait_for_refusals(door, True, **crm)
        # Another consumer has no rate, so that the setting still counts where it is the larger.
        write_plan_rate(door.folder, RingRate(50_000, 50_000, all_limited=False))
        await wait_for_refusals(door, False, **crm)
        write_plan_rate(door.folder, None)
        await wait_for_refusals(door, True, **crm)


async def test_a_stream_goes_on_while_limits_change() -> None:
    async with following(WIDE) as door:
        headers = {"authorization": f"Bearer {door.keys.token(sub='crm')}"}
        url = f"{door.envoy.config.url}/v1/customers:export?format=csv"
        async with door.http.get(url, headers=headers) as reply:
            assert reply.status == 200
            size = len(await reply.content.readany())
            write_plan_rate(door.folder, RingRate(1, 2, all_limited=True))
            await wait_for_refusals(door, True, **headers)
            async for piece in reply.content.iter_any():
                size += len(piece)
        assert size == len(b"customer_id,name\n") + ROWS * len(b"some customer,some name\n")


async def test_a_file_that_is_not_the_keepers_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged = asyncio.Event()
    monkeypatch.setattr(envoy, "_log", SimpleNamespace(error=lambda *_, **__: logged.set()))
    async with following(WIDE) as door:
        (door.folder / "plan-rate.json").write_text('{"rate": 1}')
        async with asyncio.timeout(PATIENCE):
            await logged.wait()
        assert not await refused(door, authorization=f"Bearer {door.keys.token(sub='crm')}")
