"""Lists and pages: filters, orders, fields, and pages that join into the whole."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from harness import RunningHub, folder, without_nulls

Record = dict[str, Any]


def listed(hub: RunningHub, dataset: str = "customers", **query: Any) -> list[Record]:
    """All records of a query, requested at once."""
    reply = hub.get(f"/v1/{dataset}", page_size=1000, **query)
    assert reply.status == 200, reply.text
    assert "nextPageToken" not in reply.json()
    return list(without_nulls(reply.json()[dataset]))


def paged(hub: RunningHub, size: int, **query: Any) -> list[Record]:
    """The records of all pages of ``size`` customers; checks that each page is full."""
    records: list[Record] = []
    token = ""
    while True:
        asked = {**query, "page_size": size, "page_token": token}
        reply = hub.get("/v1/customers", **asked)
        assert reply.status == 200, reply.text
        page = reply.json()["customers"]
        records += without_nulls(page)
        token = reply.json().get("nextPageToken", "")
        if not token:
            return records
        assert len(page) == size


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    """A hub that has exactly the demo's customers: tests compare whole lists."""
    with folder() as data:
        running = RunningHub(data / "hub")
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def everyone(hub: RunningHub) -> list[Record]:
    found = listed(hub)
    assert len(found) >= 300
    return found


def test_a_list_comes_in_key_order(everyone: list[Record]) -> None:
    keys = [r["customerId"].encode() for r in everyone]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


FILTERS: list[tuple[str, Any]] = [
    ("status = ACTIVE", lambda r: r.get("status") == "ACTIVE"),
    ('status = "ACTIVE"', lambda r: r.get("status") == "ACTIVE"),
    (
        "kind = COMPANY AND status != LEAD",
        lambda r: r.get("kind") == "COMPANY" and r.get("status") != "LEAD",
    ),
    (
        "kind = COMPANY status = LEAD",
        lambda r: (r.get("kind"), r.get("status")) == ("COMPANY", "LEAD"),
    ),
    ("status = LEAD OR status = CHURNED", lambda r: r.get("status") in ("LEAD", "CHURNED")),
    ("NOT status = LEAD", lambda r: r.get("status") != "LEAD"),
    ("-kind = PERSON", lambda r: r.get("kind") != "PERSON"),
    ('billing_address.country_code = "US"', lambda r: address(r, "countryCode") == "US"),
    ('billingAddress.countryCode = "US"', lambda r: address(r, "countryCode") == "US"),
    ('tags:"vip"', lambda r: "vip" in r.get("tags", [])),
    ("credit_limit:*", lambda r: "creditLimit" in r),
    ("credit_limit > 1000", lambda r: Decimal(r.get("creditLimit", 0)) > 1000),
    (
        "creditLimit <= 1000.5",
        lambda r: "creditLimit" in r and Decimal(r["creditLimit"]) <= Decimal("1000.5"),
    ),
    ('birth_date < "1980-01-01"', lambda r: "birthDate" in r and r["birthDate"] < "1980-01-01"),
    ("marketing_opt_in = true", lambda r: r.get("marketingOptIn", False)),
    ('name = "P*"', lambda r: r.get("name", "").startswith("P")),
    ('email = "*@example.com"', lambda r: r.get("email", "").endswith("@example.com")),
    ('customer_id = "c00000007"', lambda r: r["customerId"] == "c00000007"),
    ('create_time > "2026-01-01T00:00:00+02:00"', lambda r: True),
]


def address(record: Record, field: str) -> str | None:
    found: str | None = record.get("billingAddress", {}).get(field)
    return found


@pytest.mark.parametrize(("text", "holds"), FILTERS, ids=[text for text, _ in FILTERS])
def test_a_filter_leaves_what_it_says(
    hub: RunningHub, everyone: list[Record], text: str, holds: Any
) -> None:
    expected = [r for r in everyone if holds(r)]
    assert expected, "the filter must leave something, or it shows nothing"
    assert listed(hub, filter=text) == expected


def test_an_order_sorts_and_the_key_decides_between_equals(
    hub: RunningHub, everyone: list[Record]
) -> None:
    def by(field: Any) -> list[Record]:
        return sorted(everyone, key=lambda r: (field(r), r["customerId"].encode()))

    assert listed(hub, order_by="name") == by(lambda r: r.get("name", "").encode())
    assert listed(hub, order_by="billing_address.city") == by(
        lambda r: ("billingAddress" not in r, (address(r, "city") or "").encode())
    )
    # Enums are ordered by name, and an unset value is called STATUS_UNSPECIFIED.
    names = ("STATUS_UNSPECIFIED", "LEAD", "CHURNED", "ACTIVE")
    assert listed(hub, order_by="status desc, customer_id") == [
        r for name in names for r in everyone if r.get("status", names[0]) == name
    ]
    amounts = [r.get("creditLimit") for r in listed(hub, order_by="creditLimit desc")]
    given = [Decimal(a) for a in amounts if a is not None]
    assert None in amounts, "what is not set comes first in descending order"
    assert amounts[: amounts.count(None)] == [None] * amounts.count(None)
    assert given == sorted(given, reverse=True)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"order_by": "lifetime_value desc"},
        {"order_by": "credit_limit, name desc"},
        {"order_by": "billing_address.city desc, tax_id"},
        {"filter": "status = ACTIVE OR kind = COMPANY"},
        {"filter": "kind = PERSON", "order_by": "birth_date", "fields": "name,birth_date"},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [7, 150])
def test_pages_make_up_the_list(hub: RunningHub, query: dict[str, str], size: int) -> None:
    whole = listed(hub, **query)
    assert len(whole) > size
    assert paged(hub, size, **query) == whole


def test_a_page_has_a_default_size_and_a_limit(hub: RunningHub) -> None:
    assert len(hub.get("/v1/customers").json()["customers"]) == 100
    capped = hub.get("/v1/interactions", page_size=100_000)
    assert capped.status == 200
    assert len(capped.json()["interactions"]) <= 1000
    negative = hub.get("/v1/customers", page_size=-1)
    assert (negative.status, negative.reason) == (400, "VALUE_INVALID")
    assert list(negative.violations()) == ["page_size"]


def test_fields_of_a_list_by_both_of_their_names(hub: RunningHub, everyone: list[Record]) -> None:
    expected = [{k: r[k] for k in ("customerId", "creditLimit") if k in r} for r in everyone]
    assert listed(hub, fields="customer_id,credit_limit") == expected
    assert listed(hub, fields="creditLimit,customerId") == expected
    nested = [
        {"billingAddress": {"city": address(r, "city")}} if address(r, "city") else {}
        for r in everyone
    ]
    assert [
        {k: v for k, v in r.items() if v != {}} for r in listed(hub, fields="billing_address.city")
    ] == nested


@pytest.mark.parametrize(
    "query", [{}, {"order_by": "credit_limit desc", "filter": "kind = COMPANY"}]
)
def test_export_pages_make_up_the_export(hub: RunningHub, query: dict[str, str]) -> None:
    whole = hub.get("/v1/customers:export", format="CSV", **query)
    assert whole.headers["content-type"].startswith("text/csv")
    rows: list[list[str]] = []
    token, pages = "", 0
    while True:
        reply = hub.get(
            "/v1/customers:exportPage", format="CSV", page_size=61, page_token=token, **query
        )
        assert reply.status == 200, reply.text
        header, *page = csv.reader(io.StringIO(reply.text, newline=""))
        rows += page
        pages += 1
        token = reply.headers.get("penstock-next-page-token", "")
        if not token:
            break
        assert len(page) == 61
    assert pages > 1
    assert [header, *rows] == list(csv.reader(io.StringIO(whole.text, newline="")))


def test_export_pages_come_in_every_format(hub: RunningHub) -> None:
    for name in ("CSV", "json", "NdJson", "XML"):
        page = hub.get("/v1/customers:exportPage", format=name, page_size=5)
        whole = hub.get("/v1/customers:export", format=name, limit=5)
        assert page.status == 200, page.text
        assert page.body == whole.body
        assert page.headers["content-type"] == whole.headers["content-type"]
