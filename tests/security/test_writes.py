"""Callers without permission cannot write, and a writer cannot change what it cannot see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness import Reply, RunningHub, new_customer

from .marked import RECORDS, key_field
from .test_hidden_values import upload

pytestmark = pytest.mark.lane("security/marked")


def writes(dataset: str) -> list[tuple[str, str, Any]]:
    """A call of each writing method, on a record that exists and on one that does not."""
    record = RECORDS[dataset][0]
    key = key_field(dataset)
    new = {**record, key: "mk-written"}
    path = f"/v1/{dataset}"
    return [
        ("POST", path, new),
        ("PATCH", f"{path}/{record[key]}", {"source": "written"}),
        ("PATCH", f"{path}/absent", {"source": "written"}),
        ("PATCH", f"{path}/{record[key]}?update_mask=nothing", {}),
        ("DELETE", f"{path}/{record[key]}", None),
        ("DELETE", f"{path}/absent", None),
        ("POST", f"{path}:batchUpsert", {dataset: [new]}),
        ("POST", f"{path}:import?format=NDJSON", new),
        ("POST", f"{path}:import?format=NOTHING", new),
    ]


def refuse_all(hub: RunningHub, consumer: str, dataset: str) -> None:
    head = hub.head()
    before = hub.sql(f"SELECT * FROM data.{dataset} ORDER BY 1")
    for method, path, body in writes(dataset):
        reply = hub.request(method, path, consumer=consumer, json_body=body)
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED"), f"{method} {path}"
        assert reply.json()["code"] == 7
    assert hub.head() == head
    assert hub.sql(f"SELECT * FROM data.{dataset} ORDER BY 1") == before


@pytest.mark.parametrize("dataset", list(RECORDS))
def test_bi_writes_nothing(marked_hub: RunningHub, dataset: str) -> None:
    refuse_all(marked_hub, "bi", dataset)


def test_crm_has_no_products(marked_hub: RunningHub) -> None:
    refuse_all(marked_hub, "crm", "products")
    for path in ("", "/mk-product", "/absent", ":export", ":exportPage", "?filter=nothing"):
        reply = marked_hub.get(f"/v1/products{path}", "crm")
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
        assert reply.json()["message"] == "you may not read products"


def test_the_same_calls_write_for_who_may(marked_hub: RunningHub) -> None:
    """Negative control: the calls refused above succeed for a caller that may write."""
    for method, path, body in writes("interactions"):
        if "absent" in path or "othing" in path.lower() or method == "DELETE":
            continue
        reply = marked_hub.request(method, path, consumer="crm", json_body=body)
        assert reply.status == 200, f"{method} {path}: {reply.text}"
    path = "/v1/interactions/mk-written"
    assert marked_hub.request("DELETE", path, consumer="crm").status == 200


SECRETS = {"taxId": "SECRET-1", "creditLimit": "777.7700"}


def by_patch(hub: RunningHub, record: dict[str, Any]) -> Reply:
    path = f"/v1/customers/{record['customerId']}"
    return hub.request("PATCH", path, consumer="crm", json_body={"name": "Changed"})


def by_whole_mask(hub: RunningHub, record: dict[str, Any]) -> Reply:
    path = f"/v1/customers/{record['customerId']}?update_mask=*"
    return hub.request("PATCH", path, consumer="crm", json_body={"name": "Changed"})


def by_batch(hub: RunningHub, record: dict[str, Any]) -> Reply:
    body = {"customers": [{**record, "name": "Changed"}]}
    return hub.request("POST", "/v1/customers:batchUpsert", consumer="crm", json_body=body)


def by_csv(hub: RunningHub, record: dict[str, Any]) -> Reply:
    return upload(hub, "CSV", f"customer_id,name\n{record['customerId']},Changed\n")


def by_ndjson(hub: RunningHub, record: dict[str, Any]) -> Reply:
    return upload(hub, "NDJSON", json.dumps({**record, "name": "Changed"}))


def by_json(hub: RunningHub, record: dict[str, Any]) -> Reply:
    return upload(hub, "JSON", json.dumps([{**record, "name": "Changed"}]))


@pytest.mark.parametrize("way", [by_patch, by_whole_mask, by_batch, by_csv, by_ndjson, by_json])
def test_crm_keeps_what_it_cannot_see(marked_hub: RunningHub, way: Any) -> None:
    record = new_customer()
    created = marked_hub.request(
        "POST", "/v1/customers", consumer="admin", json_body={**record, **SECRETS}
    )
    assert created.status == 200, created.text
    changed = way(marked_hub, record)
    assert changed.status == 200, changed.text
    assert "SECRET" not in changed.text and "777.77" not in changed.text
    path = f"/v1/customers/{record['customerId']}"
    now = marked_hub.get(path).json()
    assert now["name"] == "Changed"
    assert SECRETS.items() <= now.items()
    if way is by_whole_mask:  # negative control: a caller that sees them clears them in this way
        marked_hub.request(
            "PATCH", path + "?update_mask=*", consumer="admin", json_body={"name": "N"}
        )
        assert {marked_hub.get(path).json()[name] for name in SECRETS} == {None}


def test_what_crm_creates_has_none_of_what_it_cannot_see(marked_hub: RunningHub) -> None:
    record = new_customer()
    created = marked_hub.request("POST", "/v1/customers", consumer="crm", json_body=record)
    assert created.status == 200
    now = marked_hub.get(f"/v1/customers/{record['customerId']}").json()
    assert {now[name] for name in SECRETS} == {None}
