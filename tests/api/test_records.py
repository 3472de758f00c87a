"""Records through Envoy by plain HTTP: get, list, create, update, delete, batch."""

from __future__ import annotations

import uuid
from typing import Any

from harness import RunningHub


def fresh(**values: Any) -> dict[str, Any]:
    """A new customer's record."""
    return {"customerId": f"t-{uuid.uuid4().hex[:12]}", "name": "Test", **values}


def test_a_record_is_created_read_changed_and_deleted(hub: RunningHub) -> None:
    record = fresh(email="a@example.com", creditLimit="12.50", billingAddress={"city": "Köln"})
    path = f"/v1/customers/{record['customerId']}"
    created = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert created.status == 200, created.text
    assert created.json()["creditLimit"] == "12.50"
    assert hub.get(path).json() == created.json()
    changed = hub.request(
        "PATCH", path, consumer="admin", json_body={"name": "New", "etag": created.json()["etag"]}
    )
    assert changed.status == 200, changed.text
    assert changed.json()["name"] == "New"
    assert changed.json()["email"] == "a@example.com"
    assert changed.json()["etag"] != created.json()["etag"]
    deleted = hub.request("DELETE", path, consumer="admin")
    assert (deleted.status, deleted.json()) == (200, {})
    gone = hub.get(path)
    assert (gone.status, gone.reason) == (404, "RECORD_NOT_FOUND")
