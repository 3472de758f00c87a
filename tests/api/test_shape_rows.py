"""Shapes whose rows are the elements of a list: in files and pages, and where they are refused."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Iterator
from typing import Any

import openpyxl
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from feeds import consumer_with, credentials, grant
from harness import Reply, RunningHub

COLUMNS: list[dict[str, Any]] = [
    {"name": "order", "field": "order_id"},
    {"name": "n", "rowNumber": True},
    {"name": "product", "field": "lines.product_id"},
    {"name": "units", "field": "lines.quantity"},
    {"name": "price", "field": "lines.unitPrice",
     "numberFormat": {"decimals": 2, "decimalSeparator": ","}},
    {"name": "saved", "field": "lines.discount", "defaultValue": "0"},
    {"name": "label", "expression": "order_id + '/' + lines.product_id"},
]  # fmt: skip
NAMES = [column["name"] for column in COLUMNS]
FORMATS = ("CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW", "XLSX")


def send(hub: RunningHub, method: str, path: str, body: Any = None, who: str = "admin") -> Reply:
    return hub.request(method, path, json_body=body, headers=dict(credentials(hub, who)))


def line(product: str, units: int, price: str, **more: str) -> dict[str, Any]:
    return {"productId": product, "quantity": units, "unitPrice": price, **more}


@pytest.fixture(scope="module")
def orders(hub: RunningHub) -> Iterator[list[str]]:
    """Keys of three orders: with two lines, with none, with one."""
    prefix = f"rows-{uuid.uuid4().hex[:8]}-"
    lines = [[line("p1", 2, "1.25", discount="0.1"), line("p2", 3, "10")], [], [line("p3", 1, "0")]]
    keys = [f"{prefix}{n}" for n in range(3)]
    for key, held in zip(keys, lines, strict=True):
        body = {"orderId": key, "customerId": "c1", "lines": held}
        reply = send(hub, "POST", "/v1/orders", body)
        assert reply.status == 200, reply.text
    yield keys
    for key in keys:
        assert send(hub, "DELETE", f"/v1/orders/{key}").status == 200


@pytest.fixture(scope="module")
def shapes(hub: RunningHub) -> Iterator[tuple[str, str]]:
    """Two saved shapes: that keeps orders without lines, and that leaves them out."""
    made = []
    for skip in (False, True):
        name = f"lines-{uuid.uuid4().hex[:8]}"
        rows = {"field": "lines", "skipEmpty": skip}
        body = {"shapeId": name, "dataset": "orders", "columns": COLUMNS, "rows": rows}
        reply = send(hub, "POST", "/v1/shapes", body)
        assert reply.status == 200, reply.text
        made.append(name)
    yield made[0], made[1]
    for name in made:
        assert send(hub, "DELETE", f"/v1/shapes/{name}").status == 200


def expected(keys: list[str]) -> list[dict[str, Any]]:
    rows = [
        (keys[0], 1, "p1", 2, "1,25", "0.1", f"{keys[0]}/p1"),
        (keys[0], 2, "p2", 3, "10,00", "0", f"{keys[0]}/p2"),
        (keys[1], None, None, None, None, "0", None),
        (keys[2], 1, "p3", 1, "0,00", "0", f"{keys[2]}/p3"),
    ]
    return [dict(zip(NAMES, row, strict=True)) for row in rows]


def only(keys: list[str]) -> dict[str, str]:
    return {"filter": f'order_id = "{keys[0][:-1]}*"'}


def read_file(form: str, body: bytes) -> list[dict[str, Any]]:
    """The rows of a file, as texts and None."""
    match form:
        case "JSON":
            rows = json.loads(body)
        case "NDJSON":
            rows = [json.loads(part) for part in body.splitlines()]
        case "PARQUET":
            rows = pq.read_table(io.BytesIO(body)).to_pylist()
        case "ARROW":
            rows = pyarrow.ipc.open_stream(body).read_all().to_pylist()
        case "XLSX":
            head, *cells = openpyxl.load_workbook(io.BytesIO(body)).active.values
            rows = [dict(zip(map(str, head), row, strict=True)) for row in cells]
        case "CSV":
            rows = list(csv.DictReader(io.StringIO(body.decode())))
        case "XML":
            from xml.etree import ElementTree

            rows = [
                {name: row.findtext(name) for name in NAMES} for row in ElementTree.fromstring(body)
            ]
    return [{k: comparable(k, v) for k, v in row.items()} for row in rows]


def comparable(name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    return f"{float(value):g}" if name == "saved" else str(value)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("path", ["export", "exportPage"])
def test_every_format_has_a_row_for_each_line(
    hub: RunningHub, orders: list[str], shapes: tuple[str, str], form: str, path: str
) -> None:
    want = [{k: comparable(k, v) for k, v in row.items()} for row in expected(orders)]
    whole, full = (
        hub.get(f"/v1/orders:{path}", format=form, shape=shape, **only(orders)) for shape in shapes
    )
    assert read_file(form, whole.body) == want
    assert read_file(form, full.body) == [row for row in want if row["n"]]


def test_the_receipt_counts_rows_and_records(
    hub: RunningHub, orders: list[str], shapes: tuple[str, str]
) -> None:
    for shape, counts in zip(shapes, ((4, 3), (3, 2)), strict=True):
        query = {"format": "CSV", "shape": shape, **only(orders)}
        reply = hub.get("/v1/orders:export", **query)
        receipt = hub.get(f"/v1/receipts/{reply.headers['penstock-receipt']}").json()
        assert (int(receipt["rowCount"]), int(receipt["recordCount"])) == counts
        page = hub.get("/v1/orders:exportPage", **query)
        told = (page.headers["penstock-receipt-rows"], page.headers["penstock-receipt-records"])
        assert told == tuple(map(str, counts))
        for request, phase in ((reply.request_id, "END"), (page.request_id, "CALL")):
            (found,) = hub.sql(
                "SELECT row_count FROM hub.audit_entry WHERE request_id = $1 AND phase = $2",
                request,
                phase,
            )
            assert found[0] == counts[1]


def test_pages_and_limits_count_records(
    hub: RunningHub, orders: list[str], shapes: tuple[str, str]
) -> None:
    query = {"format": "CSV", "shape": shapes[0], **only(orders)}
    pages, token = [], ""
    while True:
        page = hub.get("/v1/orders:exportPage", **query, page_size=1, page_token=token)
        pages.append([row["order"] for row in csv.DictReader(io.StringIO(page.text))])
        token = page.headers.get("penstock-next-page-token", "")
        if not token:
            break
    assert pages == [[orders[0]] * 2, [orders[1]], [orders[2]]]
    descending = hub.get("/v1/orders:export", **query, order_by="order_id desc", limit=2)
    rows = list(csv.DictReader(io.StringIO(descending.text)))
    assert [row["order"] for row in rows] == [orders[2], orders[1]]
    last = hub.get("/v1/orders:export", **query, order_by="order_id desc", limit=3)
    numbers = [row["n"] for row in csv.DictReader(io.StringIO(last.text))]
    assert numbers == ["1", "", "1", "2"]


def masked(path: str, mask: str) -> Any:
    """A grant to read orders with one field masked."""
    found = grant("orders")
    return {**found, "fieldMasks": {path: mask}}


def test_a_member_is_hidden_or_masked_as_elsewhere(hub: RunningHub, orders: list[str]) -> None:
    columns = [{"name": "product", "field": "lines.product_id"}]
    shape = {"dataset": "orders", "columns": columns, "rows": {"field": "lines"}}
    asked = {"shape": shape, "filter": f'order_id = "{orders[0]}"'}
    hidden = masked("lines.product_id", "hide")
    with consumer_with(hub, hidden) as made:
        refused = send(hub, "POST", "/v1/shapes:preview", asked, made.key)
    unknown = json.loads(json.dumps(asked).replace("product_id", "nothing"))
    control = send(hub, "POST", "/v1/shapes:preview", unknown)
    assert refused.status == control.status == 400
    assert str(refused.violations()).replace("product_id", "nothing") == str(control.violations())
    hashed = masked("lines.product_id", "hash")
    with consumer_with(hub, hashed) as made:
        shown = send(hub, "POST", "/v1/shapes:preview", asked, made.key).json()
        plain = send(hub, "GET", f"/v1/orders/{orders[0]}", who=made.key).json()["lines"]
    assert [row["product"] for row in shown] == [held["productId"] for held in plain]
    assert all(len(row["product"]) == 64 for row in shown)
    whole = send(hub, "POST", "/v1/shapes:preview", asked).json()
    assert [row["product"] for row in whole] == ["p1", "p2"]  # the control
    with consumer_with(hub, masked("lines", "null")) as made:
        assert send(hub, "POST", "/v1/shapes:preview", asked, made.key).json() == [
            {"product": None}
        ]


def test_feeds_webhooks_and_imports_refuse_it_by_name(
    hub: RunningHub, shapes: tuple[str, str]
) -> None:
    name = shapes[0]
    webhook = {
        "url": "http://127.0.0.1:9/x",
        "selections": [{"dataset": "orders", "shape": name}],
    }
    subscription = {"subscriptionId": "rows", "datasets": ["orders"], "shapes": [name]}
    refused = [
        hub.get("/v1/orders:changes", shape=name),
        hub.get("/v1/orders:watch", shape=name),
        send(hub, "POST", "/v1/webhooks", webhook),
        send(hub, "POST", "/v1/subscriptions", {"subscription": subscription}),
    ]
    for reply in refused:
        assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
        assert f"'{name}@1' makes a row of each element of 'lines'" in reply.text
    headers = {"content-type": "text/csv", **dict(credentials(hub, "admin"))}
    query = {"shape": name, "format": "CSV"}
    body = (",".join(NAMES) + "\n").encode()
    loaded = hub.request("POST", "/v1/orders:import", body=body, headers=headers, query=query)
    assert loaded.status == 400 and "writes whole records" in loaded.violations()["shape.rows"]


def test_a_preview_says_what_imports_refuse(hub: RunningHub, orders: list[str]) -> None:
    shape = {"dataset": "orders", "columns": COLUMNS[:1], "rows": {"field": "lines"}}

    def problems(**changed: Any) -> dict[str, str]:
        reply = send(hub, "POST", "/v1/shapes:preview", {"shape": {**shape, **changed}})
        assert reply.status == 200, reply.text
        found: dict[str, str] = json.loads(reply.headers["penstock-import-problems"])
        return found

    assert problems() == {"order": "a row is an element of 'lines'"}
    assert problems(rows=None) == {}
    other = [{"name": "Ü", "expression": "order_id + 'x'"}]
    assert problems(rows=None, columns=[*COLUMNS[:1], *other]) == {"Ü": "it is computed"}
    skipped = [{**other[0], "skipOnImport": True}]
    assert "lacks a column for the key 'order_id'" in problems(rows=None, columns=skipped)[""]


@pytest.mark.parametrize(
    ("column", "member", "reason"),
    [
        ({"name": "a", "field": "lines"}, "field", "write one column for each"),
        ({"name": "a", "field": "lines.nothing"}, "field", "unknown field 'lines.nothing'"),
        ({"name": "a", "rowNumber": True, "field": "order_id"}, "", ""),
    ],
)
def test_refusals_name_the_column(
    hub: RunningHub, column: dict[str, Any], member: str, reason: str
) -> None:
    shape = {"dataset": "orders", "columns": [column], "rows": {"field": "lines"}}
    reply = send(hub, "POST", "/v1/shapes:preview", {"shape": shape})
    assert reply.status == 400, reply.text
    if member:
        assert reason in reply.violations()[f"columns[0].{member}"]
    if "rowNumber" in column:
        return
    number = {"dataset": "orders", "columns": [{"name": "a", "rowNumber": True}]}
    alone = send(hub, "POST", "/v1/shapes:preview", {"shape": number})
    assert "rows are elements" in alone.violations()["columns[0].rowNumber"]


def test_the_rows_of_a_record_that_are_too_large_for_a_page_are_refused(hub: RunningHub) -> None:
    key = f"wide-{uuid.uuid4().hex[:8]}"
    lines = [line(f"p{n}", n, "1") for n in range(9000)]
    body = {"orderId": key, "customerId": "c1", "lines": lines}
    assert send(hub, "POST", "/v1/orders", body).status == 200
    wide = [{"name": f"c{n}", "constant": "x" * 200} for n in range(10)]
    shape = {"dataset": "orders", "columns": [COLUMNS[0], *wide], "rows": {"field": "lines"}}
    asked = {"shape": shape, "filter": f'order_id = "{key}"'}
    try:
        reply = send(hub, "POST", "/v1/shapes:preview", asked)
        assert f"the rows of the record '{key}' take more than the " in reply.text
        few = {**asked, "shape": {**shape, "columns": COLUMNS[:2]}}
        assert len(send(hub, "POST", "/v1/shapes:preview", few).json()) == 9000  # the control
        name = f"wide-{uuid.uuid4().hex[:8]}"
        assert send(hub, "POST", "/v1/shapes", {**shape, "shapeId": name}).status == 200
        try:
            whole = hub.get("/v1/orders:export", format="CSV", shape=name, filter=asked["filter"])
            assert len(whole.text.splitlines()) == 9001
        finally:
            send(hub, "DELETE", f"/v1/shapes/{name}")
    finally:
        assert send(hub, "DELETE", f"/v1/orders/{key}").status == 200


def test_versions_differ_by_their_rows(hub: RunningHub) -> None:
    name = f"rows-{uuid.uuid4().hex[:8]}"
    body = {"shapeId": name, "dataset": "orders", "columns": COLUMNS[:1]}
    assert send(hub, "POST", "/v1/shapes", body).status == 200
    try:
        rows = {"field": "lines"}
        assert send(hub, "PATCH", f"/v1/shapes/{name}", {**body, "rows": rows}).status == 200
        found = send(hub, "GET", f"/v1/shapes/{name}:compare").json()
        assert "differences" not in found and "beforeRows" not in found
        assert found["afterRows"] == rows
        done = hub.command("shapes", "diff", name, "--format", "json")
        assert json.loads(done.stdout) == [{"name": "", "after": rows}]
        listed = hub.command("shapes", "list", "--format", "csv").stdout.decode()
        (row,) = [r for r in csv.DictReader(io.StringIO(listed)) if r["shape_id"] == name]
        assert row["rows.field"] == "lines"
    finally:
        send(hub, "DELETE", f"/v1/shapes/{name}")


def test_the_example_of_order_lines(hub: RunningHub) -> None:
    def run(*words: str) -> str:
        done = hub.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    shown = json.loads(run("shapes", "preview", "order-lines", "--rows", "5", "--format", "json"))
    assert shown and next(row["line"] for row in shown) == 1
    run("shapes", "create", "order-lines")
    try:
        rows = list(csv.DictReader(io.StringIO(run("export", "orders", "--shape", "order-lines"))))
        whole = json.loads(run("export", "orders", "--format", "json"))
        lines = [held for order in whole for held in order.get("lines", [])]
        assert len(rows) == len(lines) > 100
        assert sum(int(r["quantity"]) for r in rows) == sum(held["quantity"] for held in lines)
        assert {r["line"] for r in rows} >= {"1", "2"}
    finally:
        run("shapes", "delete", "order-lines")
