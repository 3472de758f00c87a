"""Values in and out: which are accepted, which are refused, and the one way they are printed."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstockd.catalog import Dataset, Field, FieldClass, Kind, values
from penstockd.catalog.load import load_catalog
from penstockd.catalog.values import ValueRefused

CATALOG = load_catalog(Path(__file__).parents[3] / "gen" / "descriptors" / "hub.binpb")
COLORS = {"NONE": 0, "RED": 1, "ALSO_RED": 1, "NEGATIVE": -1}


def field(kind: Kind, **more: Any) -> Field:
    return Field("f", "f", kind, FieldClass.PUBLIC, nullable=False, **more)


MONEY = field(Kind.DECIMAL, precision=10, scale=4, presence=True)
ENUM = field(Kind.ENUM, enum_values=COLORS)
LINES = CATALOG["orders"].by_path["lines"]


@pytest.mark.parametrize(
    ("of", "text", "value"),
    [
        (field(Kind.STRING), "a\tb\r\né", "a\tb\r\né"),
        (field(Kind.STRING), "", ""),
        (field(Kind.BOOL), "TRUE", True),
        (field(Kind.INT32), "-2147483648", -(2**31)),
        (field(Kind.INT64), "0009223372036854775807", 2**63 - 1),
        (field(Kind.INT64), "0" * 5000 + "7", 7),
        (field(Kind.UINT64), "18446744073709551615", 2**64 - 1),
        (field(Kind.DOUBLE), "-1.5e-3", -0.0015),
        (field(Kind.DOUBLE), "-Infinity", -math.inf),
        (field(Kind.DOUBLE), "0e-999", 0.0),
        (field(Kind.DOUBLE), "9007199254740992.0", 2.0**53),
        (field(Kind.DOUBLE), "123456789012345680000", 123456789012345683968.0),
        (field(Kind.DOUBLE), "123456789012345683968", 123456789012345683968.0),
        (field(Kind.DOUBLE), "9.9999999999999992e+22", 1e23),
        (field(Kind.DOUBLE), "0.10000000000000000001", 0.1),
        (field(Kind.FLOAT), "16777216", 16777216.0),
        (field(Kind.FLOAT), "33333332", 33333332.0),
        (field(Kind.FLOAT), "0.1", 0.10000000149011612),
        (field(Kind.BYTES), "-_8=", b"\xfb\xff"),
        (field(Kind.BYTES), "+/8", b"\xfb\xff"),
        (ENUM, "ALSO_RED", "ALSO_RED"),
        (ENUM, "1", "RED"),
        (ENUM, "-1", "NEGATIVE"),
        (MONEY, "-0012.5000", Decimal("-12.5000")),
        (MONEY, "-0.00", Decimal("0.00")),
        (field(Kind.DATE), "2024-02-29", date(2024, 2, 29)),
        (field(Kind.TIMESTAMP), "2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (
            field(Kind.TIMESTAMP),
            "2024-02-29t14:00:00.123456000+02:00",
            datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
        ),
        (LINES, '[{"product_id":"p","unitPrice":12.50}]',
         [{"productId": "p", "quantity": 0, "unitPrice": "12.50"}]),
    ],
)  # fmt: skip
def test_text_that_is_taken(of: Field, text: str, value: Any) -> None:
    found = values.from_text(of, text)
    assert found == value and str(found) == str(value)
    assert values.check_value(of, found) == value


@pytest.mark.parametrize(
    ("of", "text", "reason"),
    [
        (field(Kind.STRING), "ab\x00", "U+0000 at position 3"),
        (field(Kind.STRING), "\x1b", "U+001B at position 1"),
        (field(Kind.STRING), "é\ud800", "lone surrogate U+D800 at position 2"),
        (field(Kind.STRING), "\ufffe", "U+FFFE"),
        (field(Kind.STRING, in_key=True), "", "must not be empty"),
        (field(Kind.BOOL), "yes", "not true or false"),
        (field(Kind.INT32), "2147483648", "out of range of int32"),
        (field(Kind.INT64), "9" * 5000, "out of range of int64"),
        (field(Kind.INT64), "1_0", "not a whole number"),
        (field(Kind.INT64), "\u0661", "not a whole number"),
        (field(Kind.UINT32), "-1", "out of range of uint32"),
        (field(Kind.DOUBLE), "nan", "not a number"),
        (field(Kind.DOUBLE), "1e999", "out of range of double"),
        (field(Kind.DOUBLE), "9007199254740993", "would keep 9.007199254740992e+15"),
        (field(Kind.DOUBLE), "-9007199254740993.0", "would keep -9.007199254740992e+15"),
        (field(Kind.DOUBLE), "1e-400", "a double would keep 0"),
        (field(Kind.FLOAT), "1e39", "out of range of float"),
        (field(Kind.FLOAT), "16777217", "a float would keep 1.6777216e+07"),
        (field(Kind.FLOAT), "1e-50", "a float would keep 0"),
        (field(Kind.BYTES), "a", "not base64"),
        (field(Kind.BYTES), "a b=", "not base64"),
        (field(Kind.BYTES), "QR==", "bits after its last byte"),
        (field(Kind.BYTES), "QQ==QUJ=", "not base64"),
        (field(Kind.BYTES), "QUFBQUJ", "bits after its last byte"),
        (ENUM, "BLUE", "not one of NONE, RED, ALSO_RED, NEGATIVE"),
        (MONEY, "1e3", "not a decimal number"),
        (MONEY, "NaN", "not a decimal number"),
        (MONEY, "0.12345", "more than 4 digits after the point"),
        (MONEY, "1234567", "more than 6 digits before the point"),
        (field(Kind.DATE), "2023-02-29", "not a date"),
        (field(Kind.DATE), "2024-W01-1", "not a date"),
        (field(Kind.DATE), "20240101", "not a date"),
        (field(Kind.TIMESTAMP), "2024-02-29T12:00:00", "not a time"),
        (field(Kind.TIMESTAMP), "2024-02-29T24:00:00Z", "not a time"),
        (field(Kind.TIMESTAMP), "2024-02-29T12:00:60Z", "not a time"),
        (field(Kind.TIMESTAMP), "2024-02-29T12:00:00.1234567Z", "more than six digits"),
        (field(Kind.TIMESTAMP), "2024-02-29T12:00:00.000000001Z", "more than six digits"),
        (field(Kind.TIMESTAMP), "0001-01-01T00:00:00+01:00", "outside the years"),
        (LINES, "{}", "must be an array, not an object"),
        (LINES, '[{"quantity":2.5}]', "at [0].quantity: must be a whole number, not 2.5"),
        (LINES, '[{"nope":1}]', "at [0]: has the unknown member 'nope'"),
        (LINES, '[{"quantity":1,"quantity":2}]', "has the member 'quantity' twice"),
        (LINES, "[" * 100_000, "not JSON"),
    ],
)
def test_text_that_is_refused(of: Field, text: str, reason: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        values.from_text(of, text)
    assert reason in refused.value.reason


@pytest.mark.parametrize(
    ("of", "value", "reason"),
    [
        (field(Kind.STRING), 1, "must be a string, not a number"),
        (field(Kind.BOOL), 1, "must be true or false, not a number"),
        (field(Kind.INT32), 1.0, "must be a whole number, not 1.0"),
        (field(Kind.INT32), True, "must be a whole number, not a boolean"),
        (field(Kind.INT64), 2**63, "out of range"),
        (field(Kind.DOUBLE), "x", "not a number"),
        (field(Kind.DOUBLE), 10**400, "out of range"),
        (MONEY, 0.1, "not exact"),
        (MONEY, Decimal("1e999999"), "out of range"),
        (MONEY, 10**4000, "out of range"),
        (ENUM, 7, "not one of"),
        (ENUM, True, "must be a string, not a boolean"),
        (field(Kind.DATE), None, "is required"),
    ],
)
def test_json_that_is_refused(of: Field, value: Any, reason: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        values.from_json(of, value)
    assert reason in refused.value.reason


def test_json_that_is_taken() -> None:
    assert values.from_json(field(Kind.INT64), "5") == values.from_json(field(Kind.INT64), 5) == 5
    assert values.from_json(ENUM, 1) == "RED"
    assert str(values.from_json(MONEY, Decimal("1E+2"))) == "100"
    assert values.from_json(field(Kind.DOUBLE), Decimal("0.5")) == 0.5
    assert values.from_json(field(Kind.STRING), None) == ""
    assert values.from_json(replace(MONEY, nullable=True), None) is None


def test_what_a_message_holds() -> None:
    assert values.check_value(MONEY, "12.50") == Decimal("12.50")
    assert values.check_value(replace(MONEY, presence=False), "") == 0
    assert values.check_value(field(Kind.DATE), "") is None
    assert values.check_value(ENUM, 1) == "RED"
    local = datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert (
        values.check_value(field(Kind.TIMESTAMP), local).isoformat() == "2024-01-01T00:00:00+00:00"
    )
    for bad in (MONEY, ""), (field(Kind.STRING), "\0"), (ENUM, 9):
        with pytest.raises(ValueRefused):
            values.check_value(*bad)


def test_equal_repeated_values_are_equal_data() -> None:
    one = values.from_text(LINES, '[{"quantity":0,"unitPrice":"1","productId":"p"}]')
    two = values.check_value(LINES, [{"product_id": "p", "unit_price": "1", "discount": None}])
    assert one == two and list(one[0]) == list(two[0]) == ["productId", "quantity", "unitPrice"]


@given(st.floats(allow_nan=False))
def test_floats_read_back(number: float) -> None:
    of = field(Kind.DOUBLE)
    assert values.from_text(of, values.to_text(of, number)) == number


@given(st.floats(width=32, allow_nan=False))
def test_single_floats_read_back(number: float) -> None:
    of = field(Kind.FLOAT)
    text = values.to_text(of, number)
    assert values.from_text(of, text) == number and len(text) <= 15


@pytest.mark.parametrize(
    ("number", "text"),
    [(1.0, "1"), (1e15, "1e+15"), (123456.5, "123456.5"), (1e-5, "1e-05"), (-0.0, "0"),
     (math.nan, "NaN"), (0.1, "0.1"), (1.5e300, "1.5e+300")],
)  # fmt: skip
def test_floats_look_as_in_postgresql(number: float, text: str) -> None:
    assert values.to_text(field(Kind.DOUBLE), number) == text


def test_completion_of_nested_messages() -> None:
    customers: Dataset = CATALOG["customers"]
    paths = ("billing_address.line1", "billing_address.line2", "name")
    complete = values.make_completer(customers, [customers.by_path[p] for p in paths])
    row: list[Any] = [None, "flat", "n"]
    complete(row)
    assert row == ["", "flat", "n"]
    absent: list[Any] = [None, None, "n"]
    complete(absent)
    assert absent == [None, None, "n"]
