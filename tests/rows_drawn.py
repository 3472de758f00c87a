"""Random canonical values of every kind."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from penstockd.catalog import values
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.catalog.structs import parse_struct

_SPICY = st.sampled_from(
    ["", '"', ",", "\n", "\r", "\r\n", "\t", "\\", "\\.", "a\\", "<b>&amp;]]>", "日本", "é" * 20,
     "=1+1", " x ", "null", "\u2028", "\ud7ff", "\U0010ffff", "NULL", "'", "x" * 300, '""', "\x7f"]
)  # fmt: skip
_LETTERS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
    | st.sampled_from('",\n\r\t\\<>&'),
    max_size=40,
)
TEXT = _SPICY | _LETTERS | st.lists(_SPICY, max_size=4).map("".join)
_RANGES = {
    Kind.INT32: (-(2**31), 2**31 - 1),
    Kind.INT64: (-(2**63), 2**63 - 1),
    Kind.UINT32: (0, 2**32 - 1),
    Kind.UINT64: (0, 2**64 - 1),
}
_DOUBLES = st.floats(allow_nan=False) | st.sampled_from([0.1, 1e15, 1e14, 123456.7, 1e-5, 1e22])


#: Doubles that a Struct holds.
_NUMBERS = st.floats(-(2**53) + 1, 2**53 - 1) | st.integers(-(2**53) + 1, 2**53 - 1)
_DATA = st.recursive(
    st.none() | st.booleans() | _NUMBERS | TEXT,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT, below, max_size=3),
    max_leaves=8,
)
STRUCT = st.dictionaries(TEXT, _DATA, max_size=3).map(parse_struct)


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    """Decimals with up to ``scale`` digits after the point, with trailing zeros."""

    def make(number: int, places: int) -> Decimal:
        digits = tuple(map(int, str(abs(number) % 10 ** (precision - scale + places))))
        return Decimal((int(number < 0 and any(digits)), digits, -places))

    most = 10**precision - 1
    number = st.integers(-most, most) | st.sampled_from([1, 10, 10000, 100000000, -5, most, 0])
    return st.builds(make, number, st.integers(0, scale))


def value(field: Field) -> st.SearchStrategy[Any]:
    """A canonical value of a field, other than None."""
    match field.kind:
        case Kind.STRING:
            return TEXT.filter(bool) if field.key else TEXT
        case Kind.ENUM:
            return st.sampled_from(list(field.enum_values or ()))
        case Kind.BOOL:
            return st.booleans()
        case Kind.INT32 | Kind.INT64 | Kind.UINT32 | Kind.UINT64:
            low, high = _RANGES[field.kind]
            return st.integers(low, high) | st.sampled_from([low, high, 0])
        case Kind.FLOAT:
            return st.floats(width=32, allow_nan=False)
        case Kind.DOUBLE:
            return _DOUBLES
        case Kind.BYTES:
            return st.binary(max_size=20)
        case Kind.DECIMAL:
            return decimals(field.precision, field.scale)
        case Kind.DATE:
            return st.dates()
        case Kind.TIMESTAMP:
            least, most = datetime(1, 1, 2), datetime(9999, 12, 30)
            return st.datetimes(least, most, timezones=st.just(UTC))
        case Kind.STRUCT:
            return STRUCT
    return st.nothing()


def _part(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    members: dict[str, Any] = {
        "partName": TEXT,
        "amount": st.integers(-(2**63), 2**63 - 1).map(str),
        "color": st.sampled_from(["RED", "GREEN"]),
        "extraSizes": st.dictionaries(TEXT, st.floats(-1e6, 1e6), max_size=2),
    }
    optional: dict[str, Any] = {
        "unitPrice": decimals(18, 4).map(lambda d: format(d, "f")),
        "madeAt": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(
            lambda t: values.timestamp_text(t.replace(tzinfo=UTC))
        ),
        "blob": st.sampled_from(["", "AA==", "//79"]),
    }
    if depth:
        optional["parts"] = st.lists(_part(depth - 1), max_size=2)
    return st.fixed_dictionaries(members, optional=optional)


def row(dataset: Dataset, fields: tuple[Field, ...]) -> st.SearchStrategy[list[Any]]:
    """A canonical row of ``fields``."""
    special: dict[str, st.SearchStrategy[Any]] = {
        "labels": st.lists(TEXT, max_size=3),
        "numbers": st.lists(st.integers(-(2**63), 2**63 - 1).map(str), max_size=3),
        "all_parts": st.lists(_part(1), max_size=2),
        "words": st.dictionaries(TEXT, TEXT, max_size=3),
        "named_parts": st.dictionaries(TEXT, _part(0), max_size=2),
    }
    complete = values.make_completer(dataset, fields)

    def finish(cells: tuple[Any, ...]) -> list[Any]:
        found = [
            values.check_value(f, c) if f.is_json else c for f, c in zip(fields, cells, strict=True)
        ]
        complete(found)
        return found

    columns = []
    for field in fields:
        column = special.get(field.path, value(field))
        columns.append(st.none() | column if field.nullable else column)
    return st.tuples(*columns).map(finish)
