"""Rules in plain Python and in the kernel give the same results as the protovalidate library."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from chance import SEED
from penstockd.catalog import Catalog, Dataset, ModelError
from penstockd.catalog.load import load_catalog
from penstockd.catalog.patterns import Pattern, PatternError
from penstockd.catalog.record import Codec
from penstockd.catalog.rules import RowRules, Rules
from penstockd.demo import DATASETS, generate_records
from penstockd.formats import open_reader
from penstockd.native.records import RecordReader
from penstockd.resources import find_descriptors
from penstockd.store.rows import stored_row

PROTOS = Path(__file__).parents[3] / "protos"
ROWS = int(os.environ.get("PENSTOCK_FUZZ_ROWS", "4000"))
TIME = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)

HEAD = """
syntax = "proto3";
package penstock.model.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "penstock/options/v1/options.proto";
"""
TAIL = """
  string source = 90;
  string source_id = 91;
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field).output_only = true];
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field).output_only = true];
  string etag = 94 [(penstock.options.v1.field).output_only = true];
}
"""
WIDGETS = (
    """
message Widget {
  option (penstock.options.v1.dataset) = {title: "Widgets"};
  enum Color { COLOR_UNSPECIFIED = 0; RED = 1; GREEN = 2; BLUE = 3; }
  message Place {
    string city = 1 [(buf.validate.field).string = {min_len: 2 max_len: 5}];
    optional string code = 2 [(buf.validate.field).required = true];
    string land = 3 [(buf.validate.field) = {
      string: {pattern: "^[A-Z]{2}$"} ignore: IGNORE_IF_ZERO_VALUE
    }];
  }
  message Part {
    string name = 1 [(buf.validate.field).string.min_len = 1];
    int64 amount = 2 [(buf.validate.field).int64 = {gte: 0 lt: 10}];
    optional double weight = 3 [(buf.validate.field).double = {gt: 0}];
    Color color = 4 [(buf.validate.field).enum = {not_in: [3]}];
    repeated string words = 5 [(buf.validate.field).repeated = {
      max_items: 2 items: {string: {max_len: 3}}
    }];
  }
  string widget_id = 1 [(penstock.options.v1.field).key = true];
  string title = 2 [(buf.validate.field).string = {min_len: 1 max_len: 6}];
  optional string email = 3 [(buf.validate.field).string.email = true];
  string code = 4 [(buf.validate.field).string = {pattern: "^[A-Z]{2,3}-?[0-9]+$"}];
  optional string tag = 5 [(buf.validate.field).string = {in: ["a", "bb"]}];
  optional string word = 6 [(buf.validate.field).string = {
    prefix: "a" suffix: "z" contains: "m" not_contains: "q"
  }];
  string size = 7 [(buf.validate.field).string = {max_bytes: 4}];
  int32 small = 8 [(buf.validate.field).int32 = {gte: -2 lte: 5}];
  optional int64 large = 9 [(buf.validate.field).int64 = {gt: 5 lt: 2}];
  uint32 count = 10 [(buf.validate.field) = {uint32: {in: [2, 4]} ignore: IGNORE_IF_ZERO_VALUE}];
  uint64 huge = 11 [(buf.validate.field).uint64 = {gte: 3}];
  double ratio = 12 [(buf.validate.field).double = {gte: -1 lte: 1.5}];
  optional float single = 13 [(buf.validate.field).float = {gt: 0 finite: true}];
  Color color = 14 [(buf.validate.field).enum = {in: [0, 1, 2]}];
  bool flag = 15 [(buf.validate.field).bool.const = true];
  optional string price = 16 [
    (penstock.options.v1.field).decimal = {precision: 18, scale: 4},
    (buf.validate.field).cel = {
      id: "not_negative" message: "must not be negative" expression: "!this.startsWith('-')"
    }
  ];
  optional string day = 17 [
    (penstock.options.v1.field).date = true,
    (buf.validate.field).string.prefix = "20"
  ];
  google.protobuf.Timestamp seen = 18 [(buf.validate.field).required = true];
  Place place = 19;
  repeated string labels = 20 [(buf.validate.field).repeated = {
    min_items: 1 max_items: 3 items: {string: {max_len: 4}}
  }];
  repeated int64 numbers = 21 [(buf.validate.field).repeated.items.int64.lt = 100];
  repeated Part parts = 22 [(buf.validate.field).repeated.max_items = 2];
  map<string, string> words = 23 [(buf.validate.field).map = {
    min_pairs: 0 max_pairs: 2 keys: {string: {max_len: 2}} values: {string: {min_len: 1}}
  }];
  string must = 24 [(buf.validate.field).required = true];
"""
    + TAIL
)
TEXTS = [
    *("", "a", "ab", "bb", "abc", "abcdef", "abcdefg", "amz", "aqmz", "é", "éé", "ééé", "日本語"),
    *(
        "AB-1",
        "AB1",
        "ABC-99",
        "A-1",
        "AB-",
        "AB-1\n",
        "AB-\u0661",
        "DE",
        "de",
        "XX\n",
        "👩‍👧",
        "\u2028",
    ),
]
EMAILS = [
    *("a@b", "a@b.c", "first.last+tag@sub.example.com", "a@-b.c", "a@b-.c", "a@b..c", "@b", "a@"),
    *("a@b.c.", "a b@c", "ü@b.c", "a@ü.c", "a@" + "x" * 63, "a@" + "x" * 64 + ".c", "a@@b", ""),
    *("!#$%&'*+/=?^_`{|}~-@example.org", "a@b_c.d", "a@1.2", "a\n@b.c", "a@b.c\n"),
]


def compiled(folder: Path, name: str, text: str) -> Catalog:
    source = folder / "penstock" / "model" / "v1" / f"{name}.proto"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(HEAD + text)
    target = folder / f"{name}.binpb"
    roots = [f"-I{folder}", f"-I{PROTOS}", f"-I{PROTOS / 'vendor'}"]
    options = ["--include_imports", f"--descriptor_set_out={target}", str(source)]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *roots, *options], check=True)
    return load_catalog(target)


@pytest.fixture(scope="module")
def widgets(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return compiled(tmp_path_factory.mktemp("rules"), "widgets", WIDGETS)["widgets"]


def random_value(draw: random.Random) -> Callable[[Any], Any]:
    """A canonical value of a field, usually near the limits of the rules."""

    def text() -> str:
        return draw.choice(TEXTS)

    def whole() -> int:
        return draw.choice([-3, -2, 0, 1, 2, 3, 4, 5, 6, 9, 10, 99, 100])

    def part() -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": text(),
            "amount": str(whole()),
            "color": draw.choice(["RED", "BLUE"]),
        }
        found["words"] = [text() for _ in range(draw.randrange(4))]
        if draw.random() < 0.5:
            found["weight"] = draw.choice([0.0, -1.0, 0.5])
        return found

    values: dict[str, Callable[[], Any]] = {
        "widget_id": lambda: f"w{draw.randrange(10**9)}",
        "email": lambda: draw.choice(EMAILS),
        "small": whole,
        "large": whole,
        "count": lambda: draw.choice([0, 1, 2, 3, 4]),
        "huge": lambda: draw.choice([0, 2, 3, 2**64 - 1]),
        "ratio": lambda: draw.choice([-1.0, -1.5, 0.0, -0.0, 1.5, 1.6, float("nan"), 1e300]),
        "single": lambda: draw.choice([0.0, 0.5, -0.5, float("inf"), float("nan")]),
        "color": lambda: draw.choice(["COLOR_UNSPECIFIED", "RED", "GREEN", "BLUE"]),
        "flag": lambda: draw.random() < 0.5,
        "price": lambda: Decimal(draw.choice(["0", "1.50", "-1.5", "-0.0001"])),
        "day": lambda: dt.date(draw.choice([1999, 2024]), 2, 28),
        "seen": lambda: TIME,
        "labels": lambda: [text() for _ in range(draw.randrange(5))],
        "numbers": lambda: [str(whole()) for _ in range(draw.randrange(3))],
        "parts": lambda: [part() for _ in range(draw.randrange(4))],
        "words": lambda: {text(): text() for _ in range(draw.randrange(4))},
    }

    def value(field: Any) -> Any:
        if field.nullable and draw.random() < 0.3:
            return None
        return values.get(field.path, text)()

    return value


def rows_of(dataset: Dataset, draw: random.Random, count: int) -> list[list[Any]]:
    """Rows of all writable fields. A nested message is present with everything that it requires."""
    fields = [f for f in dataset.fields if not f.output_only]
    value = random_value(draw)
    found = []
    for _ in range(count):
        row = [value(f) for f in fields]
        place = [i for i, f in enumerate(fields) if f.path.startswith("place.")]
        if draw.random() < 0.3:
            for i in place:
                row[i] = None
        elif any(row[i] is not None for i in place):
            for i in place:
                if row[i] is None and not fields[i].presence:
                    row[i] = ""
        found.append(row)
    return found


def test_plain_checks_and_the_library_agree(widgets: Dataset) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    rules = Rules.of(widgets)
    assert rules.any and not rules.slow
    fields = tuple(f for f in widgets.fields if not f.output_only)
    rows = rows_of(widgets, random.Random(SEED), ROWS)
    found = RowRules(widgets, fields).problems(rows)
    codec, paths = Codec(widgets, fields), [f.path for f in fields]
    said: set[str] = set()
    for index, row in enumerate(rows):
        message = codec.message(stored_row(fields, list(row)))
        expected = sorted(rules.message(message, paths))
        assert sorted(found.get(index, [])) == expected, row
        said.update(p.description for p in expected)
    # A comparison of two empty results would succeed, too.
    assert len(said) > 30, sorted(said)


def test_of_a_part_of_the_fields_only_these_are_judged(widgets: Dataset) -> None:
    fields = tuple(widgets.by_path[p] for p in ("widget_id", "title", "place.city"))
    row = ["w", "", "x"]
    found = RowRules(widgets, fields).problems([row, ["w", "good", None]])
    assert {p.path for p in found[0]} == {"title", "place.city"} and list(found) == [0]
    message = Codec(widgets, fields).message(row)
    judged = Rules.of(widgets).message(message, [f.path for f in fields])
    assert sorted(judged) == sorted(found[0])
    lacking = {p.path for p in Rules.of(widgets).lacking(fields)}
    assert lacking == {"code", "huge", "flag", "seen", "labels", "must"}


@pytest.fixture(scope="module")
def gadgets(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Widgets without the fields whose rules the kernel does not know."""
    text = WIDGETS.replace("Widget", "Gadget").replace("widget_id", "gadget_id")
    text = text.replace('string.prefix = "20"', "string.min_len = 10")
    for name in ("tag", "word", "large", "count", "huge", "single", "flag"):
        text, count = re.subn(
            rf"(?m)^  (optional )?\w+ {name} = \d+ \[.*?\];\n", "", text, flags=re.S
        )
        assert count == 1, name
    return compiled(tmp_path_factory.mktemp("gadgets"), "gadgets", text)["gadgets"]


def test_the_kernel_takes_only_what_is_right(gadgets: Dataset) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    fields = tuple(f for f in gadgets.fields if not f.output_only)
    rows = rows_of(gadgets, random.Random(SEED), ROWS)
    usual = {
        "title": "abc", "email": "a@b.c", "code": "AB-1", "size": "é", "small": 3, "ratio": 0.5,
        "color": "RED", "price": Decimal("1.50"), "day": dt.date(2024, 2, 29), "seen": TIME,
        "place.city": "日本", "place.code": "", "place.land": "DE", "labels": ["ab"], "numbers": [],
        "parts": [], "words": {}, "must": "x", "source": "s", "source_id": "1",
    }  # fmt: skip
    value = random_value(random.Random(SEED))
    for at, field in enumerate(fields):
        if field.key:
            continue
        for i in range(60):  # every value is valid, except one
            row = [usual.get(f.path, f"g{at}-{i}") for f in fields]
            row[at] = value(field)
            if row[at] is not None or field.presence:
                rows.append(row)
    codec = Codec(gadgets, fields)
    records = [codec.message(stored_row(fields, list(row))) for row in rows]
    fresh, left = RecordReader(gadgets, fields).read(records, TIME, 1, lambda places: [])
    bad = set(RowRules(gadgets, fields).problems(rows))
    assert not set(fresh.numbers) & bad
    assert sorted([*fresh.numbers, *left]) == list(range(len(rows)))
    good = len(rows) - len(bad)
    # Numbers, parts and words are left if there are any; a float may be spelled in another way.
    assert len(fresh) > 500 and len(fresh) > good * 0.7, (len(fresh), good)


@pytest.mark.parametrize("name", DATASETS)
def test_the_demo_meets_the_rules_natively_and_as_the_library_sees_it(name: str) -> None:
    dataset = load_catalog(find_descriptors())[name]
    rules = Rules.of(dataset)
    assert rules.any and not rules.slow, "our own rules have plain forms"
    source = open_reader("CSV", dataset, dataset.fields)
    source.write_as(TIME, 1)
    batches = [b for c in generate_records(name, 300) for b in source.feed(c)] + list(
        source.close()
    )
    rows = [r for b in batches if b.fresh for r in b.fresh.decode(range(len(b.fresh)))]
    left = [r for b in batches for r in b.rows]
    assert len(rows + left) >= 50
    assert not RowRules(dataset, source.fields).problems(rows + left)
    codec, paths = Codec(dataset, source.fields), [f.path for f in source.fields]
    for row in rows[:200]:
        message = codec.message(stored_row(source.fields, list(row)))
        assert rules.message(message, paths) == []
    if name not in ("orders", "products"):  # their lines and attributes are not for the kernel
        assert not left, "rules do not slow the demo down"


def csv_of(fields: list[str], *rows: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([fields, *rows])
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("email", "a@b.c", "a@b..c"),
        ("currency_code", "EUR", "Eur"),
        ("currency_code", "", "EURO"),
        ("credit_limit", "0.50", "-0.50"),
        ("name", "é" * 500, "é" * 501),
        ("tags", '["' + "é" * 200 + '"]', '["' + "é" * 201 + '"]'),
        ("tags", "[" + ",".join(['"a"'] * 1000) + "]", "[" + ",".join(['"a"'] * 1001) + "]"),
        ("billing_address.country_code", "DE", "D1"),
    ],
)
def test_the_kernel_knows_the_limits(column: str, good: str, bad: str) -> None:
    dataset = load_catalog(find_descriptors())["customers"]
    source = open_reader("CSV", dataset, dataset.fields)
    source.write_as(TIME, 1)
    named = ["name"] if column == "name" else ["name", column]  # customers must have a name
    rest = [] if column == "name" else ["n"]
    data = csv_of(["customer_id", *named], ["a", *rest, good], ["b", *rest, bad])
    batches = list(source.feed(data)) + list(source.close())
    assert [n for b in batches if b.fresh for n in b.fresh.numbers] == [1]
    rows = [row for b in batches for row in b.rows]
    problems = RowRules(dataset, source.fields).problems(rows)
    assert [p.path.partition("[")[0] for p in problems[0]] == [column]


def test_a_rule_without_a_plain_form_is_judged_by_the_library(tmp_path: Path) -> None:
    text = (
        """
message Note {
  option (penstock.options.v1.dataset) = {title: "Notes"};
  option (buf.validate.message).cel = {
    id: "either" message: "needs a text or a link" expression: "has(this.text) || has(this.link)"
  };
  string note_id = 1 [(penstock.options.v1.field).key = true];
  optional string text = 2;
  optional string link = 3 [(buf.validate.field).string.uri = true];
"""
        + TAIL
    )
    dataset = compiled(tmp_path, "notes", text)["notes"]
    rules = Rules.of(dataset)
    assert rules.slow and rules.over_several
    fields = tuple(f for f in dataset.fields if not f.output_only)
    rows = [["1", "t", None, "", ""], ["2", None, None, "", ""], ["3", None, "no link", "", ""]]
    found = RowRules(dataset, fields).problems(rows)
    assert found == {
        1: [("", "needs a text or a link")],
        2: [("link", "must be a valid URI")],
    }
    source = open_reader("CSV", dataset, dataset.fields)
    source.write_as(TIME, 1)
    batches = [*source.feed(b"note_id,text\n1,t\n"), *source.close()]
    assert [len(b.rows) for b in batches] == [1], "nothing is taken unjudged"


def tree(folder: Path, rule: str) -> Dataset:
    """A dataset of messages that contain themselves, and messages in maps within them."""
    text = (
        """
message Tree {
  option (penstock.options.v1.dataset) = {title: "Trees"};
  message Leaf { string name = 1 RULE; }
  message Node {
    string name = 1;
    repeated Node nodes = 2;
    map<string, Leaf> leaves = 3;
  }
  message Twig { map<string, Leaf> leaves = 1; }
  string tree_id = 1 [(penstock.options.v1.field).key = true];
  repeated Node nodes = 2;
  repeated Twig twigs = 3;
  string note = 4 [(buf.validate.field).string.max_len = 9];
"""
        + TAIL
    )
    return compiled(folder, "trees", text.replace("RULE", rule))["trees"]


def test_messages_without_rules_keep_nothing_from_the_fast_way(tmp_path: Path) -> None:
    """Even if they contain themselves."""
    rules = Rules.of(tree(tmp_path, ""))
    assert rules.any and not rules.slow and set(rules.by_path) == {"note"}


@pytest.mark.parametrize("path", ["nodes", "twigs"])
def test_rules_of_messages_in_maps_within_elements_are_judged(tmp_path: Path, path: str) -> None:
    dataset = tree(tmp_path, "[(buf.validate.field).string.max_len = 2]")
    fields = [dataset.key, dataset.by_path[path]]
    rows = [
        [key, [{"leaves": {"a": {"name": name}}}]] for key, name in (("k1", "ab"), ("k2", "abc"))
    ]
    found = RowRules(dataset, fields).problems(rows)
    assert found.keys() == {1}
    assert found[1][0].path.startswith(f"{path}[0].leaves")


def test_a_rule_of_the_wrong_type_is_a_fault_of_the_model(tmp_path: Path) -> None:
    text = (
        """
message Note {
  option (penstock.options.v1.dataset) = {title: "Notes"};
  string note_id = 1 [(penstock.options.v1.field).key = true];
  optional string text = 2 [(buf.validate.field).int32.gte = 2];
"""
        + TAIL
    )
    dataset = compiled(tmp_path, "notes", text)["notes"]
    with pytest.raises(ModelError, match="notes"):
        Rules.of(dataset)


@pytest.mark.parametrize(
    "text", ["a", "^a", "a$", "^(a)$", "^a|b$", "^.$", "^a*a$", "^[ab]*b$", "^\\w$",
             "^[[:alpha:]]$", "^a{2,1}$", "^a*?$", "^a?b?a$", "^\\$"]
)  # fmt: skip
def test_other_expressions_are_left_to_the_library(text: str) -> None:
    with pytest.raises(PatternError):
        Pattern(text)


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ("^[A-Z]{3}$", ["EUR"], ["eur", "EURO", "EUR\n", ""]),
        ("^$", [""], ["a"]),
        ("^a?b*c+$", ["c", "abbc", "bcc"], ["", "ab", "aac"]),
        ("^\\+?[0-9 ]{2,}$", ["+49 1", "12"], ["1", "++1"]),
        ("^[^a-c.]{1,2}\\.$", ["x.", "日本."], ["a.", "xyz."]),
    ],
)
def test_what_a_pattern_matches(text: str, good: list[str], bad: list[str]) -> None:
    pattern = Pattern(text)
    assert all(pattern.matches(t) for t in good) and not any(pattern.matches(t) for t in bad)
