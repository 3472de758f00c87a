"""Parquet and Arrow IPC through the hub: exported, imported again, and into an empty dataset."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import Reply, RunningHub, new_customer

MEDIA = {
    "PARQUET": "application/vnd.apache.parquet",
    "ARROW": "application/vnd.apache.arrow.stream",
}
every_format = pytest.mark.parametrize("name", list(MEDIA))


def export(hub: RunningHub, dataset: str, name: str, **query: str) -> Reply:
    reply = hub.get(f"/v1/{dataset}:export", "admin", format=name, **query)
    assert reply.status == 200, reply.text
    return reply


def import_(hub: RunningHub, dataset: str, name: str, body: bytes) -> Reply:
    headers = {"content-type": MEDIA[name]}
    path = f"/v1/{dataset}:import"
    return hub.request("POST", path, consumer="admin", body=body, headers=headers)


def table(name: str, body: bytes) -> pa.Table:
    found = (
        pa.ipc.open_stream(body).read_all() if name == "ARROW" else pq.read_table(io.BytesIO(body))
    )
    found.validate(full=True)
    return found


@every_format
@pytest.mark.parametrize("dataset", ["customers", "orders", "products"])
def test_importing_an_export_changes_nothing(hub: RunningHub, dataset: str, name: str) -> None:
    reply = export(hub, dataset, name)
    assert reply.headers["content-type"] == MEDIA[name]
    rows, head = table(name, reply.body).num_rows, hub.head()
    again = import_(hub, dataset, name, reply.body)
    assert again.status == 200, again.text
    assert again.json() == {"rowCount": str(rows), "unchangedCount": str(rows)}
    assert hub.head() == head
    records = json.loads(export(hub, dataset, "JSON").body)
    assert len(records) == rows > 0


@every_format
def test_the_same_values_as_in_json(hub: RunningHub, name: str) -> None:
    found = table(name, export(hub, "customers", name).body).to_pylist()
    records = json.loads(export(hub, "customers", "JSON").body)
    assert [r["customer_id"] for r in found] == [r["customerId"] for r in records]
    for row, record in zip(found, records, strict=True):
        assert row["name"] == record["name"]
        assert row["billing_address.city"] == (record["billingAddress"] or {}).get("city")
        limit = record["creditLimit"]
        assert row["credit_limit"] == (None if limit is None else Decimal(limit))
        assert row["tags"] == record["tags"]


@every_format
def test_records_that_are_gone_come_back(hub: RunningHub, name: str) -> None:
    kept = new_customer(name="Ünï 𠮷", notes="", creditLimit="12.50", tags=["a", "ü"])
    key = kept["customerId"]
    assert hub.request("POST", "/v1/customers", consumer="admin", json_body=kept).status == 200
    query = {"filter": f'customer_id = "{key}"'}
    body = export(hub, "customers", name, **query).body
    before = json.loads(export(hub, "customers", "JSON", **query).body)[0]
    assert hub.request("DELETE", f"/v1/customers/{key}", consumer="admin").status == 200
    reply = import_(hub, "customers", name, body)
    assert reply.json() == {"rowCount": "1", "createdCount": "1"}, reply.text
    after = json.loads(export(hub, "customers", "JSON", **query).body)[0]
    own = ("createTime", "updateTime", "etag")
    assert after.pop("creditLimit") == "12.5" and before.pop("creditLimit") == "12.50"
    assert {k: v for k, v in after.items() if k not in own} == {
        k: v for k, v in before.items() if k not in own
    }


@every_format
def test_a_page_of_an_export(hub: RunningHub, name: str) -> None:
    reply = hub.get("/v1/customers:exportPage", "admin", format=name, page_size="3")
    assert reply.status == 200 and table(name, reply.body).num_rows == 3


@every_format
def test_one_changed_value_is_one_change(hub: RunningHub, name: str) -> None:
    """Negative control: a difference is written."""
    found = table(name, export(hub, "customers", name, fields="customer_id,notes").body)
    notes = [f"by {name}", *found["notes"].to_pylist()[1:]]
    changed = found.set_column(1, found.schema.field("notes"), pa.array(notes))
    sink = io.BytesIO()
    if name == "PARQUET":
        pq.write_table(changed, sink)
    else:
        with pa.ipc.new_stream(sink, changed.schema) as writer:
            writer.write_table(changed)
    reply = import_(hub, "customers", name, sink.getvalue())
    assert reply.json()["updatedCount"] == "1", reply.text


@every_format
def test_files_that_are_cut_or_none(hub: RunningHub, name: str) -> None:
    body = export(hub, "customers", name).body
    for data, reason in (
        (body[:-1], "IMPORT_TRUNCATED"),
        (b"a,b\n1,2\n" * 9, "IMPORT_FORMAT_INVALID"),
    ):
        reply = import_(hub, "customers", name, data)
        assert reply.status == 400 and reason in reply.text, reply.text


def test_workers_keep_few_stores_of_freed_memory(hub: RunningHub) -> None:
    """With one store for each thread, exports left twice the memory in use; see the supervisor."""
    for worker in hub.processes("worker"):
        assert worker.environ()["MALLOC_ARENA_MAX"] == "2"
