"""R1 for deliveries: the keeper, workers and the database are killed with -9 meanwhile.

Every acknowledged write arrives, at worst again under the same webhook-id; nothing else arrives;
and in the end nothing is left in the queue.
"""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness import PATIENCE, RunningHub, eventually
from penstock.client import Client, PenstockError
from posted import Posts, receiving

pytestmark = pytest.mark.lane("faults/own_hub")

WRITES = 400
KILLED = ("keeper", "keeper", "worker", "keeper", "postgres", "keeper")


def create_webhook(hub: RunningHub, url: str) -> str:
    """A webhook of the customers that the test writes; returns its id."""
    document = {
        "url": url,
        "selections": [{"dataset": "customers", "filter": 'customer_id = "kill-*"'}],
        "options": {"retrySeconds": [1] * 20},
    }
    made = hub.request("POST", "/v1/webhooks", consumer="admin", json_body=document)
    assert made.status == 200, made.text
    return str(made.json()["webhook"]["webhookId"])


def write_until_acknowledged(hub: RunningHub, acked: list[str]) -> None:
    """Write the records one by one, each until it is acknowledged."""
    with Client(hub.url, api_key=hub.api_key, timeout=60) as client:
        customers = client.dataset("customers")
        for i in range(WRITES):
            key = f"kill-{i:04d}"
            record: Any = customers.record_class(customer_id=key, name=key)
            while True:
                try:
                    customers.batch_upsert([record])
                    break
                except PenstockError:
                    continue  # not acknowledged: it may or may not be stored
            acked.append(key)


def arrived(posts: Posts) -> dict[str, set[str]]:
    """By key and revision, the ids of the deliveries that the receiver accepted."""
    ids = defaultdict(set)
    for post in list(posts.taken):
        event = json.loads(post.body)["data"]
        ids[event["key"] + event["revision"]].add(post.headers["webhook-id"])
    return ids


@pytest.mark.slow
def test_every_acknowledged_write_arrives_whoever_is_killed(own_hub: RunningHub) -> None:
    acked: list[str] = []
    with receiving() as posts, ThreadPoolExecutor(1) as pool:
        name = create_webhook(own_hub, posts.url + "/in")
        writing = pool.submit(write_until_acknowledged, own_hub, acked)
        for i, victim in enumerate(KILLED):
            wanted = (i + 1) * WRITES // (len(KILLED) + 2)
            eventually(lambda n=wanted: len(acked) >= n)  # type: ignore[misc]
            own_hub.kill(victim)
            eventually(lambda v=victim: own_hub.processes(v))  # type: ignore[misc]
        writing.result(PATIENCE)
        eventually(lambda: len({k[:9] for k in arrived(posts)}) >= WRITES)
        left = (
            "SELECT count(*) FROM hub.webhook_delivery"
            " WHERE webhook_id = $1 AND state <> 'DELIVERED'"
        )
        eventually(lambda: own_hub.sql(left, name) == [(0,)])
        found = arrived(posts)
        # Nothing is lost, nothing is made up, and a repeated delivery has the same id.
        assert sorted(key[:9] for key in found) == sorted(acked)
        assert all(len(ids) == 1 for ids in found.values())
        own_hub.request("DELETE", f"/v1/webhooks/{name}", consumer="admin")
