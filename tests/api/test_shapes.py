"""Shapes: saved, in versions, and in the files that receivers get."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest

from harness import Reply, RunningHub, new_customer

CONTACTS: dict[str, Any] = {
    "shapeId": "crm-contacts",
    "dataset": "customers",
    "title": "Contacts for a CRM",
    "columns": [
        {"name": "Company name", "field": "name"},
        {"name": "City", "field": "billing_address.city", "defaultValue": "unknown"},
        {"name": "Lifecycle", "field": "status", "values": {"ACTIVE": "customer"},
         "otherwise": "lead"},
        {"name": "Tags", "field": "tags", "join": ";"},
        {"name": "Limit", "field": "credit_limit",
         "numberFormat": {"decimals": 2, "decimalSeparator": ",", "groupSeparator": "."}},
        {"name": "Since", "field": "create_time", "timeFormat": "%d.%m.%Y"},
        {"name": "Source", "constant": "Penstock"},
        {"name": "Label", "expression": "name + ' (' + status + ')'"},
        {"name": "Rich", "expression": "credit_limit > 1000.0"},
    ],
}  # fmt: skip


def send(hub: RunningHub, method: str, path: str, body: Any = None, who: str = "admin") -> Reply:
    return hub.request(method, path, consumer=who, json_body=body)


def read(hub: RunningHub, path: str) -> dict[str, Any]:
    """A shape as it was saved, without ``import_problem``."""
    found: dict[str, Any] = send(hub, "GET", path).json()
    for column in found["columns"]:
        column.pop("importProblem", None)
    return found


@pytest.fixture
def contacts(hub: RunningHub) -> Iterator[dict[str, Any]]:
    """The shape, saved for the administrator."""
    reply = send(hub, "POST", "/v1/shapes", CONTACTS)
    assert reply.status == 200, reply.text
    yield reply.json()
    assert send(hub, "DELETE", "/v1/shapes/crm-contacts").status == 200


@pytest.fixture
def customer(hub: RunningHub) -> Iterator[dict[str, Any]]:
    values = new_customer(
        name='A, "B"', status="ACTIVE", tags=["x", "ü"], creditLimit="1234567.125"
    )
    reply = send(hub, "POST", "/v1/customers", values)
    assert reply.status == 200, reply.text
    yield reply.json()
    assert send(hub, "DELETE", f"/v1/customers/{values['customerId']}").status == 200


def only(customer: dict[str, Any]) -> dict[str, str]:
    return {"filter": f'customer_id = "{customer["customerId"]}"'}


def expected(customer: dict[str, Any]) -> list[Any]:
    year, month, day = customer["createTime"][:10].split("-")
    return [
        'A, "B"', "unknown", "customer", "x;ü", "1.234.567,13", f"{day}.{month}.{year}", "Penstock",
        f'A, "B" ({customer["status"]})', True,
    ]  # fmt: skip


def test_every_format_has_the_columns(
    hub: RunningHub, contacts: dict[str, Any], customer: dict[str, Any]
) -> None:
    names = [column["name"] for column in CONTACTS["columns"]]
    values = expected(customer)
    for path in ("/v1/customers:export", "/v1/customers:exportPage"):
        query = {"shape": "crm-contacts", **only(customer)}
        rows = list(csv.reader(io.StringIO(hub.get(path, format="CSV", **query).text)))
        assert rows == [names, [*values[:-1], "true"]]
        record = json.loads(hub.get(path, format="JSON", **query).body)
        assert record == [dict(zip(names, values, strict=True))]
        assert list(record[0]) == names
        table = pq.read_table(io.BytesIO(hub.get(path, format="PARQUET", **query).body))
        assert table.to_pylist() == record
        sheet = openpyxl.load_workbook(io.BytesIO(hub.get(path, format="XLSX", **query).body))
        assert [[c.value for c in row] for row in sheet.active] == [names, values]
        refused = hub.get(path, format="XML", **query)
        assert (refused.status, refused.reason) == (400, "VALUE_INVALID")
        assert "Company name" in refused.violations()["shape"]


def test_a_new_version_leaves_the_earlier_ones(
    hub: RunningHub, contacts: dict[str, Any], customer: dict[str, Any]
) -> None:
    columns = [CONTACTS["columns"][1], CONTACTS["columns"][0] | {"values": {"x": "y"}}]
    columns.append({"name": "Id", "field": "customerId"})
    changed = {"dataset": "customers", "columns": columns}
    reply = send(hub, "PATCH", "/v1/shapes/crm-contacts", changed)
    assert (reply.status, reply.json()["version"]) == (200, 2), reply.text
    assert read(hub, "/v1/shapes/crm-contacts")["columns"] == columns
    assert read(hub, "/v1/shapes/crm-contacts?version=1") == contacts
    assert send(hub, "GET", "/v1/shapes").json()["shapes"] == [reply.json()]
    differences = send(hub, "GET", "/v1/shapes/crm-contacts:compare").json()["differences"]
    assert [(d["name"], d.get("fromPosition"), d.get("toPosition")) for d in differences] == [
        ("City", 2, 1),
        ("Company name", 1, 2),
        ("Id", None, 3),
        *((c["name"], at, None) for at, c in enumerate(CONTACTS["columns"][2:], 3)),
    ]
    assert "before" not in differences[2] and "after" not in differences[-1]
    texts = [
        hub.get("/v1/customers:export", format="CSV", shape=shape, **only(customer)).text
        for shape in ("crm-contacts", "crm-contacts@2", "crm-contacts@1")
    ]
    assert (
        texts[0]
        == texts[1]
        == f'City,Company name,Id\nunknown,"A, ""B""",{customer["customerId"]}\n'
    )
    assert texts[2].startswith("Company name,City,Lifecycle")
    for shape, code in (("crm-contacts@3", 404), ("nothing", 404), ("crm-contacts@x", 400)):
        assert hub.get("/v1/customers:export", format="CSV", shape=shape).status == code
    other = hub.get("/v1/orders:export", format="CSV", shape="crm-contacts")
    assert other.violations() == {"shape": "belongs to the dataset customers"}
    both = hub.get("/v1/customers:export", format="CSV", shape="crm-contacts", fields="name")
    assert "fields" in both.violations()


def test_pages_of_a_shape_continue_with_the_same_columns(
    hub: RunningHub, contacts: dict[str, Any]
) -> None:
    query = {"format": "CSV", "shape": "crm-contacts", "order_by": "name desc"}
    whole = hub.get("/v1/customers:export", **query, limit=20)
    lines, token = [], ""
    for _ in range(3):
        page = hub.get("/v1/customers:exportPage", **query, page_size=7, page_token=token)
        token = page.headers["penstock-next-page-token"]
        lines += page.text.splitlines(keepends=True)[1:]
    assert lines[:20] == whole.text.splitlines(keepends=True)[1:]
    changed = {"dataset": "customers", "columns": contacts["columns"][:1]}
    assert send(hub, "PATCH", "/v1/shapes/crm-contacts", changed).status == 200
    page = hub.get("/v1/customers:exportPage", **query, page_size=7, page_token=token)
    assert (page.status, page.reason) == (400, "PAGE_TOKEN_INVALID")


def test_a_preview_saves_nothing(hub: RunningHub, customer: dict[str, Any]) -> None:
    before = send(hub, "GET", "/v1/shapes").json()
    draft = {k: v for k, v in CONTACTS.items() if k != "shapeId"}
    asked = {"shape": draft, **only(customer)}
    reply = send(hub, "POST", "/v1/shapes:preview", asked)
    names = [column["name"] for column in CONTACTS["columns"]]
    assert reply.json() == [dict(zip(names, expected(customer), strict=True))]
    few = send(hub, "POST", "/v1/shapes:preview", {"shape": draft, "pageSize": 3, "format": "csv"})
    assert len(few.text.splitlines()) == 4
    assert send(hub, "GET", "/v1/shapes").json() == before


def test_a_shape_shows_no_more_than_its_user_sees(
    hub: RunningHub, customer: dict[str, Any]
) -> None:
    """bi sees no tax id, no credit limit (null) and a part of the e-mail address."""
    columns = [
        {"name": "Name", "field": "name"},
        {"name": "Mail", "expression": "email == null ? '' : email + '!'"},
        {"name": "Limit", "expression": "credit_limit == null"},
    ]
    shape = {"shapeId": "bi-shape", "dataset": "customers", "columns": columns}
    hidden = [{"name": "Tax", "field": "tax_id"}, {"name": "Half", "expression": "tax_id + 'x'"}]
    unknown = [{"name": "Tax", "field": "nothing"}, {"name": "Half", "expression": "nothing + 'x'"}]
    first, second = (
        send(hub, "POST", "/v1/shapes", {**shape, "columns": [*columns, *more]}, "bi").violations()
        for more in (hidden, unknown)
    )
    # A hidden field reads like one that does not exist.
    assert list(first) == ["columns[3].field", "columns[4].expression"]
    assert str(first).replace("tax_id", "nothing") == str(second)
    key = customer["customerId"]
    mail = {"customer": {"email": "ann@example.com"}, "updateMask": "email"}
    path = f"/v1/customers/{key}?update_mask=email"
    assert send(hub, "PATCH", path, mail["customer"]).status == 200
    assert send(hub, "POST", "/v1/shapes", shape, "bi").status == 200
    try:
        query = {"shape": "bi-shape", "format": "NDJSON", **only(customer)}
        got = hub.get("/v1/customers:export", "bi", **query)
        assert json.loads(got.body) == {
            "Name": customer["name"], "Mail": "a***@example.com!", "Limit": True
        }  # fmt: skip
        # For others it does not exist, and other rows stay hidden.
        assert hub.get("/v1/customers:export", "admin", **query).reason == "SHAPE_NOT_FOUND"
        assert send(hub, "GET", "/v1/shapes/bi-shape").reason == "SHAPE_NOT_FOUND"
        lead = {"filter": 'status = "LEAD"'}
        assert hub.get("/v1/customers:export", "bi", **{**query, **lead}).text == ""
    finally:
        assert send(hub, "DELETE", "/v1/shapes/bi-shape", who="bi").status == 200


@pytest.mark.parametrize(
    ("column", "member", "reason"),
    [
        ({"name": "", "field": "name"}, "name", "1 to 100 characters"),
        ({"name": "a.b", "field": "name"}, "name", "cannot contain a dot"),
        ({"name": "=a", "field": "name"}, "name", "cannot begin with"),
        ({"name": "a\nb", "field": "name"}, "name", "all of them visible"),
        ({"name": "a\u202eb", "field": "name"}, "name", "all of them visible"),
        ({"name": "x; =1+1", "field": "name"}, "name", "cannot begin with"),
        ({"name": "\uff1d1+1", "field": "name"}, "name", "cannot begin with"),
        ({"name": " a", "field": "name"}, "name", "begin or end with a blank"),
        ({"name": "NAME", "field": "name"}, "name", "the name of two columns"),
        ({"name": "a", "constant": "\uffff"}, "constant", "no value can hold"),
        ({"name": "a", "field": "tags", "join": "x" * 101}, "join", "100 characters"),
        ({"name": "a"}, "field", "write one of field, constant, expression and row_number"),
        ({"name": "a", "field": "nope"}, "field", "unknown field 'nope'"),
        ({"name": "a", "field": "billing_address"}, "field", "write one column for each"),
        ({"name": "a", "field": "name", "join": ","}, "join", "is for lists"),
        ({"name": "a", "field": "create_time", "values": {"a": "b"}}, "values", "is for texts"),
        ({"name": "a", "field": "name", "otherwise": "b"}, "otherwise", "goes with values"),
        ({"name": "a", "field": "name", "numberFormat": {}}, "number", "is for numbers"),
        ({"name": "a", "field": "credit_limit", "numberFormat": {"decimals": 21}},
         "number.decimals", "0 to 20"),
        ({"name": "a", "field": "name", "timeFormat": "%Y"}, "time", "dates and times"),
        ({"name": "a", "field": "create_time", "timeFormat": "%A"}, "time", "'%A'"),
        ({"name": "a", "field": "credit_limit", "defaultValue": "x"}, "default", "'x'"),
        ({"name": "a", "expression": "name +"}, "expression", "Syntax error"),
        ({"name": "a", "constant": "x", "defaultValue": "y"}, "constant", "other steps"),
    ],
)  # fmt: skip
def test_refusals_name_the_column(
    hub: RunningHub, column: dict[str, Any], member: str, reason: str
) -> None:
    good = {"name": "Name", "field": "name"}
    shape = {"shapeId": "bad", "dataset": "customers", "columns": [good, column]}
    reply = send(hub, "POST", "/v1/shapes", shape)
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
    assert reason in reply.violations()[f"columns[1].{member}"]
    assert send(hub, "GET", "/v1/shapes/bad").status == 404


def test_names_and_numbers_are_bounded(hub: RunningHub, contacts: dict[str, Any]) -> None:
    again = send(hub, "POST", "/v1/shapes", CONTACTS)
    assert (again.status, again.reason) == (409, "SHAPE_EXISTS")
    bad = send(hub, "POST", "/v1/shapes", {**CONTACTS, "shapeId": "Bad Name"})
    assert "shapeId" in bad.violations()
    elsewhere = send(hub, "POST", "/v1/shapes", {**CONTACTS, "dataset": "nothing"})
    assert elsewhere.reason == "PERMISSION_DENIED"
    two = [{"name": "A", "field": "name"}, {"name": "A", "field": "status"}]
    twice = send(hub, "POST", "/v1/shapes", {**CONTACTS, "shapeId": "b", "columns": two})
    assert "the name of two columns" in twice.violations()["columns[1].name"]
    moved = {**CONTACTS, "dataset": "orders", "columns": [{"name": "a", "field": "order_id"}]}
    changed = send(hub, "PATCH", "/v1/shapes/crm-contacts", moved)
    assert changed.violations() == {"dataset": "cannot change"}
    many = [{"name": f"c{n}", "field": "name"} for n in range(201)]
    wide = send(hub, "POST", "/v1/shapes", {**CONTACTS, "shapeId": "b", "columns": many})
    assert "200" in wide.violations()["columns"]


def test_the_entry_names_the_shape_and_what_it_showed(
    hub: RunningHub, contacts: dict[str, Any], customer: dict[str, Any]
) -> None:
    reply = hub.get("/v1/customers:export", format="CSV", shape="crm-contacts", **only(customer))
    assert reply.status == 200
    found = hub.sql(
        "SELECT query::jsonb->>'shape', query::jsonb->>'shape_sha256', shown FROM hub.audit_entry"
        " WHERE request_id = $1 AND phase = 'CALL'",
        reply.request_id,
    )
    assert [(row[0], len(row[1])) for row in found] == [("crm-contacts@1", 64)]
    (shown,) = hub.sql("SELECT content FROM hub.audit_shown WHERE digest = $1", found[0][2])
    assert "tax_id" not in str(shown) and "credit_limit" in str(shown)


@pytest.mark.parametrize(
    ("name", "dataset"), [("crm-contacts", "customers"), ("flat-orders", "orders")]
)
def test_the_examples_on_the_command_line(hub: RunningHub, name: str, dataset: str) -> None:
    def run(*words: str) -> str:
        done = hub.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    shown = run("shapes", "preview", name, "--rows", "3", "--format", "json")
    assert len(json.loads(shown)) == 3
    assert run("shapes", "create", name).split() == [f"{name}:", "version", "1"]
    try:
        shape = json.loads(run("shapes", "get", name))
        names = [column["name"] for column in shape["columns"]]
        rows = list(csv.reader(io.StringIO(run("export", dataset, "--shape", name))))
        assert rows[0] == names and len(rows) > 3
        records = [dict(zip(names, row, strict=True)) for row in rows[1:4]]
        whole = [{k: "" if v is None else v for k, v in r.items()} for r in json.loads(shown)]
        assert [r[names[0]] for r in records] == [r[names[0]] for r in whole]
        assert name in run("shapes", "list")
        assert run("shapes", "update", name).split() == [f"{name}:", "version", "1"]  # the same
        assert json.loads(run("shapes", "diff", name, "--format", "json")) == []
    finally:
        run("shapes", "delete", name)
