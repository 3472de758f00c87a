"""The forms of replies over REST: JSON, XML, server-sent events."""

from __future__ import annotations

import http.client
import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from harness import Reply, RunningHub, new_customer

XML = "application/xml"


def ask(hub: RunningHub, path: str, accept: str = XML, consumer: str = "admin") -> Reply:
    return hub.request("GET", path, consumer=consumer, headers={"accept": accept})


@pytest.mark.parametrize("consumer", ["admin", "crm", "bi"])
@pytest.mark.parametrize("dataset", ["customers", "orders"])
def test_a_page_in_xml_has_the_bytes_of_a_file(
    hub: RunningHub, dataset: str, consumer: str
) -> None:
    query = "page_size=7&order_by=update_time"
    listed = ask(hub, f"/v1/{dataset}?{query}", consumer=consumer)
    assert (listed.status, listed.headers["content-type"]) == (200, XML), listed.text
    file = ask(hub, f"/v1/{dataset}:exportPage?{query}&format=XML", consumer=consumer)
    if consumer == "admin":  # the etags of lists whose View hides something are made for them
        assert listed.body == file.body
    assert len(ET.fromstring(listed.text)) == 7
    token = listed.headers["penstock-next-page-token"]
    following = ask(hub, f"/v1/{dataset}?{query}&page_token={token}", consumer=consumer)
    first = {row[0].text for row in ET.fromstring(listed.text)}
    assert not first & {row[0].text for row in ET.fromstring(following.text)}


@pytest.mark.parametrize("consumer", ["admin", "crm", "bi"])
def test_a_page_in_csv_has_the_bytes_of_a_file(hub: RunningHub, consumer: str) -> None:
    query = "page_size=7&order_by=update_time"
    for dataset in ("customers", "orders"):
        listed = ask(hub, f"/v1/{dataset}?{query}", "text/csv, text/*;q=0.1", consumer)
        assert listed.status == 200, listed.text
        assert listed.headers["content-type"] == "text/csv; charset=utf-8"
        file = ask(hub, f"/v1/{dataset}:exportPage?{query}&format=CSV", consumer=consumer)
        assert listed.body == file.body and listed.body.count(b"\n") >= 8
        token = listed.headers["penstock-next-page-token"]
        # A token leads on in any form.
        rest = [
            ask(hub, f"/v1/{dataset}?{query}&page_token={token}", kind, consumer)
            for kind in ("text/csv", "application/json")
        ]
        first = rest[0].text.splitlines()[1].split(",")[0]
        assert first == next(iter(rest[1].json()[dataset][0].values()))
        (row,) = hub.sql(
            "SELECT row_count, keys IS NOT NULL, shown IS NOT NULL FROM hub.audit_entry"
            " WHERE request_id = $1",
            listed.request_id,
        )
        assert row == (7, True, True)


def test_an_empty_page_in_csv_is_its_header(hub: RunningHub) -> None:
    reply = ask(hub, "/v1/customers?fields=customer_id,name&filter=name=%22none%22", "text/csv")
    assert (reply.status, reply.body) == (200, b"customer_id,name\n")
    assert "penstock-next-page-token" not in reply.headers
    for path in ("/v1/customers/c00000001", "/v1/webhooks", "/v1/customers:changes"):
        refused = ask(hub, path, "text/csv")
        assert (refused.status, refused.reason) == (406, "NOT_ACCEPTABLE")


def test_a_record_in_xml(hub: RunningHub) -> None:
    body = new_customer(name="<&>", tags=["a", "b"], billingAddress={"city": "Riga"})
    made = hub.request(
        "POST", "/v1/customers", consumer="admin", json_body=body, headers={"accept": XML}
    )
    assert (made.status, made.headers["content-type"]) == (200, XML), made.text
    record = ET.fromstring(made.text)
    assert (record.tag, record.findtext("name")) == ("customer", "<&>")
    assert record.findtext("billing_address/city") == "Riga" and record.find("email") is None
    path = f"/v1/customers/{body['customerId']}"
    got = ask(hub, path)
    assert got.body == made.body
    changed = hub.request(
        "PATCH", path, consumer="admin", json_body={"name": "N"}, headers={"accept": XML}
    )
    assert ET.fromstring(changed.text).findtext("name") == "N"


def test_json_and_xml_have_different_etags(hub: RunningHub) -> None:
    path = "/v1/customers/c00000001"
    tags = {kind: ask(hub, path, kind).headers["etag"] for kind in ("application/json", XML)}
    assert len(set(tags.values())) == 2
    for kind, tag in tags.items():
        for other in tags:
            headers = {"accept": other, "if-none-match": tag}
            reply = hub.request("GET", path, consumer="admin", headers=headers)
            assert reply.status == (304 if kind == other else 200)


def test_errors_in_xml(hub: RunningHub) -> None:
    for path, status, reason in [
        ("/v1/customers/absent", 404, "RECORD_NOT_FOUND"),
        ("/v1/customers?filter=x%20%3D", 400, "FILTER_INVALID"),
        ("/v1/nothing", 404, "METHOD_UNKNOWN"),
    ]:
        reply = ask(hub, path)
        assert (reply.status, reply.headers["content-type"]) == (status, XML)
        assert ET.fromstring(reply.text).findtext("reason") == reason


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        ("*/*", 200, "application/json"),
        ("application/*", 200, "application/json"),
        ("application/json;q=0.2, application/xml;q=0.4", 200, XML),
        ("application/xml;q=0.2, */*", 200, "application/json"),
        ("application/problem+json", 200, "application/json"),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", 200, XML),
        ("image/png", 406, "application/json"),
        ("application/json;q=0", 406, "application/json"),
        ("text/csv, image/png", 406, "application/json"),
    ],
)
def test_the_form_is_that_which_the_caller_prefers(
    hub: RunningHub, accept: str, status: int, kind: str
) -> None:
    reply = ask(hub, "/v1/customers/c00000001", accept)
    assert (reply.status, reply.headers["content-type"]) == (status, kind), reply.text
    if status == 406:
        assert reply.reason == "NOT_ACCEPTABLE"


def test_a_write_that_cannot_be_answered_is_not_done(hub: RunningHub) -> None:
    body = new_customer()
    headers = {"accept": "image/png"}
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=body, headers=headers)
    assert reply.status == 406
    assert hub.get(f"/v1/customers/{body['customerId']}").status == 404


def test_the_root_lists_what_a_caller_may_see(hub: RunningHub) -> None:
    def paths(consumer: str) -> dict[str, Any]:
        reply = hub.get("/v1", consumer)
        assert reply.status == 200, reply.text
        return {p["path"]: p["methods"] for p in reply.json()["paths"]}

    everything = paths("admin")
    assert everything["/v1/customers"] == {
        "GET": "penstock.api.v1.Customers.ListCustomers",
        "POST": "penstock.api.v1.Customers.CreateCustomer",
    }
    assert not any("products" in path for path in paths("crm"))
    assert any("products" in path for path in everything)
    assert hub.request("GET", "/v1").status == 401


def test_the_door_is_for_the_sidecar_alone(hub: RunningHub) -> None:
    """A client of gRPC cannot call it, and reflection does not show it."""
    import grpc
    from google.api.httpbody_pb2 import HttpBody
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    from penstock.rest.v1 import rest_pb2

    metadata = (
        ("authorization", f"Bearer {hub.token('admin')}"),
        ("x-envoy-original-path", "/v1/customers"),
        ("x-envoy-original-method", "GET"),
    )
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        for service in rest_pb2.DESCRIPTOR.services_by_name:
            call = channel.unary_unary(
                f"/penstock.rest.v1.{service}/Call",
                rest_pb2.HttpCall.SerializeToString,
                HttpBody.FromString,
            )
            with pytest.raises(grpc.RpcError) as refused:
                call(rest_pb2.HttpCall(), metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        listed = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert not any("rest" in name for name in listed)
    assert "penstock.api.v1.Customers" in listed


def test_events_have_ids_from_which_one_goes_on(hub: RunningHub) -> None:
    hub.head()

    def events(path: str, more: dict[str, str], count: int) -> list[dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=120)
        headers = {"authorization": f"Bearer {hub.token('admin')}", "accept": "text/event-stream"}
        connection.request("GET", path, headers={**headers, **more})
        reply = connection.getresponse()
        assert (reply.status, reply.getheader("content-type")) == (200, "text/event-stream")
        found: list[dict[str, str]] = []
        event: dict[str, str] = {}
        while len(found) < count:
            line = reply.readline().decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                found.append(event)
                event = {}
        connection.close()
        return found

    watch = "/v1/customers:watch?snapshot=true&heartbeat_seconds=1"
    begun = events(watch, {}, 1)
    assert begun[0]["retry"] == "1000" and "id" not in begun[0]
    until: list[dict[str, str]] = []
    while not until or until[-1].get("event") != "checkpoint":
        until = events(watch, {}, len(until) + 1)
    hub.request("POST", "/v1/customers", consumer="admin", json_body=new_customer(name="Later"))
    hub.head()
    again = events(watch, {"last-event-id": until[-1]["id"]}, 2)
    told = json.loads(again[1]["data"])["changes"]
    assert [change["after"]["name"] for change in told] == ["Later"], "no snapshot, and no loss"
