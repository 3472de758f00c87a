"""The Northwind mapping of the SDK, through the command line into a hub and out again."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import xml.etree.ElementTree as ET
from decimal import Decimal
from typing import Any

import openpyxl
import pyarrow.ipc
import pyarrow.parquet
import pytest

from harness import RunningHub

from .test_round_trips import SAMPLES, camel, export

FORMATS = ("CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW", "XLSX")
NORTHWIND = SAMPLES / "northwind" / "csv"
pytestmark = pytest.mark.skipif(
    not NORTHWIND.is_dir(), reason=f"there is no {NORTHWIND}; PENSTOCK_SAMPLE_DATA says where"
)


def source(name: str) -> list[dict[str, str]]:
    with open(NORTHWIND / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def northwind(hub: RunningHub) -> str:
    return hub.command("import", "--mapping", "northwind", str(NORTHWIND)).stdout.decode()


def records(hub: RunningHub, dataset: str, name: str) -> dict[str, dict[str, Any]]:
    """The imported records of an export by key: proto names with dots, NULL as ""."""
    query = {"nested": "JSON"} if name in ("PARQUET", "ARROW") else {}
    body = export(hub, dataset, name, filter='source = "northwind"', **query)
    if name in ("JSON", "NDJSON"):
        read = json.loads(body) if name == "JSON" else map(json.loads, body.splitlines())
        found = [snake(record) for record in read]
    elif name == "XML":
        found = [from_xml(element) for element in ET.fromstring(body)]
    else:
        found = [{path: text_of(v) for path, v in row.items()} for row in read_table(name, body)]
        for record in found:
            for field in ("lines", "attributes"):
                if field in record:
                    record[field] = json.loads(record[field])
    key = dataset.removesuffix("s") + "_id"
    return {record[key]: record for record in found}


def read_table(name: str, body: bytes) -> list[dict[str, Any]]:
    """The rows of a file in a format of tables."""
    if name == "CSV":
        return [dict(r) for r in csv.DictReader(io.StringIO(body.decode(), newline=""))]
    if name == "XLSX":
        head, *rows = openpyxl.load_workbook(io.BytesIO(body), read_only=True).worksheets[0].values
        return [dict(zip(map(str, head), row, strict=True)) for row in rows]
    if name == "PARQUET":
        table = pyarrow.parquet.read_table(io.BytesIO(body))
    else:
        table = pyarrow.ipc.open_stream(body).read_all()
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def text_of(value: Any) -> str:
    """A typed value as the source writes it: numbers without zeros at their end."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal):
        return format(Decimal(repr(value) if isinstance(value, float) else value).normalize(), "f")
    if isinstance(value, dt.date):
        return value.strftime("%Y-%m-%d")
    return str(value)


def snake(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        path = prefix + "".join("_" + c.lower() if c.isupper() else c for c in name)
        if isinstance(value, dict) and name != "attributes":
            flat |= snake(value, path + ".")
        elif isinstance(value, bool):
            flat[path] = str(value).lower()
        else:
            flat[path] = value if isinstance(value, list | dict) else str(value or "")
    return flat


def from_xml(element: ET.Element, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for child in element:
        path = prefix + child.tag
        if child.tag == "lines":
            flat[path] = [{camel(e.tag): e.text or "" for e in item} for item in child]
        elif child.tag == "attributes":
            flat[path] = {e.get("key"): e.text or "" for e in child}
        elif len(child) and child.tag != "tags":
            flat |= from_xml(child, path + ".")
        else:
            flat[path] = child.text or ""
    return flat


def test_all_rows_arrive(northwind: str) -> None:
    for dataset, rows in {"customers": 91, "contacts": 91, "products": 77, "orders": 830}.items():
        assert f"{dataset}: {rows} rows: {rows} created" in northwind


@pytest.mark.usefixtures("northwind")
@pytest.mark.parametrize("name", FORMATS)
def test_customers_have_every_value(hub: RunningHub, name: str) -> None:
    found = records(hub, "customers", name)
    rows = source("customers.csv")
    assert len(found) == len(rows) == 91
    columns = {
        "customer_id": "customer_id",
        "name": "company_name",
        "phone": "phone",
        "billing_address.line1": "address",
        "billing_address.city": "city",
        "billing_address.region": "region",
        "billing_address.postal_code": "postal_code",
        "source_id": "customer_id",
    }
    for row in rows:
        record = found[row["customer_id"]]
        assert {f: record.get(f, "") for f in columns} == {f: row[c] for f, c in columns.items()}
        fax = f"\nFax: {row['fax']}" if row["fax"] else ""
        assert record["notes"] == f"Contact: {row['contact_name']}, {row['contact_title']}{fax}"


@pytest.mark.usefixtures("northwind")
@pytest.mark.parametrize("name", FORMATS)
def test_products_have_every_value(hub: RunningHub, name: str) -> None:
    categories = {r["category_id"]: r["category_name"] for r in source("categories.csv")}
    suppliers = {r["supplier_id"]: r["company_name"] for r in source("suppliers.csv")}
    found = records(hub, "products", name)
    rows = source("products.csv")
    assert len(found) == len(rows) == 77
    columns = {
        "name": "product_name",
        "package": "quantity_per_unit",
        "unit_price": "unit_price",
        "units_in_stock": "units_in_stock",
        "units_on_order": "units_on_order",
        "reorder_level": "reorder_level",
    }
    for row in rows:
        record = found[row["product_id"]]
        # In JSON a zero is 0, which looks like "" here; CSV and XML have "0".
        assert {f: record[f] or "0" for f in columns} == {f: row[c] for f, c in columns.items()}
        assert record["discontinued"] == ("true" if row["discontinued"] == "1" else "false")
        assert record["category"] == categories[row["category_id"]]
        assert record["supplier"] == suppliers[row["supplier_id"]]
        assert record["attributes"] == {k: row[k] for k in ("category_id", "supplier_id")}


@pytest.mark.usefixtures("northwind")
@pytest.mark.parametrize("name", FORMATS)
def test_orders_have_every_value_and_all_of_their_lines(hub: RunningHub, name: str) -> None:
    shippers = {r["shipper_id"]: r["company_name"] for r in source("shippers.csv")}
    lines: dict[str, list[tuple[str, ...]]] = {}
    for row in source("order_items.csv"):
        values = (row["product_id"], row["quantity"], row["unit_price"], row["discount"])
        lines.setdefault(row["order_id"], []).append(values)
    found = records(hub, "orders", name)
    rows = source("orders.csv")
    assert len(found) == len(rows) == 830
    columns = {
        "customer_id": "customer_id",
        "employee_id": "employee_id",
        "order_date": "order_date",
        "required_date": "required_date",
        "shipped_date": "shipped_date",
        "freight": "freight",
        "shipping_address.recipient": "ship_name",
        "shipping_address.line1": "ship_address",
        "shipping_address.city": "ship_city",
        "shipping_address.region": "ship_region",
        "shipping_address.postal_code": "ship_postal_code",
        "shipping_address.country": "ship_country",
    }
    for row in rows:
        record = found[row["order_id"]]
        assert {f: record.get(f, "") for f in columns} == {f: row[c] for f, c in columns.items()}
        assert record["carrier"] == shippers[row["ship_via"]]
        assert record["status"] == ("SHIPPED" if row["shipped_date"] else "PLACED")
        given = [
            (line["productId"], str(line["quantity"]), line["unitPrice"], line["discount"])
            for line in record["lines"]
        ]
        assert given == lines.pop(row["order_id"])
    assert not lines, "every line has found its order"


def test_loading_it_again_changes_nothing(hub: RunningHub, northwind: str) -> None:
    again = hub.command("import", "--mapping", "northwind", str(NORTHWIND)).stdout.decode()
    assert "orders: 830 rows: 0 created, 0 updated, 830 unchanged" in again
