"""Numbers of any exponent, on every way that a caller's text becomes a number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Column
from sqlalchemy.dialects import postgresql

from penstock.client.mapping.errors import BadValue
from penstock.client.mapping.plan import Value
from penstock.client.mapping.value import make_converter
from penstockd.catalog import Catalog, Field, Kind, values
from penstockd.catalog.model import Dataset
from penstockd.catalog.values import ValueRefused
from penstockd.query import FilterError, compile_filter, evaluate_filter, parse_filter
from shelf import read

NINES = "9" * 30
#: Beyond what a Decimal can be, beyond what the store can be, and beyond a double.
NUMBERS = [
    f"{sign}{digits}e{power}"
    for sign in ("", "-")
    for digits in ("0", "1", "1.5", NINES)
    for power in (f"-{NINES}", f"{NINES}", "-99999", "99999", "400")
]


def fields_of(things: Dataset, catalog: Catalog) -> Iterator[Field]:
    for dataset in (things, *catalog):
        for field in dataset.fields:
            yield field
            if field.element is not None:
                yield field.element


@pytest.mark.parametrize("number", NUMBERS)
def test_every_kind_of_value(things: Dataset, catalog: Catalog, number: str) -> None:
    """A value is taken or refused, and what is taken can be printed."""
    spellings = (number, f"[{number}]", f'{{"n":{number}}}', f'[{{"n":[{number}]}}]', f'"{number}"')
    for field in fields_of(things, catalog):
        for text in spellings:
            for parse in (values.from_text, _from_json):
                try:
                    found = parse(field, text)
                except ValueRefused as refused:
                    assert len(refused.reason) < 1000
                else:
                    assert len(values.to_text(field, found)) < 1000
                    json.dumps(values.to_json(field, found), default=str)


def _from_json(field: Field, text: str) -> Any:
    return values.from_json(field, values.load_json(text))


@pytest.mark.parametrize("number", NUMBERS)
def test_files_with_it_have_bad_rows(things: Dataset, number: str) -> None:
    records = [
        f'{{"thingId":"{at}","{"".join(field.json_steps)}":{number}}}'
        for at, field in enumerate(things.fields)
        if len(field.steps) == 1 and not field.in_key
    ]
    records.append(f'{{"thingId":"s","details":{{"n":{number}}}}}')
    records.append('{"thingId":"last"}')
    _, rows, bad = read("NDJSON", things, "\n".join(records).encode())
    assert len(rows) + len(bad) == len(records)
    assert any("last" in row for row in rows)
    cell = f'"{{""n"":{number}}}"'
    _, rows, bad = read("CSV", things, f"thing_id,details\na,{cell}\nb,\n".encode())
    assert len(rows) + len(bad) == 2
    assert any("b" in row for row in rows)


@pytest.mark.parametrize("number", NUMBERS)
def test_filters(things: Dataset, names_of: Callable[..., Any], number: str) -> None:
    """A filter is refused, or holds only numbers that PostgreSQL takes."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    names = names_of({f: Column(f.path) for f in things.fields})
    paths = [f.path for f in things.fields if not f.repeated and f.kind is not Kind.BYTES]
    for path in [*paths, "details.n"]:
        for comparator in ("=", "!=", ">", ":"):
            try:
                expression = parse_filter(f"{path} {comparator} {number}")
                compiled = compile_filter(expression, names).compile(dialect=dialect)
            except FilterError:
                continue
            if path == "details.n":
                for literal in compiled.params.values():
                    assert len(str(literal)) < 40, literal
                    if "e" in (shown := str(literal).lower()):
                        assert abs(int(shown.partition("e")[2].strip('"] '))) < 1000, literal
                record = {f.path: None for f in things.fields} | {"details": {"n": 0}}
                evaluate_filter(expression, names, record)


@pytest.mark.parametrize("number", NUMBERS)
def test_mapped_files(things: Dataset, number: str) -> None:
    """The client refuses what a Struct cannot hold, before it sends anything."""
    convert = make_converter(things.message_type.fields_by_name["details"], Value("v"), "details")
    try:
        found = convert(f'{{"n":{number}}}')
    except BadValue as refused:
        assert "a number that a Struct cannot hold" in str(refused)
    else:
        assert found == {"n": 0}
