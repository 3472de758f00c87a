"""Shapes in feeds and webhooks: the same columns as in exports, and never more than the View."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feeds import consumer_with, credentials, delete, grant, lines, patch, put, rest, sse, watch
from harness import Reply, RunningHub, eventually, new_customer
from penstock.client import Client
from penstock.client.webhooks import verify
from posted import Posts, receiving

COLUMNS: list[dict[str, Any]] = [
    {"name": "Id", "field": "customer_id"},
    {"name": "Company name", "field": "name"},
    {"name": "Lifecycle", "field": "status", "values": {"ACTIVE": "customer"}, "otherwise": "lead"},
    {"name": "Limit", "field": "credit_limit",
     "numberFormat": {"decimals": 2, "decimalSeparator": ","}},
    {"name": "Tags", "field": "tags", "join": ";"},
    {"name": "Since", "field": "create_time", "timeFormat": "%d.%m.%Y"},
    {"name": "Plain tags", "field": "tags"},
    {"name": "City", "field": "billing_address.city", "defaultValue": "unknown"},
    {"name": "Source", "constant": "Penstock"},
    {"name": "Rich", "expression": "credit_limit > 1000.0"},
    {"name": "Letters", "expression": "size(name)"},
]  # fmt: skip


def send(hub: RunningHub, method: str, path: str, body: Any = None, who: str = "admin") -> Reply:
    return hub.request(method, path, json_body=body, headers=dict(credentials(hub, who)))


def get(hub: RunningHub, path: str, who: str = "admin", **query: object) -> Reply:
    return hub.request("GET", path, query=query, headers=dict(credentials(hub, who)))


def save(hub: RunningHub, shape: str, columns: Any, who: str = "admin", first: bool = True) -> None:
    body = {"shapeId": shape, "dataset": "customers", "columns": columns}
    path = "/v1/shapes" if first else f"/v1/shapes/{shape}"
    reply = send(hub, "POST" if first else "PATCH", path, body, who)
    assert reply.status == 200, reply.text


@pytest.fixture
def shape(hub: RunningHub) -> Iterator[str]:
    """The id of a shape of the administrator."""
    name = f"s-{uuid.uuid4().hex[:10]}"
    save(hub, name, COLUMNS)
    yield name
    assert send(hub, "DELETE", f"/v1/shapes/{name}").status == 200


@pytest.fixture
def mark() -> str:
    """The beginning of the names of a test's own customers."""
    return f"m{uuid.uuid4().hex[:12]}"


def customers(mark: str, count: int) -> list[dict[str, Any]]:
    return [
        new_customer(name=f"{mark} {n}", tags=["x", "ü"][:n], creditLimit=f"{n}999.125")
        for n in range(count)
    ]


def exported(hub: RunningHub, mark: str, shape: str) -> dict[str, Any]:
    """The columns of a test's own customers in an export, by key."""
    query = {"format": "JSON", "shape": shape, "filter": f'name = "{mark}*"'}
    return {row["Id"]: row for row in get(hub, "/v1/customers:export", **query).json()}


def test_every_way_of_a_feed_has_the_columns_of_exports(
    hub: RunningHub, shape: str, mark: str
) -> None:
    filter = f'name = "{mark}*"'
    with Client(hub.url, token=hub.token("admin")) as client:
        dataset = client.dataset("customers")
        cursor = dataset.changes(filter=filter, shape=shape).cursor
        put(hub, "customers", *customers(mark, 3))
        hub.head()
        want = exported(hub, mark, shape)
        assert len(want) == 3
        page = dataset.changes(cursor, filter=filter, shape=shape)
        assert {c.key: c.shaped for c in page.changes} == want
        assert all(c.after is None and not c.gone for c in page.changes)
        several = client.changes(["customers", "orders"], cursor, shapes=[shape])
        assert {c.key: c.shaped for c in several.changes if c.key in want} == want
        for options in ({"cursor": cursor}, {"snapshot": True}):
            found: dict[str, Any] = {}
            with dataset.watch(filter=filter, shape=shape, **options) as feed:
                for batch in feed:
                    found |= {c.key: c.shaped for c in batch.changes}
                    if len(found) == 3 and batch.checkpoint:
                        break
            assert found == want, options
    asked: dict[str, Any] = {"filter": filter, "shape": f"{shape}@1", "cursor": cursor}
    with rest(hub, "/v1/customers:watch", **asked) as reply:
        told = lines(reply)
        begin = next(told)["begin"]
        assert begin["shapes"] == [f"{shape}@1"]
        changes = next(m for m in told if "changes" in m)["changes"]
    assert {c["key"]: c["shaped"] for c in changes} == want
    # Over REST the columns come in the shape's order.
    assert list(changes[0]["shaped"]) == [c["name"] for c in COLUMNS]
    assert not any("after" in c for c in changes)
    with rest(hub, "/v1/customers:watch", accept="text/event-stream", **asked) as reply:
        changes = next(m for _, m in sse(reply) if "changes" in m)["changes"]
    assert {c["key"]: c["shaped"] for c in changes} == want
    polled = get(hub, "/v1/customers:changes", **asked).json()
    assert {c["key"]: c["shaped"] for c in polled["changes"]} == want
    assert polled["shapes"] == [f"{shape}@1"]


def test_a_shape_of_constants_tells_that_records_come_and_go(hub: RunningHub, mark: str) -> None:
    name = f"s-{uuid.uuid4().hex[:10]}"
    save(hub, name, [{"name": "Seen", "constant": "yes"}])
    (customer,) = customers(mark, 1)
    key = customer["customerId"]
    put(hub, "customers", customer)
    hub.head()
    cursor = get(hub, "/v1/customers:changes").json()["nextCursor"]
    patch(hub, "customers", key, status="ACTIVE")
    delete(hub, "customers", key)
    hub.head()
    query = {"shape": name, "cursor": cursor, "filter": f'name = "{mark}*"'}
    changes = get(hub, "/v1/customers:changes", **query).json()["changes"]
    assert [c["operation"] for c in changes] == ["DELETED"]
    with rest(hub, "/v1/customers:watch", shape=name, snapshot="true") as reply:
        first = next(m for m in lines(reply) if "changes" in m)["changes"][0]
    assert first["shaped"] == {"Seen": "yes"} and "after" not in first
    assert send(hub, "DELETE", f"/v1/shapes/{name}").status == 200


def test_before_images_changed_columns_and_the_end_of_a_record(
    hub: RunningHub, shape: str, mark: str
) -> None:
    (customer,) = customers(mark, 1)
    key = customer["customerId"]
    put(hub, "customers", customer)
    hub.head()  # the change is in the log, before the cursor
    filter = f'name = "{mark}*"'
    with Client(hub.url, token=hub.token("admin")) as client:
        dataset = client.dataset("customers")
        cursor = dataset.changes().cursor
        before = exported(hub, mark, shape)[key]
        patch(hub, "customers", key, status="ACTIVE")
        after = exported(hub, mark, shape)[key]
        patch(hub, "customers", key, email="a@example.com")  # the shape reads no e-mail
        delete(hub, "customers", key)
        hub.head()
        told = dataset.changes(cursor, filter=filter, shape=shape, include_before=True).changes
        updated, deleted = told
        assert (updated.shaped_before, updated.shaped) == (before, after)
        assert updated.changed_fields == ("Lifecycle",)
        assert (deleted.operation, deleted.shaped, deleted.shaped_before) == (
            "DELETED", None, after
        )  # fmt: skip
        assert deleted.gone
        lean = dataset.changes(cursor, filter=filter, shape=shape).changes
        assert [c.shaped_before for c in lean] == [None, None]


def test_a_stream_keeps_its_version_and_ends_when_the_shape_is_deleted(
    hub: RunningHub, mark: str
) -> None:
    name = f"s-{uuid.uuid4().hex[:10]}"
    save(hub, name, COLUMNS[:2])
    with watch(hub, "admin", "customers", shape=name, filter=f'name = "{mark}*"') as stream:
        assert stream.begin.shapes == [f"{name}@1"]
        save(hub, name, [COLUMNS[1]], first=False)
        put(hub, "customers", *customers(mark, 1))
        message = stream.read()
        while not message.changes:
            message = stream.read()
        assert set(message.changes[0].shaped.fields) == {"Id", "Company name"}
        with watch(hub, "admin", "customers", shape=name) as later:
            assert later.begin.shapes == [f"{name}@2"] and later.begin.view != stream.begin.view
        assert send(hub, "DELETE", f"/v1/shapes/{name}").status == 200
        code, reason = stream.failure()
        assert (code.name, reason) == ("NOT_FOUND", "SHAPE_NOT_FOUND")
        assert stream.end is not None
        assert f"'{name}@1' was deleted" in stream.end.message
        assert stream.end.reconcile == 3  # STOP


def test_what_is_refused(hub: RunningHub, shape: str) -> None:
    for path in ("/v1/customers:changes", "/v1/customers:watch"):
        assert get(hub, path, shape="nothing").reason == "SHAPE_NOT_FOUND"
        assert "fields" in get(hub, path, shape=shape, fields="name").violations()
        assert get(hub, path, shape="a@b").violations() == {
            "shape": "is an id, or an id, '@' and a version"
        }
    elsewhere = get(hub, "/v1/orders:changes", shape=shape)
    assert elsewhere.violations() == {"shape": "belongs to the dataset customers"}
    several = get(hub, "/v1/changes", datasets="orders", shapes=shape)
    assert several.violations() == {"shape": "belongs to the dataset customers"}
    twice = get(hub, f"/v1/changes?shapes={shape}&shapes={shape}@1")
    assert twice.violations() == {"shape": "is the second shape of the dataset customers"}
    # Another consumer's shape does not exist.
    assert get(hub, "/v1/customers:changes", "bi", shape=shape).reason == "SHAPE_NOT_FOUND"


def test_a_shape_shows_no_more_than_the_view_in_feeds(hub: RunningHub, mark: str) -> None:
    """The shape shows the tax id only as long as the View does."""
    columns = [{"name": "Id", "field": "customer_id"}, {"name": "Tax", "field": "tax_id"}]
    name, secret = f"s-{uuid.uuid4().hex[:10]}", f"DE{uuid.uuid4().int % 10**9:09}"
    (customer,) = customers(mark, 1)
    with consumer_with(hub, grant("customers")) as made:
        save(hub, name, columns, made.key)
        body = {"subscription": {"subscriptionId": mark, "shapes": [name],
                                 "datasets": ["customers"]}}  # fmt: skip
        assert send(hub, "POST", "/v1/subscriptions", body, made.key).status == 200
        with watch(hub, made.key, "customers", shape=name) as stream:
            put(hub, "customers", customer | {"taxId": secret})
            message = stream.read()
            while not any(c.key == customer["customerId"] for c in message.changes):
                message = stream.read()
            assert secret in str(message)  # the negative control
            made.regrant(grant("customers", tax_id="hide"))
            assert stream.failure()[1] == "ACCESS_CHANGED"
        hub.settle()
        for reply in (
            get(hub, "/v1/customers:changes", made.key, shape=name, cursor=stream.begin.cursor),
            get(hub, "/v1/customers:watch", made.key, shape=name, snapshot="true"),
            get(hub, "/v1/changes", made.key, shapes=name, cursor=stream.begin.cursor),
            send(hub, "POST", f"/v1/subscriptions/{mark}:pull", {}, made.key),
        ):
            assert reply.status == 400, reply.text
            assert reply.violations() == {"columns[1].field": "unknown field 'tax_id'"}
            assert secret not in reply.text
        made.regrant(grant("customers", tax_id="null"))
        hub.settle()
        page = get(hub, "/v1/customers:changes", made.key, shape=name, cursor=stream.begin.cursor)
        assert [c["shaped"]["Tax"] for c in page.json()["changes"]] == [None]
        assert secret not in page.text


def test_a_subscription_uses_the_latest_version_and_holds_its_shape(
    hub: RunningHub, shape: str, mark: str
) -> None:
    made = {"subscriptionId": mark, "datasets": ["customers"], "filter": f'name = "{mark}*"'}
    reply = send(hub, "POST", "/v1/subscriptions", {"subscription": made | {"shapes": [shape]}})
    assert (reply.status, reply.json()["shapes"]) == (200, [shape]), reply.text
    pinned = made | {"subscriptionId": f"{mark}-1", "shapes": [f"{shape}@1"]}
    assert send(hub, "POST", "/v1/subscriptions", {"subscription": pinned}).status == 200
    try:
        put(hub, "customers", *customers(mark, 2))
        hub.head()
        want = exported(hub, mark, shape)
        save(hub, shape, [COLUMNS[0], COLUMNS[1]], first=False)
        for name, version in ((mark, 2), (f"{mark}-1", 1)):
            pull = {"wait": "25s", "ackSeconds": 3600}
            got = send(hub, "POST", f"/v1/subscriptions/{name}:pull", pull).json()
            assert got["shapes"] == [f"{shape}@{version}"]
            told = {c["key"]: c["shaped"] for c in got["changes"]}
            assert told == (want if version == 1 else exported(hub, mark, shape))
        refused = send(hub, "DELETE", f"/v1/shapes/{shape}")
        assert refused.reason == "SHAPE_IN_USE"
        assert f"subscription {mark}, subscription {mark}-1;" in refused.text
        both = made | {"shapes": [shape], "fields": "name", "subscriptionId": "x"}
        assert (
            "fields" in send(hub, "POST", "/v1/subscriptions", {"subscription": both}).violations()
        )
    finally:
        for name in (mark, f"{mark}-1"):
            assert send(hub, "DELETE", f"/v1/subscriptions/{name}").status == 200


# --- webhooks ------------------------------------------------------------------------------


@pytest.fixture
def posts() -> Iterator[Posts]:
    with receiving() as made:
        yield made


@contextlib.contextmanager
def webhook(
    hub: RunningHub, url: str, mark: str, shape: str, who: str = "admin", **options: Any
) -> Iterator[dict[str, Any]]:
    """A webhook of a test's own customers in a shape, with its secret."""
    selection = {"dataset": "customers", "filter": f'name = "{mark}*"', "shape": shape}
    body = {"url": url, "selections": [selection], "options": options}
    reply = send(hub, "POST", "/v1/webhooks", body, who)
    assert reply.status == 200, reply.text
    made = reply.json()["webhook"]
    try:
        yield {**made, "secret": reply.json()["secret"]}
    finally:
        assert send(hub, "DELETE", f"/v1/webhooks/{made['webhookId']}", who=who).status == 200


def test_a_webhook_sends_the_columns(hub: RunningHub, posts: Posts, shape: str, mark: str) -> None:
    with webhook(hub, f"{posts.url}/{mark}", mark, shape) as made:
        assert made["selections"][0]["shape"] == shape
        (customer,) = customers(mark, 1)
        key = customer["customerId"]
        put(hub, "customers", customer)
        (post,) = posts.wait(f"/{mark}", 1)
        data = verify(post.headers, post.body, made["secret"])["data"]
        assert (data["record"], data["shape"]) == (exported(hub, mark, shape)[key], f"{shape}@1")
        assert list(data["record"]) == [c["name"] for c in COLUMNS]
        save(hub, shape, COLUMNS[:3], first=False)
        patch(hub, "customers", key, status="ACTIVE")
        post = posts.wait(f"/{mark}", 2)[1]
        data = verify(post.headers, post.body, made["secret"])["data"]
        assert (data["shape"], data["changed"]) == (f"{shape}@2", ["Lifecycle"])
        assert data["record"] == exported(hub, mark, shape)[key]
        path = f"/v1/webhooks/{made['webhookId']}"
        # The hub shows and resends a past delivery as it would send it now.
        listed = get(hub, f"{path}/deliveries").json()["deliveries"]
        first = next(d for d in listed if d["eventType"] == "customer.created")
        resend = send(hub, "POST", f"{path}/deliveries/{first['deliveryId']}:resend", {})
        assert resend.status == 200, resend.text
        post = posts.wait(f"/{mark}", 3)[2]
        assert json.loads(post.body)["data"]["shape"] == f"{shape}@2"
        refused = send(hub, "DELETE", f"/v1/shapes/{shape}")
        assert (refused.reason, made["webhookId"] in refused.text) == ("SHAPE_IN_USE", True)


def test_a_webhook_in_xml_and_cloudevents_with_a_pinned_version(
    hub: RunningHub, posts: Posts, shape: str, mark: str
) -> None:
    bad = {"url": posts.url, "options": {"body": "XML"},
           "selections": [{"dataset": "customers", "shape": shape}]}  # fmt: skip
    refused = send(hub, "POST", "/v1/webhooks", bad)
    assert "'Company name', whose name is not valid in XML" in refused.violations()["shape"]
    save(hub, shape, [COLUMNS[0], COLUMNS[2], COLUMNS[4]], first=False)
    pinned, form = f"{shape}@2", {"body": "XML", "envelope": "CLOUDEVENTS_BINARY"}
    with webhook(hub, f"{posts.url}/{mark}", mark, pinned, **form) as made:
        save(hub, shape, COLUMNS[:1], first=False)
        (customer,) = customers(mark, 1)
        put(hub, "customers", customer)
        (post,) = posts.wait(f"/{mark}", 1)
        verify(post.headers, post.body, made["secret"])
        record = f"<Id>{customer['customerId']}</Id><Lifecycle>lead</Lifecycle><Tags></Tags>"
        assert f"<record><customer>{record}</customer></record>" in post.body.decode()
        assert f"<shape>{pinned}</shape>" in post.body.decode()


def test_a_webhook_is_paused_when_its_owner_no_longer_sees_a_field(
    hub: RunningHub, posts: Posts, mark: str
) -> None:
    columns = [{"name": "Id", "field": "customer_id"}, {"name": "Tax", "field": "tax_id"}]
    name, secret = f"s-{uuid.uuid4().hex[:10]}", f"DE{uuid.uuid4().int % 10**9:09}"
    with consumer_with(hub, grant("customers")) as owner:
        permissions = {"permissions": ["webhooks.read", "webhooks.write"]}
        owner.administer("PATCH", f"/roles/{owner.name}", permissions, update_mask="permissions")
        hub.settle()
        save(hub, name, columns, owner.key)
        url = f"{posts.url}/{mark}"
        with webhook(hub, url, mark, name, owner.key) as made:
            first, second = customers(mark, 2)
            put(hub, "customers", first | {"taxId": secret})
            (post,) = posts.wait(f"/{mark}", 1)
            assert secret in post.body.decode()  # the negative control
            owner.regrant(grant("customers", tax_id="hide"))
            hub.settle()
            put(hub, "customers", second | {"taxId": secret})
            path = f"/v1/webhooks/{made['webhookId']}"

            def paused() -> Any:
                found = get(hub, path, owner.key).json()
                return found if found.get("state") == "PAUSED" else None

            found = eventually(paused)
            assert "unknown field 'tax_id'" in found["reason"], found
            assert "unknown field 'tax_id'" in found["problems"]["customers"]
            # Changes from the meantime wait, and arrive once a version fits again.
            save(hub, name, columns[:1], owner.key, first=False)
            assert send(hub, "POST", f"{path}:resume", {}, owner.key).status == 200
            data = [json.loads(p.body)["data"] for p in posts.wait(f"/{mark}", 2)]
            assert data[1]["record"] == {"Id": second["customerId"]}
            assert data[1]["shape"] == f"{name}@2"
            assert sum(secret in p.body.decode() for p in posts.taken) == 1


@pytest.mark.parametrize(
    ("example", "dataset"), [("crm-contacts", "customers"), ("flat-orders", "orders")]
)
def test_the_examples_by_command(
    hub: RunningHub, posts: Posts, tmp_path: Path, mark: str, example: str, dataset: str
) -> None:
    """``watch``, ``changes`` and ``subscriptions pull`` print what an export has."""

    def run(*words: str) -> str:
        return hub.command(*words).stdout.decode()

    run("shapes", "create", example)
    start = hub.command("changes", dataset).stderr.decode().split()[-1]
    out = tmp_path / "out.ndjson"
    watching = subprocess.Popen(
        [sys.executable, "-m", "penstock.client.cli", "watch", dataset, "--shape", example,
         "--snapshot", "--output", str(out), "--format", "json"],
        env=hub.env(),
    )  # fmt: skip
    try:
        run("subscriptions", "create", mark, dataset, "--shape", example, "--start", start)
        made = run("webhooks", "create", f"{posts.url}/{mark}", "--dataset", dataset,
                   "--shape", example)  # fmt: skip
        webhook = json.loads(made)["webhook"]
        assert webhook["selections"][0]["shape"] == example
        record = get(hub, f"/v1/{dataset}", page_size=1).json()[dataset][0]
        key = record["customerId" if dataset == "customers" else "orderId"]
        field = "phone" if dataset == "customers" else "currencyCode"
        patch(hub, dataset, key, **{field: "+371 1" if field == "phone" else "SEK"})
        hub.head()
        rows = get(hub, f"/v1/{dataset}:export", format="JSON", shape=example).json()
        want = next(row for row in rows if key in row.values())
        told = run("changes", dataset, "--shape", example, "--cursor", start, "--format", "json")
        pulled = run("subscriptions", "pull", mark, "--wait", "20s", "--format", "json")
        for text in (told, pulled):
            found = [c["shaped"] for c in map(json.loads, text.splitlines()) if c["key"] == key]
            assert found[-1] == want
        post = eventually(
            lambda: next((p for p in posts.taken if f'"key":"{key}"' in p.body.decode()), None)
        )
        assert json.loads(post.body)["data"]["record"] == want
        # Other tests write to these datasets as well.
        eventually(lambda: out.exists() and f'"{key}"' in out.read_text())
        lines = map(json.loads, out.read_text()[: out.read_text().rfind("\n")].splitlines())
        assert set(next(lines)["shaped"]) == set(want)
    finally:
        watching.terminate()
        watching.wait()
        for hook in get(hub, "/v1/webhooks").json().get("webhooks", []):
            if hook["url"].endswith(mark):
                send(hub, "DELETE", f"/v1/webhooks/{hook['webhookId']}")
        run("subscriptions", "delete", mark)
        run("shapes", "delete", example)
