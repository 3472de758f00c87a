"""Every call leaves exactly one audit entry, which exists when the reply arrives; no secret is
logged."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest

from harness import PATIENCE, RunningHub, eventually, new_customer
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub

ENTRY = """
SELECT method, outcome, consumer_id, dataset, record_key, row_count, query, peer
FROM hub.audit_entry WHERE request_id = $1 AND phase = 'CALL'
"""


def entry(hub: RunningHub, request_id: str) -> dict[str, Any]:
    """The one entry of a call, which must exist at once."""
    rows = hub.sql(ENTRY, request_id)
    assert len(rows) == 1, rows
    names = ("method", "outcome", "consumer", "dataset", "key", "rows", "query", "peer")
    return dict(zip(names, rows[0], strict=True))


NAMED = {"customerId": "c00000001", "name": "n"}
#: Method, path after /v1/customers, consumer, body; the method and outcome in the entry.
CALLS: list[tuple[str, str, str | None, Any, str, str]] = [
    ("GET", "/c00000001", "bi", None, "GetCustomer", "OK"),
    ("GET", "/absent", "bi", None, "GetCustomer", "RECORD_NOT_FOUND"),
    ("GET", "?page_size=3", "crm", None, "ListCustomers", "OK"),
    ("GET", "?filter=tax_id:*", "crm", None, "ListCustomers", "FIELD_UNKNOWN"),
    ("GET", "?filter=name%3D", "crm", None, "ListCustomers", "FILTER_INVALID"),
    ("GET", "?page_token=x", "crm", None, "ListCustomers", "PAGE_TOKEN_INVALID"),
    ("GET", "?page_size=-1", "crm", None, "ListCustomers", "VALUE_INVALID"),
    ("GET", "", None, None, "ListCustomers", "UNAUTHENTICATED"),
    ("GET", ":export?limit=3", "bi", None, "StreamExportCustomers", "OK"),
    ("GET", ":export?format=X", "bi", None, "StreamExportCustomers", "FORMAT_UNKNOWN"),
    ("GET", ":export?order_by=tags", "bi", None, "StreamExportCustomers", "ORDER_INVALID"),
    ("GET", ":exportPage?page_size=2", "bi", None, "ExportCustomers", "OK"),
    ("POST", "", "bi", {}, "CreateCustomer", "PERMISSION_DENIED"),
    ("POST", "", "crm", {}, "CreateCustomer", "VALUE_INVALID"),
    ("POST", "", "crm", NAMED, "CreateCustomer", "RECORD_EXISTS"),
    ("PATCH", "/absent", "crm", {"name": "x"}, "UpdateCustomer", "RECORD_NOT_FOUND"),
    ("PATCH", "/c00000001?etag=0", "crm", {"name": "x"}, "UpdateCustomer", "ETAG_MISMATCH"),
    ("DELETE", "/absent", "crm", None, "DeleteCustomer", "RECORD_NOT_FOUND"),
    ("POST", ":batchUpsert", "crm", {"customers": [{}]}, "BatchUpsertCustomers", "VALUE_INVALID"),
    ("POST", ":batchUpsert", "crm", {}, "BatchUpsertCustomers", "OK"),
    ("POST", ":import?format=JSON", "crm", [{}], "ImportCustomers", "IMPORT_ROW_INVALID"),
    ("POST", ":import?format=CSV", "crm", {}, "ImportCustomers", "IMPORT_FORMAT_INVALID"),
    ("POST", ":import?format=JSON", "crm", [], "ImportCustomers", "OK"),
]


@pytest.mark.parametrize(
    ("verb", "path", "consumer", "body", "method", "outcome"),
    CALLS,
    ids=[f"{call[4]}-{call[5]}" for call in CALLS],
)
def test_a_call_leaves_one_entry(
    hub: RunningHub,
    verb: str,
    path: str,
    consumer: str | None,
    body: Any,
    method: str,
    outcome: str,
) -> None:
    reply = hub.request(verb, f"/v1/customers{path}", consumer=consumer, json_body=body)
    found = entry(hub, reply.request_id)
    assert found["method"] == f"/penstock.api.v1.Customers/{method}"
    assert (found["outcome"], found["consumer"]) == (outcome, consumer)
    assert (found["dataset"], (reply.status == 200)) == ("customers", outcome == "OK")
    assert found["peer"].startswith("127.0.0.1")


def test_other_services_leave_their_entries(hub: RunningHub) -> None:
    found = entry(hub, hub.get("/v1/datasets", "bi").request_id)
    assert (found["method"], found["outcome"]) == ("/penstock.hub.v1.Datasets/ListDatasets", "OK")
    found = entry(hub, hub.get("/v1/products", "crm").request_id)
    assert (found["dataset"], found["outcome"]) == ("products", "PERMISSION_DENIED")


def test_an_entry_says_what_was_asked_and_answered(hub: RunningHub) -> None:
    query = {"filter": "status = ACTIVE", "order_by": "name", "fields": "name", "page_size": 4}
    found = entry(hub, hub.get("/v1/customers", "bi", **query).request_id)
    del query["page_size"]
    assert json.loads(found["query"]) == query
    assert found["rows"] == 4
    found = entry(hub, hub.get("/v1/customers/c00000001").request_id)
    assert (found["key"], found["rows"]) == ("c00000001", 1)
    exported = hub.get("/v1/customers:export", "bi", format="CSV", limit=7)
    found = entry(hub, exported.request_id)
    assert json.loads(found["query"]) == {"format": "CSV", "limit": 7}
    receipt = "SELECT row_count, byte_count, state FROM hub.receipt WHERE request_id = $1"
    rows = hub.sql(receipt, exported.request_id)
    assert rows == [(7, len(exported.body), "COMPLETE")]


def test_a_write_is_audited_with_what_it_wrote(hub: RunningHub) -> None:
    record = new_customer()
    path = f"/v1/customers/{record['customerId']}"
    replies = [
        hub.request("POST", "/v1/customers", consumer="crm", json_body=record),
        hub.request("PATCH", path, consumer="crm", json_body={"name": "N"}),
        hub.request("DELETE", path, consumer="crm"),
    ]
    for reply, method in zip(replies, ("Create", "Update", "Delete"), strict=True):
        found = entry(hub, reply.request_id)
        assert found["method"].endswith(f"/{method}Customer")
        assert (found["outcome"], found["key"], found["rows"]) == ("OK", record["customerId"], 1)
    lines = "\n".join(json.dumps(new_customer()) for _ in range(3)).encode()
    done = hub.request("POST", "/v1/customers:import?format=NDJSON", consumer="crm", body=lines)
    assert entry(hub, done.request_id)["rows"] == 3


def test_tokens_are_audited(hub: RunningHub) -> None:
    form = {"grant_type": "client_credentials", "client_id": "bi"}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    for secret, outcome, consumer in (
        (hub.consumers["bi"]["client_secret"], "OK", "bi"),
        ("pcs_wrong", "INVALID_CLIENT", None),
    ):
        body = urlencode({**form, "client_secret": secret}).encode()
        reply = hub.request("POST", "/oauth2/token", body=body, headers=headers)
        found = entry(hub, reply.request_id)
        assert (found["outcome"], found["consumer"]) == (outcome, consumer)


def test_grpc_calls_are_audited_too(hub: RunningHub) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = CustomersStub(channel)
        get = api.GetCustomerRequest(customer_id="c00000001")
        _, call = stub.GetCustomer.with_call(get, metadata=hub.metadata("bi"))
        found = dict(call.initial_metadata())
        assert entry(hub, str(found["x-request-id"]))["outcome"] == "OK"
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetCustomer(get)
        refused: Any = raised.value
        identifier = dict(refused.initial_metadata() or refused.trailing_metadata())["x-request-id"]
        assert entry(hub, str(identifier))["outcome"] == "UNAUTHENTICATED"


def test_many_calls_at_once_leave_as_many_entries(hub: RunningHub) -> None:
    # Late entries of other calls do not match.
    count = (
        "SELECT count(*), count(DISTINCT request_id) FROM hub.audit_entry"
        " WHERE method LIKE '%/GetCustomer' AND consumer_id = 'crm'"
    )
    before = hub.sql(count)[0]
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = CustomersStub(channel)
        get = api.GetCustomerRequest(customer_id="c00000001")
        metadata = hub.metadata("crm")
        calls = [stub.GetCustomer.future(get, metadata=metadata) for _ in range(300)]
        assert all(call.result().customer_id == "c00000001" for call in calls)
    after = hub.sql(count)[0]
    assert (after[0] - before[0], after[1] - before[1]) == (300, 300)


def test_an_export_that_is_left_has_its_entry_and_says_so(hub: RunningHub) -> None:
    """The reader leaves after the first bytes: the entry existed before they arrived."""
    request = (
        f"GET /v1/interactions:export?format=NDJSON HTTP/1.1\r\nhost: hub\r\n"
        f"authorization: Bearer {hub.token('crm')}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", hub.port), timeout=PATIENCE) as connection:
        connection.sendall(request.encode())
        head = connection.recv(4096).decode(errors="replace")
        lines = head.lower().splitlines()
        identifier = next(li for li in lines if li.startswith("x-request-id:")).split(": ")[1]
        assert entry(hub, identifier)["outcome"] == "OK"
    receipt = "SELECT FROM hub.receipt WHERE request_id = $1 AND state <> 'RUNNING'"
    eventually(lambda: hub.sql(receipt, identifier))


def test_no_secret_is_in_any_log(hub: RunningHub) -> None:
    secrets = {value for c in hub.consumers.values() for k, value in c.items() if k != "client_id"}
    secrets |= {hub.token(consumer) for consumer in hub.consumers}
    secrets.add((hub.data / "secret").read_text())
    wrong = "psk_0123456789abcdef_wrongwrongwrong"
    for headers in ({"x-api-key": wrong}, {"authorization": f"Bearer {wrong}"}):
        hub.request("GET", "/v1/customers", headers=headers)
    query = {"filter": f'name = "{wrong}"', "fields": wrong}
    last = hub.get("/v1/customers", **query)
    files = [p for p in (hub.data / "log").iterdir() if p.is_file()]
    eventually(lambda: last.request_id in (hub.data / "log" / "access.log").read_text())
    files.append(hub.data / "penstock.log")
    assert len(files) >= 6
    for file in files:
        text = file.read_text(errors="replace")
        for secret in {*secrets, wrong}:
            assert secret not in text, f"{file.name} holds {secret[:12]}…"
        assert "Bearer ey" not in text


def test_the_database_holds_no_secret(hub: RunningHub) -> None:
    digests = hub.sql("SELECT encode(digest, 'escape'), credential_id FROM hub.credential")
    for consumer in hub.consumers.values():
        for kind in ("client_secret", "api_key"):
            assert not any(consumer[kind] in digest for digest, _ in digests)
            assert consumer[kind].split("_")[1] in {identifier for _, identifier in digests}
    queries = hub.sql("SELECT coalesce(string_agg(query::text, ' '), '') FROM hub.audit_entry")
    assert "psk_" not in queries[0][0].replace("psk_0123456789abcdef_wrongwrongwrong", "")
    keys = hub.sql("SELECT private_key FROM hub.signing_key")
    assert all(not bytes(key).startswith(b"0\x81") for (key,) in keys), "sealed, not plain DER"


def test_what_is_secret_is_for_its_owner_alone(hub: RunningHub) -> None:
    for name in ("demo.json", "secret"):
        assert (hub.data / name).stat().st_mode & 0o077 == 0
