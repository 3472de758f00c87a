"""Subscriptions while the hub's processes are killed, and after the log was pruned."""

from __future__ import annotations

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness import Reply, RunningHub, eventually
from subscribing import Subscribed, keys_of

pytestmark = pytest.mark.lane("faults/own_hub")


def insisting(subscribed: Subscribed, verb: str, **body: Any) -> Reply:
    """Repeat a call until it is answered, since workers of a hub are killed meanwhile."""

    def answered() -> Reply | None:
        try:
            reply = subscribed.call(verb, **body)
        except (OSError, http.client.HTTPException):
            return None
        return reply if reply.status < 500 else None

    reply: Reply = eventually(answered)
    return reply


def test_killed_processes_lose_and_disorder_nothing(own_hub: RunningHub) -> None:
    subscribed = Subscribed(own_hub)
    keys = subscribed.write(20)
    processed: list[str] = []
    lock = threading.Lock()

    def kill_at(count: int) -> None:
        """Kill each process that a lease may depend on, in the middle of the work."""
        if count == 3:
            own_hub.kill("worker")
        elif count == 6:
            own_hub.kill("keeper")
        elif count == 9:
            own_hub.kill("backend")

    def work() -> None:
        while set(processed) < set(keys):
            # A reply that is lost with its worker leaves a lease behind: a short one.
            pulled = insisting(subscribed, "pull", maxChanges=1, ackSeconds=2, wait="1s").json()
            if "lease" not in pulled:
                continue
            with lock:
                processed.extend(keys_of(pulled))
                kill_at(len(processed))
            insisting(subscribed, "acknowledge", leaseId=pulled["lease"]["leaseId"])

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work) for _ in range(2)]:
            done.result()
    assert list(dict.fromkeys(processed)) == keys


def test_what_is_kept_no_longer_is_told_and_a_reset_leads_on(own_hub: RunningHub) -> None:
    subscribed = Subscribed(own_hub)
    leased = Subscribed(own_hub)
    subscribed.write(2)
    leased.write(1)
    held = leased.pull()
    assert own_hub.sql("SELECT hub.prune_log($1)", own_hub.head())[0][0] > 0
    expired = subscribed.call("pull")
    assert (expired.status, expired.json()["code"], expired.reason) == (400, 11, "CURSOR_EXPIRED")
    watch = own_hub.get(f"/v1/subscriptions/{subscribed.name}:watch")
    assert (watch.status, watch.reason) == (400, "CURSOR_EXPIRED")
    # Leased changes can be acknowledged, but not delivered again.
    leased.acknowledge(held)
    assert leased.pull(wait="0s") == {}

    (oldest,) = [
        d["metadata"]["oldest"]
        for d in expired.json()["details"]
        if d["@type"].endswith("ErrorInfo")
    ]
    assert subscribed.call("reset", start="oldest").json()["cursor"] == oldest
    keys = subscribed.write(1)
    assert keys_of(subscribed.pull()) == keys


def test_a_quiet_subscription_moves_on_with_the_log(own_hub: RunningHub) -> None:
    quiet, other = Subscribed(own_hub), Subscribed(own_hub)
    other.write(2)
    assert quiet.pull(wait="0s") == {}
    own_hub.sql("SELECT hub.prune_log($1)", own_hub.head())
    keys = quiet.write(1)
    assert keys_of(quiet.pull()) == keys
