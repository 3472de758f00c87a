"""Consumers that keep copies of a hub's data and must learn that it was undone: two workers of a
subscription (one pulls, the other streams), the receiver of a webhook, a replica."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from harness import RunningHub, eventually
from penstock.client import Client, FeedEnded
from posted import Posts
from subscribing import Subscribed

UNDONE = "changes.undone"
REFUSED = (400, "CURSOR_INVALID")


class Downstream:
    """All of these consumers, each with all customers, created before the state that will be
    restored."""

    def __init__(self, hub: RunningHub, posts: Posts, file: Path) -> None:
        self.hub, self.posts, self._file = hub, posts, file
        self.worker, self.streamed = (Subscribed(hub, filter="") for _ in range(2))
        self._path = f"/{self.worker.name}"
        made = hub.request(
            "POST",
            "/v1/webhooks",
            consumer="admin",
            json_body={
                "url": f"{posts.url}{self._path}",
                "selections": [{"dataset": "customers"}],
                "options": {"retrySeconds": [1] * 20},
            },
        )
        assert made.status == 200, made.text
        self.replicate()

    def replicate(self) -> str:
        """Update the replica; returns the command's output."""
        done = self.hub.command("replica", "customers", "--to", str(self._file))
        return done.stderr.decode()

    def take(self, keys: set[str]) -> dict[str, Any]:
        """Pull until all ``keys`` have come; returns the last lease that was acknowledged."""
        wanted, last = set(keys), {}
        while wanted:
            pulled = eventually(self.worker.pull)
            wanted -= {change["key"] for change in pulled["changes"]}
            self.worker.acknowledge(pulled)
            last = pulled["lease"]
        eventually(lambda: {key for _, key in self.posted()} >= keys)
        self.replicate()
        return last

    def posted(self, kind: str = "") -> list[tuple[dict[str, Any], str]]:
        """The webhook's messages with their keys, of one type or of records."""
        mine = [p for p in list(self.posts.taken) if p.path == self._path]
        # A repeated message with the same id, as after a keeper lost its lease, counts once.
        bodies = [json.loads(p.body) for p in {p.headers["webhook-id"]: p for p in mine}.values()]
        found = [b for b in bodies if (b["type"] == kind if kind else "key" in b["data"])]
        return [(body["data"], body["data"].get("key", "")) for body in found]

    def is_told(self, last: dict[str, Any]) -> None:
        """Each consumer learns that its data may be undone and what to do, and then continues."""
        pulled = self.worker.call("pull")
        assert (pulled.status, pulled.reason) == REFUSED, pulled.text
        (info,) = [d for d in pulled.json()["details"] if d["@type"].endswith("ErrorInfo")]
        assert info["metadata"]["reconcile"] == "REPAIR"
        late = self.worker.call("acknowledge", leaseId=last["leaseId"])
        assert (late.status, late.reason) == REFUSED, late.text
        path = f"/v1/subscriptions/{self.streamed.name}:watch"
        watched = self.hub.insist("GET", path, consumer="admin")
        assert (watched.status, watched.reason) == REFUSED, watched.text
        ((notice, _),) = eventually(lambda: self.posted(UNDONE))
        assert notice["reconcile"] == "REPAIR"
        # The cursor in the message is a valid one to continue from.
        query = {"cursor": notice["cursor"]}
        known = self.hub.insist("GET", "/v1/changes", consumer="admin", query=query)
        assert known.status == 200, known.text
        assert "0 repaired" not in self.replicate()
        with Client(self.hub.url, api_key=self.hub.api_key) as client:
            subscription = client.subscription(self.worker.name)
            with pytest.raises(FeedEnded) as ended:
                subscription.pull()
            assert ended.value.reconcile == "REPAIR"
            subscription.reset(notice["cursor"])
            subscription.pull()
        self.streamed.call("reset", start=notice["cursor"])

    def is_equal(self) -> None:
        """The replica equals the hub's records, as digests prove."""
        self.replicate()
        done = self.hub.command("verify", "customers", "--replica", str(self._file), check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def was_told_once(self) -> None:
        """No consumer gets the message a second time."""
        assert len(self.posted(UNDONE)) == 1
        for subscribed in (self.worker, self.streamed):
            assert subscribed.call("pull").status == 200

    def end(self) -> None:
        """Delete everything that the hub keeps for them."""
        for subscribed in (self.worker, self.streamed):
            path = f"/v1/subscriptions/{subscribed.name}"
            self.hub.request("DELETE", path, consumer="admin")
        with contextlib.suppress(FileNotFoundError):
            self._file.unlink()
