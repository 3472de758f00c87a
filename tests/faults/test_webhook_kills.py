"""R1 over deliveries: the keeper, workers and the database are killed with -9 meanwhile.

Every acknowledged write arrives, at worst again under the same webhook-id; nothing arrives that was
not written; and when all is over nothing is left behind.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from typing import Any

import pytest

from harness import RunningHub, eventually
from penstock.client import Client, PenstockError
from posted import receiving

WRITES = 400
KILLED = ("keeper", "keeper", "worker", "keeper", "postgres", "keeper")


@pytest.mark.slow
def test_every_acknowledged_write_arrives_whoever_is_killed(own_hub: RunningHub) -> None:
    with receiving() as posts:
        made = own_hub.request(
            "POST",
            "/v1/webhooks",
            consumer="admin",
            json_body={
                "url": posts.url + "/in",
                "selections": [{"dataset": "customers", "filter": 'customer_id = "kill-*"'}],
                "options": {"retrySeconds": [1] * 20},
            },
        )
        assert made.status == 200, made.text
        name = made.json()["webhook"]["webhookId"]
        acked: list[str] = []
        done = threading.Event()

        def write() -> None:
            with Client(own_hub.url, api_key=own_hub.api_key, timeout=60) as client:
                customers = client.dataset("customers")
                for i in range(WRITES):
                    key = f"kill-{i:04d}"
                    record: Any = customers.record_class(customer_id=key, name=key)
                    while True:
                        try:
                            customers.batch_upsert([record])
                            break
                        except PenstockError:
                            continue  # not acknowledged: it may or may not be there
                    acked.append(key)
            done.set()

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        for i, victim in enumerate(KILLED):
            wanted = (i + 1) * WRITES // (len(KILLED) + 2)
            eventually(lambda n=wanted: len(acked) >= n, 120)  # type: ignore[misc]
            own_hub.kill(victim)
            eventually(lambda v=victim: own_hub.processes(v), 60)  # type: ignore[misc]
        assert done.wait(120)
        writer.join()

        def arrived() -> dict[str, set[str]]:
            ids = defaultdict(set)
            for post in list(posts.taken):
                event = json.loads(post.body)
                ids[event["data"]["key"] + event["data"]["revision"]].add(
                    post.headers["webhook-id"]
                )
            return ids

        eventually(lambda: len({k[:9] for k in arrived()}) >= WRITES, 120)
        eventually(
            lambda: (
                own_hub.sql(
                    "SELECT count(*) FROM hub.webhook_delivery"
                    " WHERE webhook_id = $1 AND state <> 'DELIVERED'",
                    name,
                )
                == [(0,)]
            ),
            60,
        )
        found = arrived()
        keys = [key[:9] for key in found]
        assert sorted(keys) == sorted(acked)  # nothing lost, nothing made up
        assert all(len(ids) == 1 for ids in found.values())  # repeated only under the same id
        own_hub.request("DELETE", f"/v1/webhooks/{name}", consumer="admin")
