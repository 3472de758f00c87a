"""Places in the log count hidden changes, so nobody sees them unsealed."""

from __future__ import annotations

import base64
import itertools
import json
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from feeds import at, delete, here, put, rest
from harness import Reply, RunningHub, eventually
from penstockd.errors import CursorInvalid
from penstockd.store.cursor import Cursor
from places import PLACES, log_number

TEXT = re.compile(r"[A-Za-z0-9_-]{20,}")


def is_plain(text: str) -> bool:
    """Whether a text is a cursor in the store's own form."""
    try:
        Cursor.parse(text)
    except CursorInvalid:
        return False
    return True


def assert_sealed(text: str) -> None:
    """Check that no part of the text is an unsealed cursor."""
    plain = [found for found in TEXT.findall(text) if is_plain(found)]
    assert not plain, plain


def said(name: str, reply: Reply, status: int = 200) -> tuple[str, str]:
    """The name of a reply with the given status, and its headers and text."""
    assert reply.status == status, f"{name}: {reply.status} {reply.text}"
    return name, f"{dict(reply.headers)} {reply.text}"


def surfaces(hub: RunningHub) -> Iterator[tuple[str, str]]:
    """By name, everything from the hub that contains a place."""
    start = here(hub)
    key = f"t-places-{uuid.uuid4().hex[:8]}"
    put(hub, "customers", {"customerId": key, "name": "Places"})
    yield said("log", hub.get("/v1/changes:log"))
    yield said("poll", hub.get("/v1/changes", cursor=start))
    yield said("own poll", hub.get("/v1/customers:changes", cursor=start))
    for format in ("NDJSON", "XML", "CSV", "PARQUET"):
        reply = hub.get("/v1/customers:export", format=format)
        text = reply.body.decode("latin-1")
        yield f"export {format}", f"{dict(reply.headers)} {text}"
        yield said("receipt", hub.get(f"/v1/receipts/{reply.headers['penstock-receipt']}"))
    digest = hub.get("/v1/customers:digest")
    yield said("digest", digest)
    state = digest.json()["state"]
    raw = base64.urlsafe_b64decode(state + "=" * (-len(state) % 4))
    yield "the inside of a state", raw.decode("latin-1")
    with rest(hub, "/v1/customers:watch", cursor=start, heartbeat_seconds="1") as stream:
        lines: list[str] = []
        while not any("heartbeat" in line for line in lines):
            lines.append(stream.readline().decode())
        yield "stream", "".join(lines)
    yield from subscription_surfaces(hub, start)
    delete(hub, "customers", key)


def subscription_surfaces(hub: RunningHub, start: str) -> Iterator[tuple[str, str]]:
    """The same for a subscription that begins at ``start``."""
    name = f"s-{uuid.uuid4().hex[:8]}"
    body: dict[str, Any] = {"datasets": ["customers"]}
    made = hub.request(
        "POST",
        "/v1/subscriptions",
        consumer="admin",
        json_body=body,
        query={"subscription_id": name, "start": start},
    )
    if made.status != 200:
        body = {"subscription": {"subscriptionId": name, **body}, "start": start}
        made = hub.request("POST", "/v1/subscriptions", consumer="admin", json_body=body)
    yield said("subscription", made)
    pulled = hub.request(
        "POST", f"/v1/subscriptions/{name}:pull", consumer="admin", json_body={"maxChanges": 10}
    )
    yield said("lease", pulled)
    yield said(
        "acknowledged",
        hub.request(
            "POST",
            f"/v1/subscriptions/{name}:acknowledge",
            consumer="admin",
            json_body={"leaseId": pulled.json()["lease"]["leaseId"]},
        ),
    )
    yield said(
        "backwards",
        hub.request(
            "POST",
            f"/v1/subscriptions/{name}:acknowledge",
            consumer="admin",
            json_body={"cursor": start},
        ),
        400,
    )


def test_no_surface_shows_a_place_as_the_store_keeps_it(hub: RunningHub) -> None:
    seen = []
    for name, text in surfaces(hub):
        assert_sealed(text)
        sealed = [found for found in TEXT.findall(text) if found.startswith("BQ")]
        seen.append((name, len(sealed)))
    # They did show places, most of them; the negative control is an unsealed one.
    shown = {name for name, count in seen if count}
    wanted = {"log", "poll", "digest", "stream", "lease", "acknowledged", "receipt", "backwards"}
    assert wanted <= shown, seen
    with pytest.raises(AssertionError):
        assert_sealed(f'{{"cursor": "{PLACES.open(here(hub)).stored}"}}')


def poll(hub: RunningHub, start: str) -> dict[str, Any]:
    reply = hub.request(
        "GET",
        "/v1/customers:changes",
        consumer="bi",
        query={"cursor": start, "page_size": "1000"},
    )
    assert reply.status == 200, reply.text
    return dict(reply.json())


def whole_poll(hub: RunningHub, start: str, last: str) -> dict[str, Any] | None:
    """The poll's result after a place, if it includes the change of the ``last`` key."""
    told = poll(hub, start)
    return told if any(c["key"] == last for c in told.get("changes", ())) else None


def account(hub: RunningHub, hidden: list[int]) -> tuple[dict[str, Any], list[int]]:
    """The parts of the answers about the same changes that must be equal however many hidden
    changes lie between them, and the numbers of the log."""
    source = f"t-places-{uuid.uuid4().hex[:8]}"
    start = here(hub)
    for i, count in enumerate(hidden):
        for j in range(count):
            record = {"customerId": f"{source}-h{i}-{j}", "name": "Hidden", "status": "LEAD"}
            put(hub, "customers", record | {"source": source})
        record = {"customerId": f"{source}-{i}", "name": "Shown", "status": "ACTIVE"}
        put(hub, "customers", record | {"source": source})
    # A poll returns a change after it has its number, soon after its write.
    told = eventually(lambda: whole_poll(hub, start, f"{source}-{len(hidden) - 1}"))
    found = told["changes"]
    numbers = [log_number(int(c["sequence"])) for c in found]
    ranks = {s: i for i, s in enumerate(sorted(int(c["sequence"]) for c in found))}
    names: dict[str, int] = {}
    for change in found:
        change["sequence"] = ranks[int(change["sequence"])]
        change["transactionId"] = names.setdefault(change["transactionId"], len(names))
    told["nextCursor"] = len(told["nextCursor"])
    text = json.dumps(told, sort_keys=True).replace(source, "source")
    text = re.sub(r'"(commitTime|createTime|updateTime|etag)": "[^"]*"', "", text)
    return json.loads(text.replace(", ,", ",").replace("{, ", "{").replace(", }", "}")), numbers


def test_what_is_told_is_the_same_with_hidden_changes_between(hub: RunningHub) -> None:
    """The answers are equal except for sequences, transaction ids and cursors. Of these, order,
    equality and length are the same; their values cannot be, since the places differ."""
    plain, dense = account(hub, [0, 0, 0, 0])
    mixed, sparse = account(hub, [1, 0, 3, 2])
    assert plain == mixed
    # Negative control: numbers of the log show how many there were.
    assert [b - a for a, b in itertools.pairwise(dense)] == [1, 1, 1]
    assert [b - a for a, b in itertools.pairwise(sparse)] == [1, 4, 3]


def test_a_cursor_that_is_made_up_learns_nothing(hub: RunningHub) -> None:
    """Every number gets the same answer, whether it is pruned, present or in the future."""
    epoch = PLACES.open(here(hub)).epoch
    answers = set()
    for number in (0, 1, hub.head() // 2, hub.head(), hub.head() + 1, 10**9):
        for mark in (bytes(8), b"12345678", b""):
            reply = hub.get("/v1/changes", cursor=Cursor(epoch, number, mark=mark).stored)
            assert reply.status == 400, (number, mark)
            answers.add((reply.status, reply.reason, str(reply.json()["message"])))
    assert len(answers) == 1, answers
    assert next(iter(answers))[:2] == (400, "CURSOR_INVALID")


def test_a_cursor_of_before_the_seals_goes_on(hub: RunningHub) -> None:
    start = here(hub)
    known = PLACES.open(start)
    (row,) = hub.sql("SELECT log_number FROM hub.cursor_key WHERE number = 1")
    assert hub.get("/v1/changes", cursor=known.stored).status == 400
    try:
        hub.sql("UPDATE hub.cursor_key SET log_number = $1 WHERE number = 1 RETURNING 1", known.end)
        put(hub, "customers", {"customerId": f"t-places-{uuid.uuid4().hex[:8]}", "name": "Later"})

        def went_on() -> bool:
            replies = [hub.get("/v1/changes", cursor=known.stored) for _ in range(8)]
            assert {r.status for r in replies} == {200}
            told = hub.get("/v1/changes", cursor=start).json().get("changes")
            return bool(told) and all(r.json().get("changes") == told for r in replies)

        assert eventually(went_on)
    finally:
        hub.sql("UPDATE hub.cursor_key SET log_number = $1 WHERE number = 1 RETURNING 1", row[0])


def key_of(cursor: str) -> int:
    """The number of the key that sealed a cursor."""
    return base64.urlsafe_b64decode(cursor[:4])[1]


def test_a_cursor_outlives_its_key_by_as_long_as_the_log_is_kept(hub: RunningHub) -> None:
    old = at(hub, hub.head())
    hours = int(hub.get("/v1/changes:log").json()["retentionHours"])
    move = "UPDATE hub.cursor_key SET seal_time = now() - $1::interval WHERE number = 2 RETURNING 1"
    try:
        assert b"key 2 seals" in hub.command("cursors", "rotate-key").stdout
        assert b"key 2 seals" in hub.command("cursors", "rotate-key").stdout  # already under way
        assert key_of(hub.get("/v1/changes").json()["nextCursor"]) == 1
        hub.sql(move, timedelta())

        def turned() -> bool:
            given = [hub.get("/v1/changes").json()["nextCursor"] for _ in range(8)]
            return {key_of(cursor) for cursor in given} == {2}

        assert eventually(turned)
        new = hub.get("/v1/changes", cursor=old).json()["nextCursor"]
        assert key_of(new) == 2
        hub.sql(move, timedelta(hours=hours, minutes=-10))
        assert hub.get("/v1/changes", cursor=old).status == 200
        hub.sql(move, timedelta(hours=hours))

        def ended() -> bool:
            replies = [hub.get("/v1/changes", cursor=old) for _ in range(8)]
            return {(r.status, r.reason) for r in replies} == {(400, "CURSOR_INVALID")}

        assert eventually(ended)
        assert "REPAIR" in hub.get("/v1/changes", cursor=old).text
        assert hub.get("/v1/changes", cursor=new).status == 200
    finally:
        hub.sql("DELETE FROM hub.cursor_key WHERE number = 2 RETURNING 1")

    def back() -> bool:
        given = [hub.get("/v1/changes").json()["nextCursor"] for _ in range(8)]
        return {key_of(cursor) for cursor in given} == {1}

    assert eventually(back)
