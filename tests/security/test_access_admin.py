"""Administration of access: denied by default, no way around it, no lock-out, no secret shown."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from harness import PATIENCE, Reply, RunningHub, eventually, in_force
from penstock.options.v1 import method_pb2
from penstockd.installation import read_catalog
from penstockd.rpc import datasets
from penstockd.rpc.hub import list_hub_routes

PACKAGES = ("penstock.api.v1", "penstock.hub.v1")
#: Methods that need no grant: each answers with what the caller may see, here nothing.
OPEN = {
    "penstock.hub.v1.Datasets/ListDatasets",
    # A caller that has not made an export cannot know its receipt.
    "penstock.hub.v1.Receipts/GetReceipt",
    # Without a permission, a caller learns who it is, and gets its own limits and usage.
    "penstock.hub.v1.Callers/GetCaller",
    "penstock.hub.v1.Limits/GetLimits",
    "penstock.hub.v1.Usage/ReportUsage",
    "penstock.hub.v1.Usage/ExportUsage",
}


class Made:
    """A consumer with roles made for a test, and its API key."""

    def __init__(self, hub: RunningHub, *permissions: str, grants: Any = ()) -> None:
        self.hub, self.name = hub, f"t-{uuid.uuid4().hex[:8]}"
        role = {"roleId": self.name, "permissions": list(permissions), "grants": list(grants)}
        assert self.admin("POST", "/roles", role).status == 200
        consumer = {"consumerId": self.name, "roles": [self.name]}
        assert self.admin("POST", "/consumers", consumer).status == 200
        issued = self.issue("API_KEY")
        self.key, self.credential = issued["secret"], issued["credential"]["credentialId"]

    def admin(self, verb: str, path: str, body: Any = None, **query: Any) -> Reply:
        return self.hub.request(
            verb, f"/v1/access{path}", consumer="admin", json_body=body, query=query
        )

    def issue(self, kind: str) -> Any:
        return self.admin("POST", f"/consumers/{self.name}/credentials", {"kind": kind}).json()

    def call(self, verb: str, path: str, body: Any = None, **query: Any) -> Reply:
        headers = {"x-api-key": self.key}
        return self.hub.request(verb, path, headers=headers, json_body=body, query=query)

    def known(self) -> None:
        """Wait until every worker knows the consumer."""
        self.hub.settle()
        assert self.call("GET", "/v1/datasets").status == 200

    def remove(self) -> None:
        self.admin("DELETE", f"/consumers/{self.name}")
        self.admin("DELETE", f"/roles/{self.name}")


@pytest.fixture
def nobody(hub: RunningHub) -> Iterator[Made]:
    """A consumer whose role allows nothing."""
    made = Made(hub)
    made.known()
    yield made
    made.remove()


@pytest.fixture
def reader(hub: RunningHub) -> Iterator[Made]:
    """A consumer that may read the policy, and nothing else."""
    made = Made(hub, "access.read")
    made.known()
    yield made
    made.remove()


def methods() -> Iterator[Any]:
    """Every method that needs credentials, from the descriptors."""
    catalog = read_catalog()
    files = {s.file.name: s.file for s in _services(catalog.pool)}
    for file in files.values():
        for service in file.services_by_name.values():
            for method in service.methods:
                if not method.GetOptions().Extensions[method_pb2.public]:
                    yield method


def _services(pool: Any) -> Iterator[Any]:
    """The services of the PACKAGES that are served."""
    served = [*list_hub_routes(), *datasets.list_routes(read_catalog())]
    for name in sorted({route.method.service for route in served}):
        if name.rpartition(".")[0] in PACKAGES:
            yield pool.FindServiceByName(name)


def outcome(channel: grpc.Channel, method: Any, key: str) -> grpc.StatusCode:
    """The outcome of an empty call."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = message_factory.GetMessageClass(method.input_type)()
    metadata = (("x-api-key", key),)
    kind = ("stream" if method.client_streaming else "unary") + (
        "_stream" if method.server_streaming else "_unary"
    )
    call = getattr(channel, kind)(path, type(request).SerializeToString, bytes)
    sent = iter([request]) if method.client_streaming else request
    try:
        reply = call(sent, metadata=metadata, timeout=PATIENCE)
        if method.server_streaming:
            list(reply)
    except grpc.RpcError as error:
        refused: Any = error
        code: grpc.StatusCode = refused.code()
        return code
    return grpc.StatusCode.OK


def test_every_method_is_denied_to_who_may_nothing(hub: RunningHub, nobody: Made) -> None:
    """The test covers new methods as soon as the model has them."""
    denied, other = [], {}
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        for method in methods():
            name = f"{method.containing_service.full_name}/{method.name}"
            code = outcome(channel, method, nobody.key)
            if code is grpc.StatusCode.PERMISSION_DENIED:
                denied.append(name)
            else:
                other[name] = code.name
    assert set(other) <= OPEN, other
    assert len([n for n in denied if ".api." in n]) >= 45
    assert len([n for n in denied if ".hub." in n]) >= 21


def test_the_enumeration_would_find_an_open_method(hub: RunningHub, reader: Made) -> None:
    """Negative control: a consumer that may read the policy is not denied its read methods."""
    allowed = set()
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        for method in methods():
            if outcome(channel, method, reader.key) is not grpc.StatusCode.PERMISSION_DENIED:
                allowed.add(method.name)
    assert {"ListConsumers", "GetRole", "ListPolicyRevisions", "ExplainAccess"} <= allowed
    changing = ("Create", "Update", "Delete", "Issue", "Rotate", "Revoke", "Rollback", "Preview")
    assert not [name for name in allowed if name.startswith((*changing, "Rehearse"))]


def test_who_reads_the_policy_learns_nothing_of_records(hub: RunningHub, reader: Made) -> None:
    key = hub.sql("SELECT customer_id FROM data.customers LIMIT 1")[0][0]
    explain = {"dataset": "customers", "roles": ["admin"]}
    assert reader.call("POST", "/v1/access:explain", explain).status == 200
    for asked in ({**explain, "key": key}, {**explain, "key": "no-such"}):
        refused = reader.call("POST", "/v1/access:explain", asked)
        assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
        assert "access.write" in refused.json()["message"]
    preview = {"dataset": "customers", "consumerId": "admin"}
    assert reader.call("POST", "/v1/access:preview", preview).status == 403
    role = {"roleId": "probe", "grants": [{"dataset": "customers", "actions": ["read"]}]}
    assert reader.call("POST", "/v1/access:rehearse", {"role": role}).status == 403
    assert reader.call("GET", f"/v1/customers/{key}").status == 403


def test_nobody_locks_the_last_administrator_out(hub: RunningHub) -> None:
    """Every attempt fails, by the administrator itself or by another, and changes nothing."""
    before = hub.sql("SELECT revision FROM hub.policy")

    def admin(verb: str, path: str, body: Any = None, **query: Any) -> Reply:
        return hub.request(verb, f"/v1/access{path}", consumer="admin", json_body=body, query=query)

    listed = admin("GET", "/consumers/admin/credentials").json()["credentials"]
    holders = hub.sql(
        "SELECT consumer_id FROM hub.consumer_role JOIN hub.role USING (role_id)"
        " WHERE 'access.write' = ANY (permissions)"
    )
    assert holders == [("admin",)] and len(listed) >= 2
    attempts = [
        admin("PATCH", "/consumers/admin", {"active": False}),
        admin("PATCH", "/consumers/admin", {"roles": ["bi"]}),
        admin("PATCH", "/consumers/admin", {}, update_mask="roles"),
        admin("DELETE", "/consumers/admin"),
        admin("PATCH", "/roles/admin", {"permissions": ["access.read"]}),
        admin("PATCH", "/roles/admin", {}, update_mask="permissions"),
        admin("POST", "/revisions/1:rollback", {}),
    ]
    for reply in attempts:
        assert (reply.status, reply.reason) == (400, "LAST_ADMINISTRATOR"), reply.text
    assert hub.sql("SELECT revision FROM hub.policy") == before
    denied = hub.sql(
        "SELECT count(*) FROM hub.audit_entry WHERE outcome = 'LAST_ADMINISTRATOR'"
        " AND request_id = ANY($1)",
        [r.request_id for r in attempts],
    )
    assert denied == [(len(attempts),)], "refused attempts are audited"


def test_the_last_credential_of_the_last_administrator_stays(hub: RunningHub) -> None:
    """Another administrator has one credential; those of the demo's administrator are revoked
    within a transaction."""
    made = Made(hub, "access.read", "access.write")
    try:
        path = f"/consumers/{made.name}/credentials/{made.credential}:revoke"
        hub.sql("UPDATE hub.consumer SET active = false WHERE consumer_id = 'admin'")
        in_force(lambda: made.call("GET", "/v1/datasets").status == 200)
        in_force(lambda: hub.get("/v1/datasets").status == 401)
        refused = made.call("POST", f"/v1/access{path}", {})
        assert (refused.status, refused.reason) == (400, "LAST_ADMINISTRATOR"), refused.text
        rotated = made.call("POST", f"/v1/access{path.replace('revoke', 'rotate')}", {})
        assert rotated.status == 200, "what has a successor may end"
    finally:
        hub.sql("UPDATE hub.consumer SET active = true WHERE consumer_id = 'admin'")
        in_force(lambda: hub.get("/v1/datasets").status == 200)
        made.remove()


def test_who_has_the_host_gets_in(hub: RunningHub) -> None:
    """The command for a new hub gives access to the policy, not to data, and the history records
    it."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    try:
        absent = hub.command("administrator", name, check=False)
        assert absent.returncode == 1 and b"there is no consumer" in absent.stderr
        assert b"--create" in absent.stderr and b"admin" in absent.stderr
        secret = hub.command("administrator", name, "--create").stdout.decode().strip()
        as_it: dict[str, Any] = {
            "PENSTOCK_CLIENT_ID": name,
            "PENSTOCK_CLIENT_SECRET": secret,
            "PENSTOCK_URL": hub.url,
        }

        def history() -> str:
            done = hub.command("policy", "history", "--limit", "1", check=False, **as_it)
            return done.stdout.decode()

        assert "penstock administrator" in eventually(history)
        refused = hub.command("list", "customers", check=False, **as_it)
        assert refused.returncode == 1 and b"may not read" in refused.stderr
        bad = hub.command("administrator", "No/Name", "--create", check=False)
        assert bad.returncode == 1 and b"Traceback" not in bad.stderr
    finally:
        for path in (f"/consumers/{name}", "/roles/administrator"):
            hub.request("DELETE", f"/v1/access{path}", consumer="admin")


def test_a_revoked_credential_takes_its_tokens_along(hub: RunningHub, nobody: Made) -> None:
    issued = nobody.issue("CLIENT_SECRET")
    form = f"grant_type=client_credentials&client_id={nobody.name}&client_secret={issued['secret']}"

    def token() -> Any:
        reply = hub.request(
            "POST",
            "/oauth2/token",
            body=form.encode(),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        return reply.json().get("access_token")

    bearer = {"authorization": f"Bearer {eventually(token)}"}

    def status() -> int:
        return hub.request("GET", "/v1/datasets", headers=bearer).status

    hub.settle()
    assert status() == 200
    credential = issued["credential"]["credentialId"]
    path = f"/consumers/{nobody.name}/credentials/{credential}:revoke"
    assert nobody.admin("POST", path, {}).json()["revoked"] is True
    in_force(lambda: status() == 401)
    assert token() is None
    assert nobody.call("GET", "/v1/datasets").status == 200, "another credential is untouched"


def test_no_secret_is_told_twice(hub: RunningHub, nobody: Made) -> None:
    first, second = nobody.issue("API_KEY"), nobody.issue("CLIENT_SECRET")
    path = f"/consumers/{nobody.name}/credentials"
    rotated = nobody.admin("POST", f"{path}/{second['credential']['credentialId']}:rotate", {})
    secrets = [nobody.key, first["secret"], second["secret"], rotated.json()["secret"]]
    parts = [s.split("_", 2)[2] for s in secrets]
    assert all(re.fullmatch(r"[\w-]{43}", p) for p in parts)
    told = [
        nobody.admin("GET", f"/consumers/{nobody.name}").text,
        nobody.admin("GET", "/consumers", page_size=1000).text,
        nobody.admin("GET", path).text,
        nobody.admin("GET", "/revisions").text,
    ]
    newest = json.loads(told[3])["revisions"][0]["revision"]
    told.append(nobody.admin("GET", f"/revisions/{newest}").text)
    told.append(nobody.admin("GET", "/revisions:compare", from_revision=1).text)
    for table in ("audit_entry", "policy_revision", "policy_document", "credential", "consumer"):
        rows = hub.sql(f"SELECT t::text FROM hub.{table} AS t")
        assert rows
        told.append("\n".join(row[0] for row in rows))
    logs = [p for p in (hub.data / "log").iterdir() if p.is_file()]
    assert len(logs) >= 4
    told += [p.read_text(errors="replace") for p in logs]
    found = [(i, p[:4]) for i, text in enumerate(told) for p in parts if p in text]
    assert not found
    ids = [first["credential"]["credentialId"], second["credential"]["credentialId"]]
    assert all(i in told[2] for i in ids), "the search would find what is there"
    assert "digest" not in told[2] and "digest" not in told[4]


def test_a_scoped_token_may_no_more_than_its_scope(hub: RunningHub) -> None:
    """An administrator's token that is narrowed to reading cannot change the policy."""
    credentials = hub.consumers["admin"]
    form = (
        f"grant_type=client_credentials&client_id={credentials['client_id']}"
        f"&client_secret={credentials['client_secret']}&scope=access.read"
    )
    reply = hub.request(
        "POST",
        "/oauth2/token",
        body=form.encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    bearer = {"authorization": f"Bearer {reply.json()['access_token']}"}
    assert hub.request("GET", "/v1/access/roles", headers=bearer).status == 200
    body = {"roleId": "t-scoped"}
    refused = hub.request("POST", "/v1/access/roles", headers=bearer, json_body=body)
    assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    preview = {"dataset": "customers", "consumerId": "bi"}
    refused = hub.request("POST", "/v1/access:preview", headers=bearer, json_body=preview)
    assert refused.status == 403
