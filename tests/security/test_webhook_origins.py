"""A webhook that is changed to another origin does not take the earlier receiver's secrets
along."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from harness import Reply, RunningHub
from penstock.client.webhooks import verify
from posted import Posts, receiving

HEADERS = {"authorization": "Bearer zqreceiver", "x-team": "blue"}


@pytest.fixture
def receivers() -> Iterator[tuple[Posts, Posts]]:
    """Two receivers, which differ in their ports."""
    with receiving() as one, receiving() as other:
        yield one, other


@pytest.fixture(params=["HMAC_SHA256", "ED25519"])
def made(
    request: pytest.FixtureRequest, hub: RunningHub, receivers: tuple[Posts, Posts]
) -> Iterator[dict[str, Any]]:
    """A webhook at the first receiver, with headers of its own and two secrets."""
    document = {
        "url": f"{receivers[0].url}/{uuid.uuid4().hex}",
        "selections": [{"dataset": "customers", "filter": 'name = "nobody"'}],
        "headers": HEADERS,
        "options": {"signature": request.param},
    }
    reply = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=document)
    assert reply.status == 200, reply.text
    webhook = reply.json()["webhook"]
    path = f"/v1/webhooks/{webhook['webhookId']}"
    rotated = hub.request("POST", f"{path}:rotateSecret", consumer="crm", json_body={})
    yield {**webhook, "path": path, "secrets": [reply.json()["secret"], rotated.json()["secret"]]}
    hub.request("DELETE", path, consumer="crm")


def update(hub: RunningHub, made: dict[str, Any], consumer: str = "crm", **body: Any) -> Reply:
    return hub.request("PATCH", made["path"], consumer=consumer, json_body=body)


def sent(hub: RunningHub, made: dict[str, Any], posts: Posts, path: str) -> Any:
    """A test message, as it arrives at a path."""
    reply = hub.request("POST", f"{made['path']}:test", consumer="crm", json_body={})
    assert reply.status == 200, reply.text
    return posts.wait(path, 1)[0]


def signs(post: Any, secret: str) -> bool:
    """Whether a message is signed with a secret."""
    try:
        verify(post.headers, post.body, secret)
    except Exception as error:
        assert "signature" in str(error).lower(), error
        return False
    return True


def test_another_path_is_the_same_receiver(
    hub: RunningHub, receivers: tuple[Posts, Posts], made: dict[str, Any]
) -> None:
    """Negative control: the webhook keeps all that it has."""
    reply = update(hub, made, url=f"{receivers[0].url.upper().replace('HTTP', 'http')}/other")
    assert reply.status == 200, reply.text
    assert "secret" not in reply.json()
    post = sent(hub, made, receivers[0], "/other")
    assert {n: post.headers[n] for n in HEADERS} == HEADERS
    assert all(signs(post, secret) for secret in made["secrets"])


@pytest.mark.parametrize("consumer", ["crm", "admin"])
def test_another_origin_is_another_receiver(
    hub: RunningHub, receivers: tuple[Posts, Posts], made: dict[str, Any], consumer: str
) -> None:
    reply = update(hub, made, consumer, url=f"{receivers[1].url}/other")
    assert reply.status == 200, reply.text
    assert not reply.json().get("headers")
    post = sent(hub, made, receivers[1], "/other")
    assert not HEADERS.keys() & post.headers.keys()
    assert "zqreceiver" not in str(post.headers)
    assert signs(post, reply.json()["secret"])
    assert not any(signs(post, secret) for secret in made["secrets"])
    shown = hub.get(made["path"], "crm").json()
    assert "secret" not in shown, "this once"
    assert len(shown["secrets"]) == 1


def test_headers_that_come_with_the_origin_are_sent_there(
    hub: RunningHub, receivers: tuple[Posts, Posts], made: dict[str, Any]
) -> None:
    given = {"x-new": "green"}
    reply = update(hub, made, url=f"{receivers[1].url}/new", headers=given)
    assert list(reply.json()["headers"]) == ["x-new"]
    post = sent(hub, made, receivers[1], "/new")
    assert post.headers["x-new"] == "green"
    assert not HEADERS.keys() & post.headers.keys()
