"""The Northwind mapping of the SDK, on the data for which it is made: every value must arrive."""

from __future__ import annotations

import csv
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from penstock.client import Client
from penstock.client.mapping.load import bind_sources, load_sources, unused_columns
from penstock.client.mapping.plan import load_plan

SAMPLES = Path(
    os.environ.get("PENSTOCK_SAMPLE_DATA") or Path(__file__).parents[4] / "shared" / "data"
)
NORTHWIND = SAMPLES / "northwind" / "csv"
needs_northwind = pytest.mark.skipif(
    not NORTHWIND.is_dir(), reason=f"there is no {NORTHWIND}; PENSTOCK_SAMPLE_DATA says where"
)


def source_rows(name: str) -> list[dict[str, str]]:
    with open(NORTHWIND / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@needs_northwind
def test_northwind_arrives_whole(hub: Any) -> None:
    sources = bind_sources(load_plan("northwind"), NORTHWIND)
    assert unused_columns(sources) == []
    with Client(hub.url, api_key="key-1") as client:
        counts = {loaded.dataset: loaded.counts.rows for loaded in load_sources(client, sources)}
    assert counts == {"customers": 91, "contacts": 91, "products": 77, "orders": 830}
    check_customers(hub.records["customers"], hub.records["contacts"])
    check_products(hub.records["products"])
    check_orders(hub.records["orders"])


def null(record: Any, field: str) -> str:
    """The text of a nullable field; in the source only NULL is empty."""
    return str(getattr(record, field)) if record.HasField(field) else ""


def check_customers(customers: dict[str, Any], contacts: dict[str, Any]) -> None:
    countries = load_plan("northwind").maps["countries"]
    assert len(set(countries.values())) == len(countries)
    for row in source_rows("customers.csv"):
        customer = customers[row["customer_id"]]
        address = customer.billing_address
        assert customer.name == row["company_name"]
        assert null(customer, "phone") == row["phone"]
        assert (address.line1, address.city) == (row["address"], row["city"])
        assert null(address, "region") == row["region"]
        assert null(address, "postal_code") == row["postal_code"]
        assert address.country_code == countries[row["country"]]
        fax = f"\nFax: {row['fax']}" if row["fax"] else ""
        expected = f"Contact: {row['contact_name']}, {row['contact_title']}{fax}"
        assert customer.notes == expected
        contact = contacts[f"{row['customer_id']}-1"]
        assert f"{contact.given_name} {contact.family_name}" == row["contact_name"]
        assert contact.family_name and contact.job_title == row["contact_title"]


def check_products(products: dict[str, Any]) -> None:
    categories = {row["category_id"]: row for row in source_rows("categories.csv")}
    suppliers = {row["supplier_id"]: row for row in source_rows("suppliers.csv")}
    for row in source_rows("products.csv"):
        product = products[row["product_id"]]
        assert (product.name, product.package) == (row["product_name"], row["quantity_per_unit"])
        assert product.unit_price == row["unit_price"]
        assert product.category == categories[row["category_id"]]["category_name"]
        assert product.supplier == suppliers[row["supplier_id"]]["company_name"]
        assert product.attributes == {k: row[k] for k in ("category_id", "supplier_id")}
        for field in ("units_in_stock", "units_on_order", "reorder_level"):
            assert str(getattr(product, field)) == row[field]
        assert product.discontinued == (row["discontinued"] == "1")


def check_orders(orders: dict[str, Any]) -> None:
    shippers = {row["shipper_id"]: row["company_name"] for row in source_rows("shippers.csv")}
    lines: dict[str, list[tuple[str, ...]]] = {}
    for row in source_rows("order_items.csv"):
        line = (row["product_id"], row["quantity"], row["unit_price"], row["discount"])
        lines.setdefault(row["order_id"], []).append(line)
    for row in source_rows("orders.csv"):
        order = orders[row["order_id"]]
        address = order.shipping_address
        assert order.customer_id == row["customer_id"]
        for field in ("employee_id", "order_date", "required_date", "shipped_date", "freight"):
            assert null(order, field) == row[field]
        assert order.carrier == shippers[row["ship_via"]]
        assert (address.recipient, address.line1) == (row["ship_name"], row["ship_address"])
        assert (address.city, address.country) == (row["ship_city"], row["ship_country"])
        assert null(address, "region") == row["ship_region"]
        assert null(address, "postal_code") == row["ship_postal_code"]
        assert [
            (line.product_id, str(line.quantity), line.unit_price, line.discount)
            for line in order.lines
        ] == lines.pop(row["order_id"])
        assert all(Decimal(line.unit_price) > 0 for line in order.lines)
    assert not lines
