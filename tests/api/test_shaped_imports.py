"""Imports of files in the columns of a shape: they change only what was changed in the file."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feeds import consumer_with, credentials, grant, put
from harness import Reply, RunningHub, new_customer

COLUMNS: list[dict[str, Any]] = [
    {"name": "Town", "field": "billing_address.city"},
    {"name": "Id", "field": "customer_id"},
    {"name": "Company", "field": "name"},
    {"name": "Stage", "field": "status",
     "values": {"LEAD": "lead", "ACTIVE": "customer", "CHURNED": "lost"}},
    {"name": "Limit", "field": "credit_limit",
     "numberFormat": {"decimals": 4, "decimalSeparator": ",", "groupSeparator": "."},
     "defaultValue": "none"},
    {"name": "Tags", "field": "tags"},
    {"name": "Since", "field": "create_time", "timeFormat": "%d.%m.%Y"},
    {"name": "Label", "expression": "name + '!'", "skipOnImport": True},
    {"name": "Source", "constant": "Penstock", "skipOnImport": True},
]  # fmt: skip
FORMATS = ("CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW", "XLSX")


def send(hub: RunningHub, method: str, path: str, body: Any = None, who: str = "admin") -> Reply:
    return hub.request(method, path, json_body=body, headers=dict(credentials(hub, who)))


def load(
    hub: RunningHub, data: bytes | str, shape: str, who: str = "admin", **query: object
) -> Reply:
    body = data.encode() if isinstance(data, str) else data
    query = {"shape": shape, "format": "CSV", **query}
    headers = {"content-type": "application/octet-stream", **dict(credentials(hub, who))}
    return hub.request("POST", "/v1/customers:import", body=body, headers=headers, query=query)


@pytest.fixture
def shape(hub: RunningHub) -> Iterator[str]:
    name = f"s-{uuid.uuid4().hex[:10]}"
    body = {"shapeId": name, "dataset": "customers", "columns": COLUMNS}
    assert send(hub, "POST", "/v1/shapes", body).status == 200
    yield name
    assert send(hub, "DELETE", f"/v1/shapes/{name}").status == 200


@pytest.fixture
def mark(hub: RunningHub) -> str:
    """The beginning of the names of the test's three customers."""
    mark = f"m{uuid.uuid4().hex[:12]}"
    put(hub, "customers", *[
        new_customer(name=f"{mark} {n}", tags=["x", "ü;"][:n], taxId=f"DE{n}", status=status,
                     billingAddress={"city": "Riga" if n else "", "countryCode": "LV"},
                     creditLimit=["1234.5", "0.25", None][n])
        for n, status in enumerate(["LEAD", "ACTIVE", "CHURNED"])
    ])  # fmt: skip
    return mark


def records(hub: RunningHub, mark: str) -> dict[str, Any]:
    """The customers of the test, by key, without the fields that every write changes."""
    reply = hub.get("/v1/customers", filter=f'name = "{mark}*"').json()["customers"]
    return {
        r["customerId"]: {k: v for k, v in r.items() if k not in ("etag", "updateTime")}
        for r in reply
    }


def export(hub: RunningHub, mark: str, shape: str, format: str = "CSV") -> bytes:
    query = {"shape": shape, "format": format, "filter": f'name = "{mark}*"'}
    reply = hub.get("/v1/customers:export", **query)
    assert reply.status == 200, reply.text
    return reply.body


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_every_format_changes_nothing(
    hub: RunningHub, shape: str, mark: str, format: str
) -> None:
    before = records(hub, mark)
    reply = load(hub, export(hub, mark, shape, format), shape, format=format)
    assert reply.status == 200, reply.text
    assert (reply.json()["rowCount"], records(hub, mark)) == ("3", before)
    assert "createdCount" not in reply.json()


def test_changed_cells_and_a_new_row_arrive_and_the_rest_stays(
    hub: RunningHub, shape: str, mark: str
) -> None:
    before = records(hub, mark)
    rows = list(csv.DictReader(io.StringIO(export(hub, mark, shape).decode())))
    first = next(r for r in rows if r["Stage"] == "lead")
    key, new = first["Id"], f"c-{uuid.uuid4().hex[:12]}"
    first |= {"Stage": "customer", "Limit": "9.999,5", "Town": "Ventspils", "Label": "ignored"}
    rows.append(first | {"Id": new, "Company": f"{mark} new", "Limit": "none"})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(first), delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    reply = load(hub, file.getvalue(), shape)
    assert reply.status == 200, reply.text
    counts = {n: v for n, v in reply.json().items() if n.endswith("Count")}
    assert (counts["createdCount"], counts["updatedCount"]) == ("1", "1"), counts
    after = records(hub, mark)
    made = after.pop(new)
    changed = before[key] | {"status": "ACTIVE", "creditLimit": "9999.5"}
    changed["billingAddress"] = before[key]["billingAddress"] | {"city": "Ventspils"}
    assert after == before | {key: changed}  # the tax id, which no column has, stays
    assert (made["status"], made.get("creditLimit"), made["name"]) == (
        "ACTIVE", None, f"{mark} new"
    )  # fmt: skip


def test_bad_cells_are_named_by_column_and_nothing_is_loaded(
    hub: RunningHub, shape: str, mark: str
) -> None:
    before = records(hub, mark)
    key = next(iter(before))
    text = f"Id,Company,Stage,Limit\n{key},{mark} other,lead,1\n{key}2,{mark} x,LEAD,1\n"
    refused = load(hub, text, shape)
    assert refused.reason == "IMPORT_ROW_INVALID"
    assert (
        "none of STATUS_UNSPECIFIED, lead, customer, lost" in refused.violations()["rows[2].Stage"]
    )
    assert records(hub, mark) == before
    part = load(hub, text, shape, preview="true").json()
    columns = {c["name"]: c for c in part["columns"]}
    assert columns["Stage"]["field"] == "status" and columns["Stage"]["refusedCount"] == "1"
    unknown = load(hub, f"Id,status\n{key},LEAD\n", shape)
    assert "unknown column 'status'" in unknown.text
    lacking = load(hub, f"Company\n{mark}\n", shape)
    assert "lacks the key column 'Id'" in lacking.text
    assert records(hub, mark) == before


def test_what_cannot_be_read_back_is_refused_before_anything(
    hub: RunningHub, shape: str, mark: str
) -> None:
    columns = [COLUMNS[1], {"name": "Label", "expression": "name + '!'"},
               {"name": "Joined", "field": "tags", "join": ";"}]  # fmt: skip
    body = {"dataset": "customers", "columns": columns}
    assert send(hub, "PATCH", f"/v1/shapes/{shape}", body).status == 200
    refused = load(hub, "Id\nx\n", shape)
    assert refused.violations() == {
        "shape.columns[Label]": "cannot be read back: it is computed; set skip_on_import to leave"
        " it out",
        "shape.columns[Joined]": "cannot be read back: its elements may contain the separator; set"
        " skip_on_import to leave it out",
    }
    found = send(hub, "GET", f"/v1/shapes/{shape}").json()["columns"]
    assert [c.get("importProblem", "") for c in found] == [
        "", "it is computed", "its elements may contain the separator"
    ]  # fmt: skip
    assert load(hub, f"Id,Company\n{mark},x\n", f"{shape}@1", validate_only="true").status == 200
    assert load(hub, "Id\nx\n", "nothing").reason == "SHAPE_NOT_FOUND"


def test_rights_are_those_of_any_import(hub: RunningHub, mark: str) -> None:
    before = records(hub, mark)
    key = next(iter(before))
    columns = [{"name": "Id", "field": "customer_id"}, {"name": "Tax", "field": "tax_id"}]
    rights = {**grant("customers"), "actions": ["read", "create", "update"]}
    with consumer_with(hub, rights) as made:
        body = {"shapeId": "tax", "dataset": "customers", "columns": columns}
        assert send(hub, "POST", "/v1/shapes", body, made.key).status == 200
        file = f"Id,Tax\n{key},FORGED\n"
        ok = load(hub, file, "tax", made.key, validate_only="true")  # the negative control
        assert (ok.status, ok.json()["updatedCount"]) == (200, "1"), ok.text
        made.regrant({**rights, "fieldMasks": {"tax_id": "partial"}})
        hub.settle()
        masked = load(hub, file, "tax", made.key)
        assert masked.violations() == {"shape.columns[Tax]": "you may not write the field 'tax_id'"}
        made.regrant({**rights, "fieldMasks": {"tax_id": "hide"}})
        hub.settle()
        hidden = load(hub, file, "tax", made.key)
        assert hidden.violations() == {"columns[1].field": "unknown field 'tax_id'"}
        made.regrant(grant("customers"))
        hub.settle()
        assert load(hub, file, "tax", made.key).reason == "PERMISSION_DENIED"
    assert records(hub, mark) == before


@pytest.mark.parametrize(
    ("name", "dataset"), [("crm-contacts", "customers"), ("flat-orders", "orders")]
)
def test_the_examples_can_be_read_back(
    hub: RunningHub, tmp_path: Path, name: str, dataset: str
) -> None:
    def run(*words: str) -> str:
        done = hub.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    file = str(tmp_path / "file.csv")
    run("shapes", "create", name)
    try:
        run("export", dataset, "--shape", name, "-o", file, "--limit", "50")
        told = run("import", dataset, file, "--shape", name, "--report", "json")
        counts = json.loads(told)
        assert (counts["rows"], counts["unchanged"]) == (50, 50), counts
    finally:
        run("shapes", "delete", name)
