"""A token that is narrowed to a permission gets no record through its consumer's earlier objects.

Webhooks, deliveries, subscriptions, receipts, credentials, previews: every method of the hub's own
services is called with each single permission.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory

from harness import PATIENCE, Reply, RunningHub, eventually
from penstock.hub.v1 import webhooks_pb2
from penstockd.policy.model import Permission
from posted import Posts, receiving

from .test_access_admin import methods
from .test_write_replies import CLEAR, bearer

PERMISSIONS = [p.value for p in Permission]
#: A text in each value of the record except its key.
SECRET = "zqreach"
#: Streams without an end: for a caller that may not read, they end at once with a denial.
ENDLESS = {"WatchChanges", "WatchSubscription"}
#: Methods that would remove objects that this walk or other tests need; each is denied or harmless,
#: as asserted below.
SPARED = {"RotateSigningKeys", "RollbackPolicy", "DeleteConsumer", "DeleteRole", "RevokeCredential"}


@dataclass(frozen=True)
class Owner:
    """A consumer with all permissions, its objects, and the record in its deliveries."""

    hub: RunningHub
    posts: Posts
    consumer: str
    secret: str
    credential: str
    key: str
    webhook: str
    listening: str
    delivery: str
    receipt: str
    cursor: str

    def headers(self, scope: str = "") -> dict[str, str]:
        """The headers of a token with a scope."""
        return bearer(self.hub, self.consumer, self.secret, scope)

    def call(self, method: str, path: str, body: Any = None, *, scope: str = "") -> Reply:
        """One call with a token."""
        return self.hub.request(method, path, json_body=body, headers=self.headers(scope))

    def requests(self) -> dict[str, dict[str, Any]]:
        """The requests of methods that need more than names."""
        selection = [{"dataset": "customers"}]
        thief = f"{self.posts.url}/thief"
        role = {"roleId": "sr-new", "grants": [grant("customers", "read")]}
        return {
            "CreateWebhook": {"webhook": {"url": thief, "selections": selection}},
            "UpdateWebhook": {
                "webhook": {"webhookId": self.webhook, "url": thief},
                "updateMask": "url",
            },
            "ReplayChanges": {"webhookId": self.webhook, "cursor": self.cursor},
            "RecoverDeliveries": {"webhookId": self.webhook, "startTime": "2020-01-01T00:00:00Z"},
            "PullDeliveries": {"webhookId": self.listening},
            "ExplainAccess": {"dataset": "customers", "consumerId": self.consumer, "key": self.key},
            "PreviewRecords": {
                "dataset": "customers",
                "consumerId": self.consumer,
                "filter": f'customer_id = "{self.key}"',
            },
            "RehearseAccess": {"role": role, "days": 1},
            "CreateRole": {"role": role},
            "IssueCredential": {"consumerId": self.consumer, "kind": "CLIENT_SECRET"},
            "ResetSubscription": {"subscriptionId": "sr", "start": self.cursor},
        }

    def names(self) -> dict[str, Any]:
        """The values of fields with these names in all other requests."""
        return {
            "webhook_id": self.webhook,
            "delivery_id": self.delivery,
            "subscription_id": "sr",
            "receipt_id": self.receipt,
            "consumer_id": self.consumer,
            "credential_id": self.credential,
            "role_id": self.consumer,
            "dataset": "customers",
            "record_key": self.key,
            "cursor": self.cursor,
        }


def grant(dataset: str, *actions: str) -> dict[str, Any]:
    return {"dataset": dataset, "actions": list(actions), "classMasks": CLEAR}


@pytest.fixture(scope="module")
def owner(hub: RunningHub) -> Iterator[Owner]:
    with owning(hub) as found:
        yield found


@contextlib.contextmanager
def owning(hub: RunningHub) -> Iterator[Owner]:
    """An owner that is removed afterwards: it may change access, and other tests count such
    consumers."""
    with receiving() as posts:
        found = made(hub, posts)
        yield found
        for path in (f"consumers/{found.consumer}", f"roles/{found.consumer}"):
            gone = hub.request("DELETE", f"/v1/access/{path}", consumer="admin")
            assert gone.status == 200, gone.text


def made(hub: RunningHub, posts: Posts) -> Owner:
    name = f"sr-{uuid.uuid4().hex[:8]}"

    def admin(path: str, body: Any) -> Any:
        reply = hub.request("POST", f"/v1/access{path}", consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return reply.json()

    grants = [
        grant(d["name"], "read", "create", "update", "delete")
        for d in hub.get("/v1/datasets").json()["datasets"]
    ]
    admin("/roles", {"roleId": name, "grants": grants, "permissions": PERMISSIONS})
    admin("/consumers", {"consumerId": name, "roles": [name]})
    issued = admin(f"/consumers/{name}/credentials", {"kind": "CLIENT_SECRET"})
    hub.settle()
    secret, headers = issued["secret"], bearer(hub, name, issued["secret"], "")

    def call(method: str, path: str, body: Any = None) -> Any:
        reply = hub.request(method, path, json_body=body, headers=headers)
        assert reply.status == 200, reply.text
        return reply.json()

    selections = [{"dataset": "customers"}]
    # This message fails and stays as a dead letter, to be sent again.
    posts.statuses["/owner"] = 500
    hook = {"url": f"{posts.url}/owner", "headers": {"x-own": SECRET}, "selections": selections}
    hook["options"] = {"retrySeconds": [1]}
    webhook = call("POST", "/v1/webhooks", hook)["webhook"]["webhookId"]
    listen = {"kind": "LISTEN", "selections": selections}
    listening = call("POST", "/v1/webhooks", listen)["webhook"]["webhookId"]
    cursor = call("GET", "/v1/customers:changes")["nextCursor"]
    subscription = {"subscriptionId": "sr", "datasets": ["customers"]}
    call("POST", "/v1/subscriptions", {"subscription": subscription})
    record = {"customerId": f"zqkey-{uuid.uuid4().hex[:8]}", "name": SECRET, "notes": SECRET}
    call("POST", "/v1/customers", record)
    posts.wait("/owner", 1)

    def dead() -> list[Any]:
        found: list[Any] = call("GET", "/v1/webhooks:deadLetters").get("deliveries", [])
        return found

    delivery = eventually(dead)[0]["deliveryId"]
    eventually(lambda: call("GET", f"/v1/webhooks/{listening}/deliveries").get("deliveries"))
    export = hub.request("GET", "/v1/customers:export?format=CSV", headers=headers)
    return Owner(
        *(hub, posts, name, secret, issued["credential"]["credentialId"], record["customerId"]),
        *(webhook, listening, delivery, export.headers["penstock-receipt"], cursor),
    )


def answers(owner: Owner, scope: str) -> Iterator[tuple[str, bytes]]:
    """Each method of the hub's services, and everything that a token gets from it, errors
    included."""
    metadata = (("authorization", owner.headers(scope)["authorization"]),)
    with grpc.insecure_channel(f"127.0.0.1:{owner.hub.port}") as channel:
        for method in methods():
            service = method.containing_service.full_name
            if service.startswith("penstock.hub.") and method.name not in SPARED:
                ending = method.name.startswith("Delete") or method.name == "RotateCredential"
                if not scope and (method.name in ENDLESS or ending):
                    continue
                yield method.name, answer(owner, channel, method, metadata)


def answer(owner: Owner, channel: grpc.Channel, method: Any, metadata: Any) -> bytes:
    request = message_factory.GetMessageClass(method.input_type)()
    if method.name in owner.requests():
        json_format.ParseDict(owner.requests()[method.name], request)
    else:
        for name, value in owner.names().items():
            if name in method.input_type.fields_by_name:
                setattr(request, name, value)
    kind = "unary_stream" if method.server_streaming else "unary_unary"
    path = f"/{method.containing_service.full_name}/{method.name}"
    call = getattr(channel, kind)(path, type(request).SerializeToString, bytes)
    try:
        reply = call(request, metadata=metadata, timeout=PATIENCE)
        return b"".join(reply) if method.server_streaming else bytes(reply)
    except grpc.RpcError as error:
        refused: Any = error
        return repr((refused.code(), refused.details(), refused.trailing_metadata())).encode()


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_a_permission_alone_gets_no_record(owner: Owner, permission: str) -> None:
    asked = dict(answers(owner, permission))
    assert len(asked) >= 55
    found = [name for name, answer in asked.items() if SECRET.encode() in answer]
    assert not found
    if not permission.startswith("audit."):  # audit permissions include the names of records
        found = [n for n, a in asked.items() if b"zqkey-" in a and b"StatusCode" not in a]
        assert not found, "keys are records' too"
    allowed = {name for name, answer in asked.items() if b"StatusCode" not in answer}
    assert allowed, "negative control: the permission does allow something"
    told = [p for p in owner.posts.taken if p.path == "/thief"]
    assert not told, "nothing was sent elsewhere"
    hook = owner.call("GET", f"/v1/webhooks/{owner.webhook}").json()
    assert hook["url"].endswith("/owner")
    credentials = owner.call("GET", f"/v1/access/consumers/{owner.consumer}/credentials").json()
    assert len(credentials["credentials"]) == 1


def test_the_walk_finds_what_is_there(hub: RunningHub) -> None:
    """Negative control: the same requests with all scopes get the record, and send it elsewhere."""
    with owning(hub) as owner:
        asked = dict(answers(owner, ""))
        found = {name for name, answer in asked.items() if SECRET.encode() in answer}
        assert {"GetDelivery", "PullDeliveries", "PullChanges", "PreviewRecords"} <= found
        assert b"zqkey-" in asked["ListDeliveries"]
        told = owner.posts.wait("/thief", 1)
        assert SECRET.encode() in told[0].body or "test" in told[0].body.decode()


def test_a_key_is_not_found_out_by_asking_for_it(owner: Owner) -> None:
    path = f"/v1/webhooks/{owner.webhook}/deliveries"
    for key in (owner.key, "no-such"):
        reply = owner.call("GET", f"{path}?key={key}", scope="webhooks.read")
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
    assert owner.call("GET", path, scope="webhooks.read").json().get("deliveries")
    whole = owner.call("GET", f"{path}?key={owner.key}", scope="webhooks.read customers:read")
    assert whole.json()["deliveries"][0]["key"] == owner.key


def test_the_scopes_of_what_it_tells_are_enough(owner: Owner) -> None:
    """And a webhook that is created with them sends no more, whoever changes it later."""
    scope = "webhooks.write webhooks.read customers:read"
    for verb in ("pause", "resume"):
        reply = owner.call("POST", f"/v1/webhooks/{owner.webhook}:{verb}", {}, scope=scope)
        assert reply.status == 200, reply.text
    narrow = {"kind": "LISTEN", "selections": [{"dataset": "customers"}]}
    made = owner.call("POST", "/v1/webhooks", narrow, scope=scope).json()["webhook"]
    assert made["scopes"] == sorted(scope.split())
    path = f"/v1/webhooks/{made['webhookId']}"
    more = {"selections": [{"dataset": "customers"}, {"dataset": "orders"}]}
    for token in (scope, ""):
        reply = owner.call("PATCH", path, more, scope=token)
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
    # A webhook without scopes may come to deliver orders, but not through a caller that may not
    # read them.
    reply = owner.call("PATCH", f"/v1/webhooks/{owner.webhook}", more, scope=scope)
    assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
    assert "orders" in reply.json()["message"]
    assert owner.call("DELETE", path, scope=scope).status == 200


def _messages(kind: Any) -> list[Any]:
    return [f for f in kind.fields if f.message_type is not None]


def test_to_write_webhooks_is_not_to_read_them(owner: Owner) -> None:
    """A reply to an update of a webhook shows only what the call itself has set, and no URL or
    header."""
    path = f"/v1/webhooks/{owner.webhook}"
    changes: dict[str, tuple[str, str, dict[str, Any], set[str]]] = {
        "UpdateWebhook": ("PATCH", path, {"title": "t", "options": {"rate": 9}}, {"title"}),
        "PauseWebhook": ("POST", f"{path}:pause", {}, set()),
        "ResumeWebhook": ("POST", f"{path}:resume", {}, set()),
        "RotateSecret": ("POST", f"{path}:rotateSecret", {}, set()),
        "ReplayChanges": ("POST", f"{path}:replay", {"cursor": owner.cursor}, set()),
    }
    # These need permission to read, or set everything themselves.
    asked = {"ListWebhooks", "GetWebhook", "CreateWebhook"}
    telling = {
        m.name
        for m in methods()
        if m.containing_service.name == "Webhooks"
        and webhooks_pb2.Webhook.DESCRIPTOR.full_name
        in (m.output_type.full_name, *(f.message_type.full_name for f in _messages(m.output_type)))
    }
    assert telling - asked == set(changes)
    plain = {"webhookId", "consumerId", "kind", "state", "updateTime"}
    for name, (verb, where, body, own) in changes.items():
        told = owner.call(verb, where, body, scope="webhooks.write customers:read").json()
        told = told.get("webhook", told)
        assert told.pop("options", {"rate": 9}) == {"rate": 9}
        assert told.keys() == plain | own, name

        def seen(call: tuple[str, str, Any] = (verb, where, body)) -> str:
            scope = "webhooks.write webhooks.read customers:read"
            reply = owner.call(*call, scope=scope)
            return reply.text if reply.status == 200 else ""  # a replay may be running

        whole = eventually(seen)
        assert "/owner" in whole and "x-own" in whole, "negative control: who reads sees it"
    hook = owner.call("GET", path).json()
    assert (hook["title"], hook["state"]) == ("t", "ACTIVE")


def test_subscriptions_are_of_who_may_read_them(owner: Owner) -> None:
    path = "/v1/subscriptions"
    for verb, where, body in (
        ("GET", "/sr", None),
        ("DELETE", "/sr", None),
        ("POST", "/sr:reset", {"start": "now"}),
        ("POST", "/sr:pull", {}),
        ("POST", "/sr:acknowledge", {"cursor": owner.cursor}),
        ("POST", "/sr:extend", {"leaseId": "x"}),
        ("POST", "/sr:release", {"leaseId": "x"}),
    ):
        reply = owner.call(verb, f"{path}{where}", body, scope="orders:read")
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED"), where
    assert not owner.call("GET", path, scope="orders:read").json().get("subscriptions")
    assert owner.call("GET", path, scope="customers:read").json()["subscriptions"]
    assert owner.call("GET", f"{path}/sr", scope="customers:read").status == 200


def test_receipts_are_of_who_may_read_the_records(owner: Owner) -> None:
    path = f"/v1/receipts/{owner.receipt}"
    assert owner.call("GET", path, scope="orders:read").reason == "RECEIPT_NOT_FOUND"
    assert owner.call("GET", path, scope="customers:read").status == 200
    assert owner.call("GET", path, scope="audit.read").status == 200, "whoever's it is"


# --- no token gives itself more ----------------------------------------------------------------


@contextlib.contextmanager
def small_consumer(owner: Owner) -> Iterator[str]:
    """A consumer that may read customers, and nothing else."""
    name = f"sr-{uuid.uuid4().hex[:8]}"
    role = {"roleId": name, "grants": [grant("customers", "read")]}
    assert owner.call("POST", "/v1/access/roles", role).status == 200
    consumer = {"consumerId": name, "roles": [name]}
    assert owner.call("POST", "/v1/access/consumers", consumer).status == 200
    yield name
    assert owner.call("DELETE", f"/v1/access/consumers/{name}").status == 200
    assert owner.call("DELETE", f"/v1/access/roles/{name}").status == 200


def enlarging(owner: Owner, small: str) -> list[tuple[str, str, Any]]:
    """Ways to gain access to customers; none of them takes effect."""
    dry = "validate_only=true"
    own = f"/v1/access/consumers/{owner.consumer}"
    more = [grant("customers", "read")]
    return [
        ("POST", f"{own}/credentials?{dry}", {"kind": "API_KEY", "validateOnly": True}),
        ("POST", f"{own}/credentials/{owner.credential}:rotate", {"validateOnly": True}),
        (
            *("POST", f"/v1/access/consumers/{small}/credentials"),
            {"kind": "API_KEY", "validateOnly": True},
        ),
        ("POST", f"/v1/access/roles?{dry}", {"roleId": "sr-more", "grants": more}),
        (
            *("PATCH", f"/v1/access/roles/{small}?{dry}"),
            {"grants": [grant("customers", "read", "update")]},
        ),
        ("POST", f"/v1/access/consumers?{dry}", {"consumerId": "sr-more", "roles": [small]}),
        ("PATCH", f"/v1/access/consumers/{small}?{dry}", {"claims": {"a": {"values": ["b"]}}}),
        ("POST", "/v1/access:preview", {"dataset": "customers", "consumerId": small}),
        ("POST", "/v1/access:explain", {"dataset": "customers", "roles": [small], "key": "x"}),
    ]


def test_access_write_alone_gives_nothing_away(owner: Owner) -> None:
    with small_consumer(owner) as small:
        owner.hub.settle()
        for method, path, body in enlarging(owner, small):
            reply = owner.call(method, path, body, scope="access.write access.read")
            assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED"), path
            whole = owner.call(method, path, body)
            assert whole.status == 200, f"negative control: {path}: {whole.text}"
        scope = "access.write access.read customers:*"
        for method, path, body in enlarging(owner, small)[2:]:
            reply = owner.call(method, path, body, scope=scope)
            assert reply.status == 200, f"what its scopes name, {path}: {reply.text}"


def test_an_issuer_speaks_for_nobody_who_may_more_than_its_maker(owner: Owner) -> None:
    entry: dict[str, Any] = {
        "issuerId": "sr",
        "issuer": "https://sr.example.com",
        "jwksUri": "https://sr.example.com/keys",
        "audiences": ["penstock"],
        "consumerClaim": "azp",
    }
    path, scope = "/v1/access/issuers", "access.write access.read customers:read"
    with small_consumer(owner) as small:
        owner.hub.settle()
        for given in ({"consumers": {"x": owner.consumer}}, {"consumersByClaim": True}):
            reply = owner.call("POST", path, {**entry, **given}, scope=scope)
            assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED"), json.dumps(given)
        made = owner.call("POST", path, {**entry, "consumers": {"x": small}}, scope=scope)
        assert made.status == 200, made.text
        wider = {"consumers": {"x": owner.consumer}}
        assert owner.call("PATCH", f"{path}/sr", wider, scope=scope).status == 403
        assert owner.call("PATCH", f"{path}/sr", wider).status == 200, "negative control"
        assert owner.call("DELETE", f"{path}/sr").status == 200
