"""Corner cases of the canonical form, compared with RFC 8785 and proto JSON."""

from __future__ import annotations

import math
from typing import Any

import pytest

from penstock.client.canonical import canonical_json, format_canonical, range_digest
from penstock.model.v1.customers_pb2 import Customer
from penstock.model.v1.orders_pb2 import Order
from penstock.model.v1.products_pb2 import Product

#: From appendix B of RFC 8785, and numbers where the layout changes.
NUMBERS = {
    5e-324: "5e-324",
    1.7976931348623157e308: "1.7976931348623157e+308",
    9007199254740992.0: "9007199254740992",
    295147905179352830000.0: "295147905179352830000",
    9.999999999999997e22: "9.999999999999997e+22",
    1e23: "1e+23",
    999999999999999700000.0: "999999999999999700000",
    1e21: "1e+21",
    9.999999999999997e-7: "9.999999999999997e-7",
    0.000001: "0.000001",
    333333333.3333332: "333333333.3333332",
    -0.0000033333333333333333: "-0.0000033333333333333333",
    4.5: "4.5",
    100.0: "100",
    -0.0: "0",
}


@pytest.mark.parametrize(("number", "text"), NUMBERS.items(), ids=str)
def test_numbers(number: float, text: str) -> None:
    form = f'{{"weightKg":{text}}}'
    assert format_canonical(Product(weight_kg=number)).decode() == form
    assert canonical_json({"weightKg": number}, Product).decode() == form


def test_numbers_that_json_has_not() -> None:
    for number, text in ((math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")):
        form = f'{{"weightKg":"{text}"}}'
        assert format_canonical(Product(weight_kg=number)).decode() == form
        assert canonical_json({"weightKg": text}, Product).decode() == form


def test_names_of_a_map_are_in_the_order_of_utf16() -> None:
    """As the example of RFC 8785, section 3.2.3."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    form = (
        '{"attributes":{"\\r":"","1":"","\u0080":"","\u00f6":"","\u20ac":"","\U0001f600":"",'
        '"\ufb33":""}}'
    )
    assert format_canonical(Product(attributes=dict.fromkeys(names, ""))).decode() == form


def test_what_has_no_value_is_left_out() -> None:
    nothing: dict[str, Any] = {
        "customerId": "", "name": "", "kind": "KIND_UNSPECIFIED", "email": None,
        "marketingOptIn": False, "tags": [], "updateTime": "2026-01-01T00:00:00Z", "etag": "1",
    }  # fmt: skip
    assert canonical_json(nothing, Customer) == format_canonical(Customer(etag="1")) == b"{}"
    # An `optional` field does not distinguish unset from empty, and a present message stays
    # present.
    there = {"notes": "", "billingAddress": {"city": "", "line2": None}}
    message = Customer(notes="", billing_address=Customer.Address())
    form = b'{"billingAddress":{},"notes":""}'
    assert canonical_json(there, Customer) == format_canonical(message) == form


def test_decimals_are_numbers_within_lists_too() -> None:
    line = Order.Line(product_id="p", unit_price="10.00", discount="0.250")
    form = b'{"lines":[{"discount":"0.25","productId":"p","unitPrice":"10"}],"total":"100"}'
    assert format_canonical(Order(lines=[line], total="100")) == form
    # Text that looks like a decimal stays unchanged.
    assert format_canonical(Order(carrier="10.00")) == b'{"carrier":"10.00"}'


@pytest.mark.parametrize("fraction", ["", ".12", ".120", ".120000", ".120000000"])
def test_times_have_six_digits(fraction: str) -> None:
    record = {"createTime": f"2026-03-01T09:30:00{fraction}Z"}
    six = fraction[1:7].ljust(6, "0")
    form = f'{{"createTime":"2026-03-01T09:30:00.{six}Z"}}'
    assert canonical_json(record, Customer).decode() == form


def test_an_empty_range() -> None:
    assert range_digest([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
