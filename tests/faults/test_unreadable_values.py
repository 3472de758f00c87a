"""A stored value that the model cannot express never causes an internal error: no read hides it,
and a read that cannot show it names the record."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from feeds import lines, rest
from harness import Reply, RunningHub
from penstockd.catalog import Catalog, Dataset, Field, Kind

pytestmark = pytest.mark.lane("faults/own_hub")

FORMATS = ("CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW", "XLSX")
#: By kind of field, values that a program other than the hub may have written.
BAD = {
    Kind.ENUM: ["GONE"],
    Kind.DATE: ["20000-01-01", "0044-03-15 BC", "infinity"],
    Kind.TIMESTAMP: ["20000-01-01", "-infinity"],
    Kind.LIST: ["[1]", '{"a": 1}', '[{"gone": 1}]', '[{"quantity": "x"}]', '"text"'],
    Kind.MAP: ["[1]", '{"a": 1}', '{"a": [1]}'],
}


def places(catalog: Catalog) -> Iterator[tuple[Dataset, Field, str]]:
    """For each dataset and each kind, a field and the values that it cannot express."""
    for dataset in catalog:
        first = {f.kind: f for f in reversed(dataset.fields) if not f.key}
        for kind, values in BAD.items():
            if kind in first:
                yield from ((dataset, first[kind], value) for value in values)


def reads(dataset: str, key: str) -> dict[str, str]:
    """The paths of all reads of a record."""
    return {
        "get": f"/v1/{dataset}/{key}",
        "list": f"/v1/{dataset}?page_size=50",
        "digest": f"/v1/{dataset}:digest?parts=1",
        **{f: f"/v1/{dataset}:export?format={f}" for f in FORMATS},
    }


def writes(dataset: Dataset, key: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Verb, path and body of all writes of a record; each leaves it as it is."""
    name, record = f"/v1/{dataset.name}", {camel(dataset.key.path): key}
    if "name" in dataset.by_path:
        record["name"] = "n"  # it must have one
    dry = {"query": {"validate_only": "true"}}
    line = json.dumps(record).encode()
    return {
        "update": ("PATCH", f"{name}/{key}", {"json_body": {}, **dry}),
        "upsert": (
            "POST",
            f"{name}:batchUpsert",
            {"json_body": {dataset.name: [record], "validateOnly": True}},
        ),
        "import": ("POST", f"{name}:import?format=NDJSON&validate_only=true", {"body": line}),
        "delete": ("DELETE", f"{name}/{key}?etag=1", {}),
    }


def camel(path: str) -> str:
    head, *rest = path.split("_")
    return head + "".join(word.capitalize() for word in rest)


def snapshot_end(hub: RunningHub, dataset: str) -> str:
    """The reason with which a stream ends while it sends all records; "" if it has sent them."""
    with rest(hub, f"/v1/{dataset}:watch", snapshot="true") as reply:
        for message in lines(reply):
            if "end" in message:
                return str(message["end"]["reason"])
            if "checkpoint" in message:
                return ""
    raise AssertionError("the stream ended without a last word")


def is_named(reply: Reply, dataset: str, key: str, path: str) -> bool:
    """Whether a reply names the record and the value that it could not read."""
    details = reply.json()["details"]
    (told,) = [d for d in details if d.get("reason") == "RECORD_UNREADABLE"]
    return bool(told["metadata"] == {"dataset": dataset, "key": key, "field": path})


def test_what_the_model_cannot_express_is_shown_or_named(
    own_hub: RunningHub, catalog: Catalog
) -> None:
    named = 0
    for dataset, field, value in places(catalog):
        table, column, by = f"data.{dataset.name}", f'"{field.path}"', f'"{dataset.key.path}"'
        kind = own_hub.sql(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = $1::regclass AND attname = $2",
            table,
            field.path,
        )[0][0]
        ((key, before),) = own_hub.sql(
            f"SELECT {by}, {column}::text FROM {table} ORDER BY {by} OFFSET 3 LIMIT 1"
        )
        put = f"UPDATE {table} SET {column} = $2::text::{kind} WHERE {by} = $1 RETURNING 1"
        own_hub.sql(put, key, value)
        try:
            for read, path in reads(dataset.name, key).items():
                try:
                    reply = own_hub.get(path, "admin")
                except http.client.IncompleteRead:  # a file that breaks off after its first bytes
                    assert ":export?" in path, path
                    continue
                where = f"{read} of {dataset.name}.{field.path} = {value}: {reply.status}"
                if reply.status != 200:
                    assert reply.reason == "RECORD_UNREADABLE", where
                    assert is_named(reply, dataset.name, key, field.path), where
                    named += 1
            for write, (verb, path, body) in writes(dataset, key).items():
                reply = own_hub.request(verb, path, consumer="admin", **body)
                where = f"{write} of {dataset.name}.{field.path} = {value}: {reply.text}"
                assert reply.status < 500, where
                if field.kind in (Kind.DATE, Kind.TIMESTAMP):
                    assert reply.reason == "RECORD_UNREADABLE" and f"{key} " in reply.text, where
            end = snapshot_end(own_hub, dataset.name)
            assert end in ("", "RECORD_UNREADABLE"), f"{dataset.name}.{field.path} = {value}: {end}"
            assert end or field.kind not in (Kind.DATE, Kind.TIMESTAMP)
        finally:
            own_hub.sql(put, key, before)
    assert named > 50
    # The control: after the value is restored, all of them can read the record.
    for dataset in catalog:
        ((key,),) = own_hub.sql(
            f'SELECT "{dataset.key.path}" FROM data.{dataset.name} ORDER BY 1 OFFSET 3 LIMIT 1'
        )
        for path in reads(dataset.name, key).values():
            assert own_hub.get(path, "admin").status == 200, path
        for write, (verb, path, body) in writes(dataset, key).items():
            reply = own_hub.request(verb, path, consumer="admin", **body)
            assert reply.status == 200 or reply.reason in ("ETAG_MISMATCH", "VALUE_INVALID"), write
        assert snapshot_end(own_hub, dataset.name) == ""


def test_an_export_that_breaks_off_says_why(own_hub: RunningHub) -> None:
    ((key,),) = own_hub.sql("SELECT customer_id FROM data.customers ORDER BY 1 OFFSET 3 LIMIT 1")
    put = "UPDATE data.customers SET birth_date = $2::text::date WHERE customer_id = $1 RETURNING 1"
    own_hub.sql(put, key, "20000-01-01")
    try:
        assert own_hub.get("/v1/customers:export?format=CSV", "admin").status == 400
        ended = "SELECT state, reason FROM hub.receipt ORDER BY start_time DESC LIMIT 1"
        assert own_hub.sql(ended) == [("FAILED", "RECORD_UNREADABLE")]
        # The control: a reply without the field is complete.
        assert own_hub.get("/v1/customers:export?format=CSV&fields=name", "admin").status == 200
        assert own_hub.sql(ended) == [("COMPLETE", "")]
    finally:
        own_hub.sql(put, key, None)
