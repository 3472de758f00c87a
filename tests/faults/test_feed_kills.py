"""A feed of the SDK while the workers that serve it are killed."""

from __future__ import annotations

import signal
import threading
import uuid

import pytest

from feeds import put
from harness import RunningHub, eventually, signal_processes
from penstock.client import Client, PenstockError

pytestmark = pytest.mark.lane("faults/own_hub")

KILLS = 2


def test_a_feed_outlives_its_workers(own_hub: RunningHub) -> None:
    key = f"t-{uuid.uuid4().hex[:12]}"
    breaks: list[PenstockError] = []
    with Client(own_hub.url, api_key=own_hub.api_key) as client:
        feed = client.dataset("customers").watch(
            filter=f'customer_id = "{key}"', on_break=breaks.append
        )
        told: list[str] = []
        begun = threading.Event()

        def follow() -> None:
            for batch in feed:
                begun.set()
                told.extend(str(getattr(c.after, "name", "")) for c in batch.changes)

        def change(name: str) -> None:
            def written() -> bool:
                put(own_hub, "customers", {"customerId": key, "name": name})
                return True

            # A worker may still be away; and a write that repeats the stored value is not a change.
            eventually(written)
            wanted.append(name)
            eventually(lambda: told == wanted)

        def kill() -> None:
            seen = len(breaks)
            # Any worker may serve it.
            signal_processes(own_hub.processes("worker"), signal.SIGKILL)
            eventually(lambda: len(breaks) > seen)

        wanted: list[str] = []
        follower = threading.Thread(target=follow)
        follower.start()
        try:
            eventually(begun.is_set)
            for turn in range(KILLS):
                change(f"before {turn}")
                kill()
            change("last")
        finally:
            feed.close()
            follower.join()
    assert len(breaks) >= KILLS
