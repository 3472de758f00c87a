"""Webhooks through the hub: created, tested, watched and repaired, by REST and by command."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from harness import PATIENCE, Reply, RunningHub, eventually, new_customer
from penstock.client.webhooks import verify
from posted import Posts, receiving


@pytest.fixture
def posts() -> Iterator[Posts]:
    with receiving() as made:
        yield made


@pytest.fixture
def path() -> str:
    """A path to which no other test posts."""
    return f"/{uuid.uuid4().hex}"


def create(hub: RunningHub, url: str, consumer: str = "crm", **values: Any) -> Reply:
    document = {"url": url, "selections": [{"dataset": "customers"}], **values}
    return hub.request("POST", "/v1/webhooks", consumer=consumer, json_body=document)


@pytest.fixture
def webhook(hub: RunningHub, posts: Posts, path: str) -> Iterator[dict[str, Any]]:
    """A webhook of crm that posts to ``path``, with its secret."""
    key = f"k-{uuid.uuid4().hex[:8]}"
    selection = {"dataset": "customers", "filter": f'customer_id = "{key}*"'}
    reply = create(hub, posts.url + path, selections=[selection])
    assert reply.status == 200, reply.text
    yield {**reply.json()["webhook"], "secret": reply.json()["secret"], "key": key}
    hub.request("DELETE", f"/v1/webhooks/{reply.json()['webhook']['webhookId']}", consumer="crm")


def act(hub: RunningHub, webhook: dict[str, Any], what: str, **body: Any) -> Reply:
    url = f"/v1/webhooks/{webhook['webhookId']}{what}"
    return hub.request("POST", url, consumer="crm", json_body=body)


def get(hub: RunningHub, webhook: dict[str, Any], what: str = "", **query: Any) -> Any:
    reply = hub.get(f"/v1/webhooks/{webhook['webhookId']}{what}", "crm", **query)
    assert reply.status == 200, reply.text
    return reply.json()


def write(hub: RunningHub, key: str, **values: Any) -> None:
    record = new_customer(customerId=key, **values)
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text


def state(hub: RunningHub, webhook: dict[str, Any], delivery: str) -> str:
    return str(get(hub, webhook, f"/deliveries/{delivery}")["state"])


def test_a_write_is_posted_and_verified(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    write(hub, webhook["key"] + "1", name="Ada", taxId="DE123456789")
    (post,) = posts.wait(path, 1)
    event = verify(post.headers, post.body, webhook["secret"])
    assert event["type"] == "customer.created"
    assert event["data"]["record"]["name"] == "Ada"
    assert "taxId" not in event["data"]["record"]  # crm may not see it
    (listed,) = eventually(
        lambda: get(hub, webhook, "/deliveries", state="DELIVERED").get("deliveries", [])
    )
    found = get(hub, webhook, f"/deliveries/{listed['deliveryId']}")
    assert base64.b64decode(found["body"]) == post.body
    (attempt,) = found["attempts"]
    assert (attempt["status"], attempt["delivered"]) == (200, True)
    assert attempt["requestHead"].startswith(f"POST {posts.url}{path}\n")
    assert post.headers["webhook-signature"] in attempt["requestHead"]
    assert attempt["responseHead"].startswith("HTTP/1.1 200")
    metrics = get(hub, webhook, "/metrics")
    assert (metrics["successRate"], metrics["attemptCount"]) == (1, "1")
    assert "retryCount" not in metrics


def test_a_posted_record_has_the_bytes_of_an_export(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    """In JSON and in XML; crm sees no taxId, and nothing of an address that is unset."""
    key = webhook["key"] + "1"
    xml = create(
        hub,
        posts.url + path + "-xml",
        selections=[{"dataset": "customers", "filter": f'customer_id = "{key}"'}],
        options={"body": "XML"},
    )
    assert xml.status == 200, xml.text
    write(hub, key, name='Ada "<&>" é', tags=["a", "b\n"], marketingOptIn=False)
    (post,), (xml_post,) = posts.wait(path, 1), posts.wait(path + "-xml", 1)

    def export(format: str) -> str:
        query = {"format": format, "filter": f'customer_id = "{key}"'}
        reply = hub.get("/v1/customers:export", "crm", **query)
        assert reply.status == 200, reply.text
        return reply.text

    line = export("NDJSON").rstrip("\n")
    assert '"billingAddress":null' in line and '"marketingOptIn":false' in line
    assert f'"record":{line},"' in post.body.decode()
    element = export("XML").partition("<customers>\n")[2].removesuffix("\n</customers>\n")
    assert f"<record>{element}</record>" in xml_post.body.decode()
    hub.request("DELETE", f"/v1/webhooks/{xml.json()['webhook']['webhookId']}", consumer="crm")


def test_what_is_posted_is_in_the_audit_and_so_are_the_calls(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    write(hub, webhook["key"] + "1")
    posts.wait(path, 1)
    # Before the first byte left: it exists as soon as the post does.
    rows = hub.sql(
        "SELECT consumer_id, record_key, row_count, peer FROM hub.audit_entry"
        " WHERE surface = 'WEBHOOK' AND record_key = $1",
        webhook["key"] + "1",
    )
    assert rows == [("crm", webhook["key"] + "1", 1, posts.url)]
    found = hub.request(
        "GET",
        f"/v1/audit/disclosures/customers/{webhook['key']}1",
        consumer="admin",
        query={"recipient": "crm"},
    )
    assert any(d["surface"] == "WEBHOOK" for d in found.json().get("disclosures", [])), found.text
    act(hub, webhook, ":pause")
    act(hub, webhook, ":resume")
    methods = hub.sql(
        "SELECT method, outcome FROM hub.audit_entry WHERE record_key = $1 ORDER BY entry_id",
        f"webhooks/{webhook['webhookId']}",
    )
    assert [m[0].rpartition("/")[2] for m in methods] == [
        "CreateWebhook",
        "PauseWebhook",
        "ResumeWebhook",
    ]


def test_a_failure_is_seen_and_sent_again(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    posts.statuses[path] = 500
    write(hub, webhook["key"] + "1")
    (first,) = posts.wait(path, 1)
    name = first.headers["webhook-id"]
    found = eventually(
        lambda: (d := get(hub, webhook, f"/deliveries/{name}")).get("attempts") and d
    )
    assert (found["state"], found["reason"], found["attempts"][0]["status"]) == (
        "PENDING",
        "STATUS",
        500,
    )
    assert found["nextTime"] == found["attempts"][0]["nextTime"]
    posts.statuses[path] = 204
    assert act(hub, webhook, f"/deliveries/{name}:resend").status == 200
    eventually(lambda: state(hub, webhook, name) == "DELIVERED")
    again = posts.wait(path, 2)
    assert {p.headers["webhook-id"] for p in again} == {name}


def test_410_disables_and_recovery_brings_all_back(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    posts.statuses[path] = 410
    write(hub, webhook["key"] + "1")
    eventually(lambda: get(hub, webhook)["state"] == "DISABLED")
    assert get(hub, webhook)["reason"] == "GONE"
    write(hub, webhook["key"] + "2")  # while it is disabled
    dead = eventually(
        lambda: (
            len(d := get(hub, webhook, "/deliveries", state="DEAD").get("deliveries", [])) == 2
            and d
        )
    )
    assert [d["reason"] for d in dead] == ["ENDPOINT_DISABLED", "GONE"]
    letters = hub.get("/v1/webhooks:deadLetters", "crm").json().get("deliveries", [])
    assert {d["deliveryId"] for d in dead} <= {d["deliveryId"] for d in letters}
    assert act(hub, webhook, ":test").reason == "WEBHOOK_DISABLED"
    posts.statuses[path] = 200
    assert act(hub, webhook, ":resume").json()["state"] == "ACTIVE"
    reply = act(hub, webhook, ":recover", startTime="2026-01-01T00:00:00Z")
    assert reply.json()["deliveryCount"] == "2"
    names = {p.headers["webhook-id"] for p in posts.wait(path, 3)}
    assert names == {d["deliveryId"] for d in dead}
    notices = hub.get("/v1/webhooks:notices", "crm").json()["notices"]
    assert any(n["webhookId"] == webhook["webhookId"] for n in notices)


def test_a_paused_webhook_keeps_what_comes(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    assert act(hub, webhook, ":pause").json()["state"] == "PAUSED"
    write(hub, webhook["key"] + "1")
    (waiting,) = eventually(lambda: get(hub, webhook, "/deliveries").get("deliveries", []))
    assert (waiting["state"], posts.taken) == ("PENDING", [])
    assert act(hub, webhook, ":resume").json()["state"] == "ACTIVE"
    posts.wait(path, 1)


def test_both_secrets_sign_during_a_rotation(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    rotated = act(hub, webhook, ":rotateSecret", overlap="3600s", signature="ED25519").json()
    assert rotated["secret"].startswith("whpk_")
    assert act(hub, webhook, ":test").status == 200
    (post,) = posts.wait(path, 1)
    for secret in (webhook["secret"], rotated["secret"]):
        assert verify(post.headers, post.body, secret)["type"] == "webhook.test"
    assert [s.partition(",")[0] for s in post.headers["webhook-signature"].split()] == ["v1a", "v1"]
    secrets = rotated["webhook"]["secrets"]
    assert [s["signature"] for s in secrets] == ["ED25519", "HMAC_SHA256"]
    assert "expireTime" in secrets[1]
    assert webhook["secret"] not in json.dumps(get(hub, webhook))


def test_a_stretch_of_the_log_is_told_again(
    hub: RunningHub, posts: Posts, path: str, webhook: dict[str, Any]
) -> None:
    for i in range(3):
        write(hub, f"{webhook['key']}{i}")
    before = posts.wait(path, 3)
    cursors = [json.loads(p.body)["data"]["cursor"] for p in before]
    keys = [json.loads(p.body)["data"]["key"] for p in before]
    order = [c for _, c in sorted(zip(keys, cursors, strict=True))]
    reply = act(hub, webhook, ":replay", cursor=order[0], endCursor=order[2])
    assert reply.status == 200, reply.text
    told = posts.wait(path, 5)[3:]
    assert sorted(json.loads(p.body)["data"]["key"] for p in told) == sorted(keys)[1:]
    assert not {p.headers["webhook-id"] for p in told} & {p.headers["webhook-id"] for p in before}
    eventually(lambda: "replay" not in get(hub, webhook))
    assert act(hub, webhook, ":replay", cursor="x").reason == "CURSOR_INVALID"
    back = act(hub, webhook, ":replay", cursor=order[2], endCursor=order[0])
    assert back.violations() == {"endCursor": "is before cursor"}


def test_an_update_changes_what_it_names(hub: RunningHub, webhook: dict[str, Any]) -> None:
    name = webhook["webhookId"]
    body = {"title": "new", "headers": {"x-a": "1"}, "options": {"rate": 5}}
    reply = hub.request("PATCH", f"/v1/webhooks/{name}", consumer="crm", json_body=body)
    found = reply.json()
    assert (found["title"], found["options"]["rate"], found["url"]) == ("new", 5, webhook["url"])
    assert found["headers"] == {"x-a": ""}
    assert found["options"]["batchSize"] == 1
    for headers, kept in (({"X-B": "2"}, {"x-a": "", "X-B": ""}), ({"x-a": None}, {"X-B": ""})):
        body = {"headers": headers, "options": {}}
        reply = hub.request("PATCH", f"/v1/webhooks/{name}", consumer="crm", json_body=body)
        assert reply.json()["headers"] == kept, reply.text
        assert reply.json()["options"]["rate"] == 5
    mask = {"update_mask": "options.thin"}
    reply = hub.request(
        "PATCH",
        f"/v1/webhooks/{name}",
        consumer="crm",
        json_body={"title": "ignored", "options": {"thin": True}},
        query=mask,
    )
    found = reply.json()
    assert (found["title"], found["options"]["thin"], found["options"]["rate"]) == ("new", True, 5)
    bad = hub.request(
        "PATCH",
        f"/v1/webhooks/{name}",
        consumer="crm",
        json_body={},
        query={"update_mask": "state"},
    )
    assert bad.reason == "FIELD_UNKNOWN"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"url": "http://10.0.0.1/"}, "WEBHOOK_URL_REFUSED"),
        ({"url": "ftp://example.com/"}, "WEBHOOK_URL_REFUSED"),
        ({"selections": []}, "VALUE_INVALID"),
        ({"selections": [{"dataset": "nothing"}]}, "PERMISSION_DENIED"),
        ({"selections": [{"dataset": "products"}]}, "PERMISSION_DENIED"),
        ({"selections": [{"dataset": "customers", "filter": "tax_id:*"}]}, "FIELD_UNKNOWN"),
        ({"selections": [{"dataset": "customers", "filter": "name ="}]}, "FILTER_INVALID"),
        ({"selections": [{"dataset": "customers", "fields": "tax_id"}]}, "FIELD_UNKNOWN"),
        ({"selections": [{"dataset": "customers", "operations": ["gone"]}]}, "VALUE_INVALID"),
        ({"options": {"batchSize": 101}}, "VALUE_INVALID"),
        ({"options": {"concurrency": 1000}}, "VALUE_INVALID"),
        ({"options": {"retrySeconds": [0]}}, "VALUE_INVALID"),
        ({"options": {"batchSize": 2, "envelope": "CLOUDEVENTS_BINARY"}}, "VALUE_INVALID"),
        ({"headers": {"webhook-id": "x"}}, "VALUE_INVALID"),
        ({"headers": {"host": "x"}}, "VALUE_INVALID"),
        ({"headers": {"x": "a\r\nb: c"}}, "VALUE_INVALID"),
        ({"consumerId": "admin"}, "PERMISSION_DENIED"),
    ],
)
def test_what_cannot_be_is_refused(hub: RunningHub, change: dict[str, Any], reason: str) -> None:
    reply = create(hub, **{"url": "https://example.com/", **change})
    assert reply.reason == reason, reply.text


def test_a_hidden_field_is_refused_as_one_that_does_not_exist(hub: RunningHub) -> None:
    def refused(name: str) -> tuple[int, str]:
        selection = {"dataset": "customers", "filter": f'{name} = "x"'}
        reply = create(hub, "https://example.com/", selections=[selection])
        return reply.status, reply.json()["message"].replace(name, "…")

    assert refused("tax_id") == refused("tax_ix")


def test_a_webhook_is_its_owners_alone(hub: RunningHub, webhook: dict[str, Any]) -> None:
    name = webhook["webhookId"]
    for path in ("", "/deliveries", "/metrics"):
        assert hub.get(f"/v1/webhooks/{name}{path}", "bi").reason == "PERMISSION_DENIED"
        assert hub.get(f"/v1/webhooks/{name}{path}", "admin").status == 200
    assert hub.get("/v1/webhooks/wh_none", "crm").reason == "WEBHOOK_NOT_FOUND"
    assert create(hub, "https://example.com/", "bi").reason == "PERMISSION_DENIED"
    own = {w["webhookId"] for w in hub.get("/v1/webhooks", "admin").json().get("webhooks", [])}
    everybody = hub.get("/v1/webhooks", "admin", everybody="true").json()["webhooks"]
    assert name in {w["webhookId"] for w in everybody} and name not in own
    assert hub.get("/v1/webhooks", "crm", everybody="true").reason == "PERMISSION_DENIED"


def test_webhooks_from_the_command_line(hub: RunningHub, posts: Posts, path: str) -> None:
    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return hub.command("webhooks", *arguments, "--as", "crm", check=check)

    key = f"cli-{uuid.uuid4().hex[:8]}"
    made = json.loads(
        run(
            "create",
            posts.url + path,
            "--event",
            "customer.created",
            "--filter",
            f'customer_id = "{key}*"',
            "--option",
            "batch_size=1",
            "--header",
            "x-team: blue",
        ).stdout
    )
    name = made["webhook"]["webhook_id"]
    tested = json.loads(run("test", name).stdout)
    assert tested["state"] == "DELIVERED"
    write(hub, key)
    (_, post) = posts.wait(path, 2)
    assert verify(post.headers, post.body, made["secret"])["type"] == "customer.created"
    assert post.headers["x-team"] == "blue"
    eventually(lambda: run("deliveries", name).stdout.count(b"DELIVERED") == 2)
    message = post.headers["webhook-id"]
    assert json.loads(run("delivery", name, message).stdout)["attempts"]
    assert json.loads(run("resend", name, message).stdout)["delivery_id"] == message
    posts.wait(path, 3)
    assert name in run("list").stdout.decode()
    assert json.loads(run("metrics", name).stdout)["success_rate"] == 1
    assert b"0 deliveries" in run("recover", name, "--since", "2026-01-01").stdout
    cursor = json.loads(post.body)["data"]["cursor"]
    assert json.loads(run("replay", name, cursor, "--to", cursor).stdout)["webhook_id"] == name
    assert json.loads(run("pause", name).stdout)["state"] == "PAUSED"
    assert json.loads(run("resume", name).stdout)["state"] == "ACTIVE"
    changed = json.loads(run("update", name, "--title", "Blue", "--option", "rate=9").stdout)
    assert (changed["title"], changed["options"]["rate"]) == ("Blue", 9)
    assert run("dead-letters", "--reason", "GONE").stdout.startswith(b"delivery_id\t")
    assert run("notices").stdout.startswith(b"create_time\t")
    rotated = json.loads(run("rotate-secret", name, "--overlap", "0s").stdout)
    assert rotated["secret"] != made["secret"]
    posts.statuses[path] = 500
    failed = run("test", name, check=False)
    assert failed.returncode == 1 and b"did not accept the test: STATUS" in failed.stderr
    run("delete", name)
    assert b"there is no webhook" in run("get", name, check=False).stderr


def test_listen_brings_events_to_a_local_server(hub: RunningHub, posts: Posts, path: str) -> None:
    key = f"listen-{uuid.uuid4().hex[:8]}"
    listener = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "penstock.client.cli",
            "webhooks",
            "listen",
            "--as",
            "crm",
            "--forward-to",
            posts.url + path,
            "--dataset",
            "customers",
            "--filter",
            f'customer_id = "{key}*"',
            "--count",
            "2",
        ],
        env=hub.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert listener.stderr is not None
        secret = listener.stderr.readline().decode().split()[1]
        listener.stderr.readline()
        write(hub, key + "1")
        posts.statuses[path] = 200
        posts.wait(path, 1)
        write(hub, key + "2")
        found = posts.wait(path, 2)
        assert listener.wait(PATIENCE) == 0
        out = listener.stdout.read().decode() if listener.stdout else ""
    finally:
        listener.kill()
        listener.wait()
        for stream in (listener.stdout, listener.stderr):
            if stream is not None:
                stream.close()
    events = [verify(p.headers, p.body, secret) for p in found]
    assert [e["data"]["key"] for e in events] == [key + "1", key + "2"]
    assert len(re.findall(r"^customer.created\tmsg_\w+\t200$", out, re.MULTILINE)) == 2
    titles = [w["title"] for w in hub.get("/v1/webhooks", "crm").json().get("webhooks", [])]
    assert not any(t.startswith("listen on") for t in titles)


def test_only_listening_webhooks_are_pulled_from(hub: RunningHub, webhook: dict[str, Any]) -> None:
    assert act(hub, webhook, ":pull").reason == "WEBHOOK_KIND_UNFIT"
    listening = create(hub, "", kind="LISTEN").json()["webhook"]
    start = time.monotonic()
    assert act(hub, listening, ":pull").json().get("deliveries", []) == []
    assert time.monotonic() - start < 10
    act(hub, listening, ":test")
    (pulled,) = eventually(
        lambda: act(hub, listening, ":pull", wait="20s").json().get("deliveries", [])
    )
    assert act(hub, listening, ":pull").json().get("deliveries", []) == []  # it is leased
    outcome = {"deliveryId": pulled["deliveryId"], "status": 200, "latency": "0.010s"}
    assert act(hub, listening, ":acknowledge", outcomes=[outcome]).status == 200
    assert state(hub, listening, pulled["deliveryId"]) == "DELIVERED"
    hub.request("DELETE", f"/v1/webhooks/{listening['webhookId']}", consumer="crm")
