"""Keys that seal cursors are rotated while everything that holds a place continues."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from feeds import here, rest
from harness import EVERY_WORKER, RunningHub, eventually
from subscribing import Subscribed

from .test_places import key_of

#: The number of readers whose cursors are tried again.
OLD = 5


class Reader:
    """Follows the customers of one name to the end; keeps their keys, and every cursor it gets."""

    def __init__(self, subscribed: Subscribed, start: str) -> None:
        self.subscribed, self.hub, self.start = subscribed, subscribed.hub, start
        self.query: dict[str, Any] = {"filter": f'name = "{subscribed.mark}"'}
        self.keys: list[str] = []
        self.cursors: list[str] = []
        self._count: int | None = None  # of the expected keys

    @property
    def over(self) -> bool:
        """Whether it has all expected keys."""
        return self._count is not None and len(self.keys) >= self._count

    def end(self, count: int) -> None:
        """Let it end after that many keys."""
        self._count = count

    def sealed_by(self) -> list[int]:
        """The keys that sealed its cursors, in order."""
        return list(dict.fromkeys(map(key_of, self.cursors)))


def stream(reader: Reader) -> None:
    path = "/v1/customers:watch"
    with rest(reader.hub, path, cursor=reader.start, **reader.query) as reply:
        while not reader.over:
            said = json.loads(reply.readline())
            assert "end" not in said, said
            reader.keys += [change["key"] for change in said.get("changes", [])]
            place = said.get("checkpoint") or said.get("heartbeat") or said.get("begin") or {}
            reader.cursors += [place["cursor"]] if "cursor" in place else []


def poll(reader: Reader) -> None:
    cursor = reader.start
    while not reader.over:
        query: dict[str, Any] = {**reader.query, "cursor": cursor, "page_size": 2, "wait": "1s"}
        reply = reader.hub.get("/v1/customers:changes", **query)
        assert reply.status == 200, reply.text
        reader.keys += [change["key"] for change in reply.json().get("changes", [])]
        cursor = reply.json()["nextCursor"]
        reader.cursors.append(cursor)


def pull(reader: Reader) -> None:
    while not reader.over:
        pulled = reader.subscribed.pull(wait="1s", maxChanges=2)
        if pulled:
            reader.keys += [change["key"] for change in pulled["changes"]]
            reader.cursors.append(pulled["lease"]["cursor"])
            reader.subscribed.acknowledge(pulled)
            reader.cursors.append(reader.subscribed.found()["cursor"])


def turn_pages(reader: Reader) -> None:
    """Pages have no cursors; one key seals the places in the tokens of one pass through the
    pages."""
    while not reader.over:
        query: dict[str, Any] = {**reader.query, "page_size": 3, "order_by": "create_time"}
        found: list[str] = []
        while True:
            reply = reader.hub.get("/v1/customers", **query)
            assert reply.status == 200, reply.text
            found += [record["customerId"] for record in reply.json().get("customers", [])]
            if not (token := reply.json().get("nextPageToken")):
                break
            query["page_token"] = token
        assert found[: len(reader.keys)] == reader.keys
        reader.keys = found


class Listening:
    """A webhook whose messages are pulled."""

    def __init__(self, reader: Reader) -> None:
        self._hub = reader.hub
        selection = {"dataset": "customers", **reader.query}
        made = self._post("/v1/webhooks", kind="LISTEN", selections=[selection])
        self.path = f"/v1/webhooks/{made['webhook']['webhookId']}"

    def __call__(self, reader: Reader) -> None:
        while not reader.over:
            pulled = self._post(f"{self.path}:pull", wait="1s").get("deliveries", [])
            for delivery in pulled:
                data = json.loads(base64.b64decode(delivery["body"]))["data"]
                reader.keys.append(data["key"])
                reader.cursors.append(data["cursor"])
            outcomes = [{"deliveryId": d["deliveryId"], "status": 200} for d in pulled]
            if outcomes:
                self._post(f"{self.path}:acknowledge", outcomes=outcomes)

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        reply = self._hub.request("POST", path, consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return dict(reply.json())


def write_through_a_rotation(readers: Mapping[str, Reader]) -> list[str]:
    """Write until all readers have places of the next key; returns the records' keys in order."""
    subscribed = readers["poll"].subscribed
    hub = subscribed.hub
    given = [reader for name, reader in readers.items() if name != "pages"]
    written = subscribed.write(3)

    def some(number: int) -> bool:
        """Whether all readers have a place of a key, after another record."""
        written.extend(subscribed.write(1))
        return all(number in reader.sealed_by() for reader in given)

    assert eventually(lambda: some(1))
    assert b"key 2 seals" in hub.command("cursors", "rotate-key").stdout
    written.extend(subscribed.write(3))
    # The key is announced a minute ahead; let that minute be over.
    hub.sql("UPDATE hub.cursor_key SET seal_time = now() WHERE number = 2 RETURNING 1")
    assert eventually(lambda: some(2))
    written.extend(subscribed.write(3))
    return written


def test_keys_rotate_under_those_who_read(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    start = here(hub)
    assert key_of(start) == 1
    webhook = Listening(Reader(subscribed, start))
    ways: dict[str, Callable[[Reader], None]] = {
        "stream": stream,
        "poll": poll,
        "pull": pull,
        "pages": turn_pages,
        "webhook": webhook,
    }
    readers = {name: Reader(subscribed, start) for name in ways}
    written: list[str] = []
    try:
        with ThreadPoolExecutor(len(ways)) as pool:
            running = [pool.submit(way, readers[name]) for name, way in ways.items()]
            try:
                written = write_through_a_rotation(readers)
            finally:
                for reader in readers.values():
                    reader.end(len(written))
            for each in running:
                each.result()
        for name, reader in readers.items():
            # Messages may overtake each other.
            got = sorted(reader.keys) if name == "webhook" else reader.keys
            assert got == (sorted(written) if name == "webhook" else written), name
            assert name == "pages" or reader.sealed_by() == [1, 2], name
        # Places from the first key are still valid, and lead to everything that followed.
        old = [c for c in dict.fromkeys(readers["poll"].cursors) if key_of(c) == 1][-OLD:]
        for cursor in old:
            query = {**readers["poll"].query, "cursor": cursor, "page_size": 1000}
            reply = hub.get("/v1/customers:changes", **query)
            assert reply.status == 200, reply.text
            found = [change["key"] for change in reply.json().get("changes", [])]
            assert found and found == written[len(written) - len(found) :]
    finally:
        hub.sql("DELETE FROM hub.cursor_key WHERE number = 2 RETURNING 1")

    def back() -> bool:
        given = [hub.get("/v1/changes").json()["nextCursor"] for _ in range(EVERY_WORKER)]
        return {key_of(cursor) for cursor in given} == {1}

    assert eventually(back)
    hub.request("DELETE", webhook.path, consumer="admin")
    hub.request("DELETE", f"/v1/subscriptions/{subscribed.name}", consumer="admin")
