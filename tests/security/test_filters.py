"""S4: malformed filters. The hub refuses them as such, and none reaches SQL as text.

``unit/query/test_differential.py`` compares the results of well-formed filters with plain Python.
PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from access import unrestricted
from chance import SEED
from harness import RunningHub
from penstockd.catalog.load import load_catalog
from penstockd.policy.read import ExportQuery
from penstockd.policy.view import View
from penstockd.query import QueryError, compile_filter, parse_filter
from penstockd.resources import find_descriptors
from penstockd.store.sql import compile_statement

CASES = 4000
CALLS = 150

#: A text that the hub itself never writes into SQL.
MARKS = ["zqMark", "zq'Mark", 'zq"Mark', "zq--Mark", "zq$1Mark", "zq%sMark", "zq:xMark", "zq\\Mark"]
GOOD = [
    'name = "{}"',
    'status = ACTIVE AND name != "{}"',
    'NOT (source:"{}" OR source_id:*)',
    'billing_address.city = "*{}*"',
    'tags:"{}"',
    'name = ("{}" OR "b")',
    "credit_limit > 12.5 AND create_time < \"2024-01-01T00:00:00Z\" OR notes = '{}'",
    'email >= "{}" -marketing_opt_in = true',
]
PIECES = [
    *'()"".,:=<>!*-\\',
    *("AND", "OR", "NOT", "null", "true", "''", "name", "no_such", "claims.org", "customer.name"),
    *(";", "--", "/*", "$1", "%s", "{}", "\x00", "\ud800", "\u202e", "é", "😀", "\n", "\t", "0x1"),
    *("1e400", "NaN", "-0", "9" * 40, "2024-13-45", "pg_sleep(1)", "f(x)", "a.b.c.d", '"\\u0000"'),
]


@pytest.fixture(scope="module")
def view() -> View:
    return unrestricted(load_catalog(find_descriptors()), "customers")


def marked(rng: random.Random) -> str:
    """A valid filter with a text in it that no SQL may contain."""
    mark = rng.choice(MARKS)
    template = rng.choice(GOOD)
    quote = "'" if "'{}'" in template else '"'
    written = mark.replace("\\", "\\\\").replace(quote, "\\" + quote)
    return template.format(written)


def broken(rng: random.Random) -> str:
    """A valid filter with pieces added, removed and swapped."""
    text = marked(rng)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.choice([1, 2, 5]) :]
            case 2:
                text = text[:at] + rng.choice(PIECES) + text[at + 1 :]
            case 3:
                text += rng.choice([" ", " AND ", " OR ", ""]) + rng.choice(GOOD).format("x")
    return text


def test_only_filters_are_compiled_and_all_else_is_refused(view: View) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    refused = 0
    for case in range(CASES):
        text = broken(rng)
        try:
            compile_statement(
                view.select([view.dataset.key], compile_filter(parse_filter(text), view))
            )
        except QueryError as error:
            assert "\x00" not in str(error)
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {SEED}, case {case}: {text!r}") from error
    assert CASES / 4 < refused < CASES


def test_no_literal_is_in_the_text_of_sql(view: View) -> None:
    rng = random.Random(SEED)
    key = view.dataset.key
    for _ in range(300):
        text = marked(rng)
        statement = compile_statement(view.select([key], compile_filter(parse_filter(text), view)))
        export = ExportQuery(view, [view.key_column], filter=text, order_by="")
        copied, settings = export.copy(10)
        for sql, values in (
            (statement.text, list(map(str, statement.arguments()))),
            (copied, list(settings.values())),
        ):
            assert "Mark" not in sql, text
            assert any("Mark" in value for value in values), text


def answers(hub: RunningHub, texts: Iterator[str]) -> Iterator[tuple[str, int, str]]:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            continue  # no URL can express that
        reply = hub.get("/v1/customers", "crm", filter=text, page_size=1)
        yield text, reply.status, "" if reply.status == 200 else reply.reason


def test_no_filter_is_an_internal_error(hub: RunningHub) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    found = list(answers(hub, (broken(rng) for _ in range(CALLS))))
    for text, status, reason in found:
        fine = [(200, ""), (400, "FILTER_INVALID"), (400, "FIELD_UNKNOWN")]
        if "\0" in text:  # refused by the server before anything parses it as a filter
            fine = [(400, "VALUE_INVALID")]
        assert (status, reason) in fine, f"seed {SEED}: {text!r} {status} {reason}"
    assert len({status for _, status, _ in found}) == 2


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("(" * 32 + "name = a" + ")" * 32, 200),
        ("(" * 33 + "name = a" + ")" * 33, 400),
        ("NOT (" * 32 + "name = a" + ")" * 32, 200),
        ("(" * 4000, 400),
        ('name = "' + "x" * (4096 - 9) + '"', 200),
        ('name = "' + "x" * (4096 - 8) + '"', 400),
        ('name = "' + "é" * 2043 + '"', 200),
        ('name = "' + "é" * 2044 + '"', 400),
        (" OR ".join(["name:a"] * 100), 200),
        (" OR ".join(["name:a"] * 101), 400),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_the_limits_hold_at_the_door(hub: RunningHub, text: str, status: int) -> None:
    for path in ("/v1/customers", "/v1/customers:export", "/v1/customers:exportPage"):
        reply = hub.get(path, "crm", filter=text)
        assert reply.status == status, reply.text
        if status == 400:
            assert reply.reason == "FILTER_INVALID"
