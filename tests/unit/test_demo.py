from __future__ import annotations

import csv
import hashlib
import io
import json
import time
import unicodedata
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from harness import processor_slowness
from penstockd.catalog.load import load_catalog
from penstockd.catalog.model import Catalog, Field, Kind
from penstockd.demo import DATASETS, generate_records

DESCRIPTORS = Path(__file__).parents[2] / "gen" / "descriptors" / "hub.binpb"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(DESCRIPTORS)


def data(dataset: str, customers: int, **seed: str) -> bytes:
    return b"".join(generate_records(dataset, customers, **seed))


def records(dataset: str, customers: int) -> list[dict[str, str]]:
    text = data(dataset, customers).decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def checked(field: Field, text: str) -> Any:
    """The value of a field, as far as its text shows the kind."""
    if field.kind is Kind.ENUM:
        assert field.enum_values and text in field.enum_values
    elif field.kind is Kind.DECIMAL:
        number = Decimal(text)
        assert -int(number.as_tuple().exponent) <= field.scale
    elif field.kind is Kind.BOOL:
        assert text in ("true", "false")
    elif field.kind in (Kind.INT32, Kind.INT64):
        assert str(int(text)) == text and abs(int(text)) < 2**31
    elif field.kind is Kind.DOUBLE:
        assert repr(float(text)) == text
    elif field.kind is Kind.DATE:
        assert date.fromisoformat(text).isoformat() == text
    elif field.kind is Kind.TIMESTAMP:
        assert datetime.fromisoformat(text).tzinfo is not None and len(text) == 27
    elif field.kind in (Kind.LIST, Kind.MAP):
        assert isinstance(json.loads(text), list if field.kind is Kind.LIST else dict)
    else:
        assert field.kind is Kind.STRING
        assert all(ord(c) >= 32 or c in "\t\r\n" for c in text)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_value_fits_its_field(catalog: Catalog, dataset: str) -> None:
    fields = catalog[dataset].by_path
    found = records(dataset, 700)
    written = {f.path for f in fields.values() if not f.output_only}
    assert found[0].keys() == written
    for record in found:
        for path, text in record.items():
            if text:
                checked(fields[path], text)
            else:
                assert fields[path].nullable or fields[path].kind is Kind.STRING
    keys = [record[catalog[dataset].key.path] for record in found]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_same_seed_gives_the_same_bytes(dataset: str) -> None:
    assert data(dataset, 300) == data(dataset, 300)
    assert data(dataset, 300) != data(dataset, 300, seed="other")


@pytest.mark.parametrize("dataset", [d for d in DATASETS if d != "products"])
def test_a_smaller_company_is_the_beginning_of_a_larger_one(dataset: str) -> None:
    assert data(dataset, 3000).startswith(data(dataset, 700))


def test_products_of_a_smaller_company_are_those_of_a_larger_one() -> None:
    assert data("products", 3000).startswith(data("products", 700))


def test_the_company_never_changes() -> None:
    digest = hashlib.sha256(b"".join(data(dataset, 500) for dataset in DATASETS)).hexdigest()
    assert digest == GOLDEN, "the demo company is part of what people see: change it knowingly"


def test_sizes() -> None:
    assert [len(records("products", n)) for n in (0, 10, 5000)] == [50, 50, 500]
    assert len(records("customers", 0)) == 0
    customers = 5000
    expected = {"customers": 1.0, "contacts": 1.4, "orders": 2.0, "interactions": 1.5}
    for dataset, rate in expected.items():
        assert abs(len(records(dataset, customers)) / customers - rate) < 0.1, dataset


def test_references_hold() -> None:
    keys = {
        dataset: {record[key] for record in records(dataset, 400)}
        for dataset, key in (
            ("customers", "customer_id"),
            ("contacts", "contact_id"),
            ("products", "product_id"),
        )
    }
    for dataset in ("contacts", "orders", "interactions"):
        for record in records(dataset, 400):
            assert record["customer_id"] in keys["customers"]
            if contact := record.get("contact_id"):
                assert contact in keys["contacts"]
            for line in json.loads(record.get("lines") or "[]"):
                assert line["productId"] in keys["products"]


def test_totals_are_the_exact_sums_of_the_lines() -> None:
    sizes = set()
    for order in records("orders", 2000):
        lines = json.loads(order["lines"])
        sizes.add(len(lines))
        assert len({line["productId"] for line in lines}) == len(lines)
        total = sum(
            Decimal(line["unitPrice"]) * line["quantity"] * (1 - Decimal(line.get("discount", 0)))
            for line in lines
        )
        assert Decimal(order["total"]) == total
        shipped = order["status"] in ("SHIPPED", "DELIVERED")
        assert bool(order["shipped_date"]) == shipped
        assert not shipped or order["shipped_date"] > order["order_date"]
    assert sizes == {1, 2, 3, 4, 5, 6}


def test_the_data_is_as_hard_as_real_data() -> None:
    text = data("customers", 5000).decode()
    scripts = {unicodedata.name(c, "").split(" ")[0] for c in set(text)}
    assert scripts >= {"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "CJK", "HANGUL",
                       "HIRAGANA", "DEVANAGARI"}  # fmt: skip
    assert max(text) > "\uffff"
    found = records("customers", 5000)
    assert {r["status"] for r in found} == {"LEAD", "ACTIVE", "CHURNED"}
    assert {r["kind"] for r in found} == {"PERSON", "COMPANY"}
    assert any("\n" in r["notes"] for r in found)
    assert any('"' in r["name"] for r in found) and any("," in r["name"] for r in found)
    assert ',"",' in text and any(r["billing_address.line1"] == "" for r in found)
    emails = [r["email"] for r in found if r["email"]]
    assert len(emails) == len(set(emails))
    assert all(e.isascii() and ".example." in e.replace("@", ".") for e in emails)
    assert {o["status"] for o in records("orders", 500)} == {
        "PLACED", "SHIPPED", "DELIVERED", "CANCELLED",
    }  # fmt: skip
    assert {i["channel"] for i in records("interactions", 500)} == {
        "EMAIL", "PHONE", "MEETING", "WEB",
    }  # fmt: skip


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="customers, contacts"):
        next(generate_records("invoices", 1))
    with pytest.raises(ValueError, match="negative"):
        next(generate_records("customers", -1))


def test_it_is_quick_enough_to_wait_for() -> None:
    # An eighth of its speed on an idle machine, so that a busy one does not fail here.
    began = time.process_time()
    for _ in generate_records("customers", 50_000):
        pass
    assert (time.process_time() - began) < 2.5 * processor_slowness()


GOLDEN = "11282877da1a4f7176e26794c26715419587ca932536a1c3c829112658d360d6"
