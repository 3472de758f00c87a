"""Records in XML, in the bodies of calls: what a reply shows can be sent back."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from harness import Reply, RunningHub, new_customer

XML = "application/xml"
NIL = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:nil="true"'
#: Fields that the hub writes itself.
OWN = ("etag", "createTime", "updateTime")


def send(
    hub: RunningHub,
    method: str,
    path: str,
    body: bytes | str,
    consumer: str = "admin",
    **headers: str,
) -> Reply:
    data = body.encode() if isinstance(body, str) else body
    given = {"content-type": XML} | {k.replace("_", "-"): v for k, v in headers.items()}
    return hub.request(method, path, consumer=consumer, body=data, headers=given)


def values(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in OWN}


@pytest.mark.parametrize("dataset", ["customers", "contacts", "products", "orders", "interactions"])
def test_a_record_goes_round_in_xml(hub: RunningHub, dataset: str) -> None:
    listed = hub.get(f"/v1/{dataset}?page_size=3").json()[dataset]
    assert len(listed) == 3
    for record in listed:
        path = f"/v1/{dataset}/{next(iter(record.values()))}"
        shown = hub.request("GET", path, consumer="admin", headers={"accept": XML})
        same = send(hub, "PATCH", path, shown.body, accept=XML)
        assert (same.status, same.body) == (200, shown.body), same.text
        # Under another key it is another record with the same values.
        root = ET.fromstring(shown.text)
        key = f"{root[0].text}-again"
        assert root[0].text == next(iter(record.values()))
        root[0].text = key
        for number in root.findall("number"):
            number.text = key
        made = send(hub, "POST", f"/v1/{dataset}", ET.tostring(root, "utf-8"))
        assert made.status in (200, 400, 409), made.text
        if made.status == 200:
            copy, name = made.json(), next(iter(record))
            assert values(copy) == values(record) | {name: key}
            path = f"/v1/{dataset}/{key}"
            assert hub.request("DELETE", path, consumer="admin").status == 200
        else:  # a value that no two records may have
            assert dataset != "customers", made.text


def test_a_patch_changes_the_elements_that_are_there(hub: RunningHub) -> None:
    record = new_customer(
        notes="n",
        tags=["a"],
        marketingOptIn=True,
        email="a@b.c",
        billingAddress={"city": "Riga", "line1": "S"},
    )
    hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    path = f"/v1/customers/{record['customerId']}"
    changed = send(
        hub,
        "PATCH",
        path,
        f"<customer><notes {NIL}/><tags><item>b</item><item>c</item></tags>"
        "<marketing_opt_in>false</marketing_opt_in>"
        "<billing_address><city>Oslo</city></billing_address></customer>",
    )
    assert changed.status == 200, changed.text
    now = changed.json()
    assert (now["notes"], now["tags"], now["marketingOptIn"]) == (None, ["b", "c"], False)
    assert (now["billingAddress"]["city"], now["billingAddress"]["line1"]) == ("Oslo", "S")
    assert now["email"] == "a@b.c", "what is left out stays"
    # An element that the mask names and that is left out is null, as in an export.
    cleared = send(
        hub, "PATCH", f"{path}?update_mask=email,name", "<customer><name>N</name></customer>"
    )
    assert (cleared.json()["email"], cleared.json()["name"]) == (None, "N")


def test_a_batch_is_a_document_of_exports(hub: RunningHub) -> None:
    name = f"batch {new_customer()['customerId']}"
    records = [new_customer(name=name, tags=["x"]) for _ in range(3)]
    for record in records:
        hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    query = {"filter": f'name = "{name}"', "format": "XML"}
    file = hub.get("/v1/customers:exportPage", **query).body
    for record in records:
        path = f"/v1/customers/{record['customerId']}"
        assert hub.request("DELETE", path, consumer="admin").status == 200
    made = send(hub, "POST", "/v1/customers:batchUpsert", file)
    assert (made.status, made.json().get("createdCount")) == (200, "3"), made.text
    again = send(hub, "POST", "/v1/customers:batchUpsert?partial=true", file)
    assert again.json().get("unchangedCount") == "3"
    assert hub.get("/v1/customers:exportPage", **query).body.count(b"<customer>") == 3


def test_faults_are_named_by_the_elements(hub: RunningHub, unchanged: None) -> None:
    body = (
        "<customer><customer_id>x</customer_id><nmae>x</nmae><credit_limit>much</credit_limit>"
        "<billing_address><city/><city/></billing_address></customer>"
    )
    refused = send(hub, "POST", "/v1/customers", body)
    assert (refused.status, refused.reason) == (400, "FIELD_UNKNOWN")
    found = refused.violations()
    assert set(found) == {"nmae", "credit_limit", "billing_address.city"}
    assert found["billing_address.city"] == "is given twice"
    # One that only the command finds.
    bad = f"<customer><customer_id>{'k' * 3000}</customer_id><name>n</name></customer>"
    assert list(send(hub, "POST", "/v1/customers", bad).violations()) == ["customer_id"]
    other = send(hub, "PATCH", "/v1/customers/c00000001", body)
    assert "customer_id" in other.violations(), "differs from the path"


def test_a_hidden_field_is_unknown_in_xml_too(hub: RunningHub) -> None:
    shown = hub.get("/v1/customers/c00000001", "crm").json()
    hidden = [name for name in hub.get("/v1/customers/c00000001").json() if name not in shown]
    assert hidden
    faults = []
    for name in ("nothing", "lifetime_value" if "lifetimeValue" in hidden else hidden[0]):
        body = f"<customer><{name}>1</{name}></customer>"
        reply = send(hub, "PATCH", "/v1/customers/c00000001", body, consumer="crm")
        faults.append((reply.status, reply.reason, reply.violations()[name].partition(";")[0]))
    assert faults[0] == faults[1] == (400, "FIELD_UNKNOWN", "is not a field")


@pytest.mark.parametrize(
    ("method", "path", "kind", "status"),
    [
        ("POST", "/v1/customers", "text/xml; charset=utf-8", 200),
        ("POST", "/v1/customers", "application/xml;charset=latin1", 415),
        ("POST", "/v1/customers", "application/yaml", 415),
        ("POST", "/v1/customers:repair", XML, 415),
        ("POST", "/v1/webhooks", XML, 415),
        ("PATCH", "/v1/plans/free", XML, 415),
    ],
)
def test_xml_is_for_records_alone(
    hub: RunningHub, method: str, path: str, kind: str, status: int
) -> None:
    key = new_customer()["customerId"]
    body = f"<customer><customer_id>{key}</customer_id><name>n</name></customer>"
    reply = send(hub, method, path, body, content_type=kind)
    assert reply.status == status, reply.text
    if status == 415:
        assert reply.reason == "MEDIA_TYPE_UNSUPPORTED"
        told = "application/json or application/xml" in reply.json()["message"]
        assert told == (kind == "application/yaml")


def test_documents_are_bounded_and_have_no_entities(hub: RunningHub, unchanged: None) -> None:
    laughs = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 20))
    for body, status, reason in [
        (
            f'<!DOCTYPE c [<!ENTITY e0 "ha">{laughs}]><customer>&e19;</customer>',
            400,
            "REQUEST_MALFORMED",
        ),
        ('<!DOCTYPE c SYSTEM "file:///etc/passwd"><customer/>', 400, "REQUEST_MALFORMED"),
        ("<customer>" + "<tags>" * 200_000, 400, "REQUEST_MALFORMED"),
        (
            "<customer><tags>" + "<item/>" * 1_100_000 + "</tags></customer>",
            400,
            "REQUEST_TOO_LARGE",
        ),
        ("<customer><name>" + "x" * (17 << 20) + "</name></customer>", 413, "REQUEST_TOO_LARGE"),
    ]:
        reply = send(hub, "POST", "/v1/customers", body)
        assert (reply.status, reply.reason) == (status, reason), reply.text[:300]


def test_who_may_not_write_is_refused_before_the_body_is_read(hub: RunningHub) -> None:
    reply = send(hub, "POST", "/v1/products", "<product><nothing/></product>", consumer="crm")
    assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
