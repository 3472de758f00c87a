"""Random records, Views and filters over a model with every kind of field, for tests that compare
two ways to the same result."""

from __future__ import annotations

import datetime as dt
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from grpc_tools import protoc

from penstock.options.v1 import options_pb2
from penstockd.catalog import Catalog, Dataset, Field, FieldClass, Kind
from penstockd.catalog import values as canonical
from penstockd.catalog.load import load_catalog
from penstockd.catalog.record import json_ready
from penstockd.policy.model import Action, Grant, Mask
from penstockd.resources import find_descriptors
from penstockd.store.rows import Defaults, stored_row

PROTOS = Path(__file__).parents[1] / "protos"
COMMON = """
  string source = 90;
  string source_id = 91;
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field).output_only = true];
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field).output_only = true];
  string etag = 94 [(penstock.options.v1.field).output_only = true];
}
"""
HEAD = """
syntax = "proto3";
package penstock.model.v1;
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "penstock/options/v1/options.proto";
"""
#: Tests of files omit the lines that end in ``//+``: they cost time and add nothing there.
THINGS = """
message Thing {
  option (penstock.options.v1.dataset) = {title: "Things"};
  enum Color { COLOR_UNSPECIFIED = 0; RED = 1; GREEN = 2; }
  message Deep {
    optional string code = 1;
    optional int64 count = 2;
    repeated int64 levels = 3;  //+
  }
  message Place {
    string line1 = 1 [(penstock.options.v1.field).class = PII];
    optional string line2 = 2;
    Deep deep_part = 3;
    optional Color shade = 4;
    string opened_on = 6 [(penstock.options.v1.field).date = true];  //+
    // Written before a field of a lower number.  //+
    string fee = 9 [(penstock.options.v1.field).decimal = {precision: 9, scale: 2}];  //+
    string keeper_id = 8 [(penstock.options.v1.field).reference = {dataset: "owners"}];  //+
    google.protobuf.Struct facts = 7;
  }
  message Kit {  //+
    string kit_name = 1;  //+
    Origin made_in = 2;  //+
    repeated Mark all_marks = 3;  //+
    int64 amount = 4;  //+
    optional uint64 serial = 5;  //+
    optional bool whole = 6;  //+
    optional bytes raw = 7;  //+
    optional double weight = 8;  //+
    Color color = 9;  //+
    google.protobuf.Timestamp made_on = 10;  //+
    optional string packed_on = 11 [(penstock.options.v1.field).date = true];  //+
    optional string amount_due = 12 [  //+
      (penstock.options.v1.field).decimal = {precision: 9, scale: 2}  //+
    ];  //+
  }  //+
  message Loose {  //+
    optional string note = 1;  //+
    repeated string hints = 2;  //+
    map<string, bool> ways = 3;  //+
  }  //+
  message Origin {  //+
    optional string maker_name = 1 [(penstock.options.v1.field).class = PII];  //+
    optional string town = 2;  //+
  }  //+
  message Mark {  //+
    string label = 1 [(penstock.options.v1.field).class = PUBLIC];  //+
    optional string secret_text = 2 [(penstock.options.v1.field).class = SENSITIVE];  //+
    Deep deep_part = 3;  //+
  }  //+
  message Part {
    string part_name = 1 [(penstock.options.v1.field).class = PII];
    int64 amount = 2;
    optional string unit_price = 3 [(penstock.options.v1.field) = {
      class: SENSITIVE, decimal: { precision: 18, scale: 4 }
    }];
    Origin made_in = 9;  //+
    repeated Mark all_marks = 10;  //+
    map<string, Mark> named_marks = 11;  //+
    Color color = 4;
    repeated Part parts = 5;
    map<string, double> extra_sizes = 6;
    google.protobuf.Timestamp made_at = 7;
    optional bytes blob = 8;
  }
  string thing_id = 1 [(penstock.options.v1.field).key = true];
  string title = 2;
  optional string remark = 3 [(penstock.options.v1.field).class = PII];
  bool flag = 4;
  optional bool maybe = 5;
  int32 small = 6;
  optional int64 large = 7;
  uint32 small_positive = 8;
  optional uint64 large_positive = 9;
  optional float ratio = 10;
  double weight = 11;
  optional bytes raw_data = 12;
  Color color = 13 [(penstock.options.v1.field).class = PUBLIC];
  optional Color other_color = 14;
  optional string price = 15 [(penstock.options.v1.field) = {
    class: SENSITIVE, decimal: {precision: 38, scale: 9}
  }];
  optional string day = 16 [(penstock.options.v1.field).date = true];
  google.protobuf.Timestamp seen_at = 17;
  Place home_place = 18;
  Loose loose = 24;  //+
  google.protobuf.Struct details = 27;
  google.protobuf.Struct private_details = 28 [(penstock.options.v1.field).class = PII];  //+
  repeated string labels = 19;
  repeated int64 numbers = 20;
  repeated Part all_parts = 21;
  map<string, string> words = 22;
  map<string, Part> named_parts = 23;
  repeated Kit all_kits = 25 [(penstock.options.v1.field).class = PUBLIC];  //+
  map<string, Kit> named_kits = 26;  //+
  optional string owner_id = 30 [(penstock.options.v1.field).reference = {dataset: "owners"}];  //+
  optional string parent_id = 31 [(penstock.options.v1.field).reference = {dataset: "things"}];  //+
"""
OWNERS = """
message Owner {
  option (penstock.options.v1.dataset) = {title: "Owners"};
  enum Status { STATUS_UNSPECIFIED = 0; ACTIVE = 1; GONE = 2; }
  string owner_id = 1 [(penstock.options.v1.field).key = true];
  Status status = 2 [(penstock.options.v1.field).class = PUBLIC];
  optional string email = 3 [(penstock.options.v1.field).class = PII];
  repeated string tags = 4;
  string region_id = 5 [(penstock.options.v1.field).reference = {dataset: "regions", as: "area"}];
"""
REGIONS = """
message Region {
  option (penstock.options.v1.dataset) = {title: "Regions"};
  string region_id = 1 [(penstock.options.v1.field).key = true];
  string name = 2;
  optional int32 level = 3;
  bool open = 4;
"""
_MODELS = {"things": THINGS, "owners": OWNERS, "regions": REGIONS}
ROWS = {"things": 60, "owners": 12, "regions": 5}

_TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "abc",
    "é",
    "z@x.org",
    "@",
    "a@b@c",
    "%",
    "a_b",
    "\\",
    "*",
    "😀",
    "x'",
]
_TIMES = [
    dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC),
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 12, 0, 0, 123_456, tzinfo=dt.UTC),
]
_FLOATS = [0.0, -0.0, 1.5, -2.5, math.inf, math.nan]
_POOLS: Mapping[Kind, Sequence[Any]] = {
    Kind.STRING: _TEXTS,
    Kind.BOOL: [True, False],
    Kind.INT32: [0, 1, -1, 2**31 - 1],
    Kind.INT64: [0, 1, -1, 2**53 + 1, -(2**63)],
    Kind.UINT32: [0, 1, 2**32 - 1],
    Kind.UINT64: [0, 1, 2**64 - 1],
    Kind.FLOAT: _FLOATS,
    Kind.DOUBLE: [*_FLOATS, 0.1],
    Kind.BYTES: [b"", b"\x00\xff"],
    Kind.DECIMAL: [Decimal(t) for t in ("0", "0.00", "12.5", "12.50", "-3", "999.99")],
    Kind.DATE: [dt.date(1, 1, 2), dt.date(2024, 2, 29)],
    Kind.TIMESTAMP: _TIMES,
    Kind.STRUCT: [
        {},
        {"k": None},
        {"k": 1, "a b": "1", "x.y": [1, "a", {}], "": {"k": "a"}},
        {"k": "a", "a b": {"k": {"k": True}}},
        {"k": True, "x.y": 0.1, "": ["k"]},
    ],
}
_KEYS = ["k", "a b", "x.y", ""]
_NUMBER_KEYS = [0, 1, -7, 2**31 - 1]
_COMPARATORS = ["=", "!=", "<", "<=", ">", ">="]
_UNORDERED = (Kind.BOOL, Kind.ENUM)


def compiled(folder: Path, text: str, name: str = "probes", *others: str) -> Catalog:
    """The catalog of a model with a dataset of this name, and others of the hub; ``folder`` is for
    the compiler."""
    source = folder / f"penstock/model/v1/{name}.proto"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(text)
    target = folder / "set.binpb"
    known = f"-I{resources.files('grpc_tools') / '_proto'}"
    command = ["protoc", f"-I{folder}", f"-I{PROTOS}", known, "--include_imports"]
    files = [str(source), *(f"penstock/model/v1/{other}.proto" for other in others)]
    vendor = f"-I{PROTOS / 'vendor'}"
    assert protoc.main([*command, vendor, f"--descriptor_set_out={target}", *files]) == 0
    return load_catalog(target)


def catalog_of(folder: Path, *others: Path) -> Catalog:
    """The hub's datasets and three more: things, which refer to owners, in regions; and those of
    other files."""
    models = {name: HEAD + text + COMMON for name, text in _MODELS.items()}
    return _compile(folder, **models, **{other.stem: other.read_text() for other in others})


def plain_things(folder: Path) -> Dataset:
    """Things with every kind of field, which refer to nothing."""
    lines = (line for line in THINGS.splitlines() if not line.endswith("//+"))
    return _compile(folder, things=HEAD + "\n".join(lines) + COMMON)["things"]


def _compile(folder: Path, **models: str) -> Catalog:
    """The hub's datasets and those of the models, which are compiled in the folder."""
    source = folder / "penstock" / "model" / "v1"
    source.mkdir(parents=True)
    for name, text in models.items():
        (source / f"{name}.proto").write_text(text)
    target = folder / "set.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{PROTOS}"]
    files = [str(source / f"{name}.proto") for name in models]
    subprocess.run([*command, f"--descriptor_set_out={target}", *files], check=True)
    # Several sets of files, one after the other, form one set.
    return load_catalog(find_descriptors().read_bytes() + target.read_bytes())


def random_rows(catalog: Catalog, dataset: Dataset, rng: random.Random) -> list[list[Any]]:
    """Full rows of a dataset as in the database; references lead nowhere now and then."""
    defaults, rows = Defaults.of(dataset), []
    for n in range(ROWS.get(dataset.name, 12)):
        present = {f.steps[0]: rng.random() < 0.6 for f in dataset.fields}
        row = [_value(dataset, f, n, rng, there=present[f.steps[0]]) for f in dataset.fields]
        stored_row(dataset.fields, row)
        defaults.complete(row)
        rows.append(row)
    return rows


def _value(dataset: Dataset, field: Field, number: int, rng: random.Random, *, there: bool) -> Any:
    if field.key:
        return f"{dataset.singular}-{number}"
    if field.path == "etag":
        return rng.randrange(3)
    if field.nullable and (not there or rng.random() < 0.3):
        return None
    if field.reference is not None:
        singular = field.reference.dataset.removesuffix("s")
        most = ROWS.get(field.reference.dataset, 12)
        return rng.choice(["", f"{singular}-{rng.randrange(most + most // 4 + 1)}"])
    if field.repeated:
        message = dataset.message_class()
        holder = message
        for step in field.steps[:-1]:
            holder = getattr(holder, step)
        if field.element is not None:
            return canonical.check_value(field, _scalars(field, field.element, rng))
        _fill(holder, field, rng)
        return canonical.check_value(field, json_ready(field, getattr(holder, field.steps[-1])))
    if field.kind is Kind.ENUM:
        return rng.choice(list(field.enum_values or ()))
    return rng.choice(_POOLS[field.kind])


def _scalars(field: Field, element: Field, rng: random.Random) -> Any:
    """Up to three values of a list or map of scalars, as JSON data."""
    pool = list(element.enum_values or ()) or _POOLS[element.kind]
    found = [canonical.to_json(element, v) for v in _some(pool, rng)]
    if field.kind is Kind.LIST:
        return found
    return {str(rng.choice(_keys(field))): value for value in found}


def _some(pool: Sequence[Any], rng: random.Random) -> list[Any]:
    return [rng.choice(pool) for _ in range(rng.choice([0, 0, 1, 2, 3]))]


def _keys(field: Field) -> Sequence[Any]:
    return _KEYS if field.map_key is Kind.STRING else _NUMBER_KEYS


def _fill(holder: Any, field: Field, rng: random.Random) -> None:
    """Fill a repeated field of a message with up to three messages."""
    target = getattr(holder, field.steps[-1])
    for key in _some(_keys(field), rng):
        part = target[key] if field.kind is Kind.MAP else target.add()
        _members(part, rng)


#: The texts of members that are decimals or dates.
_MEMBER_TEXTS: Mapping[str, Sequence[str]] = {
    "decimal": ("0", "12.5"),
    "date": ("2024-02-29", "0033-01-02"),
}
_MEMBER_VALUES: Mapping[int, Sequence[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: [0, 1, 2],
    FieldDescriptor.CPPTYPE_INT64: [0, 1, 2],
    FieldDescriptor.CPPTYPE_UINT32: [0, 2**32 - 1],
    FieldDescriptor.CPPTYPE_UINT64: [0, 2**64 - 1],
    FieldDescriptor.CPPTYPE_BOOL: [False, True],
    FieldDescriptor.CPPTYPE_FLOAT: [0.0, 0.1, -3e30],
    FieldDescriptor.CPPTYPE_DOUBLE: [0.0, -2.5, 1e300],
}


def _members(message: Any, rng: random.Random, depth: int = 0) -> None:
    """Set members to values, including those of nested messages."""
    for fd in message.DESCRIPTOR.fields:
        if rng.random() < 0.4:
            continue
        if fd.is_repeated or fd.message_type is not None:
            _messages(message, fd, rng, depth)
            continue
        if fd.cpp_type == fd.CPPTYPE_STRING and fd.type != fd.TYPE_BYTES:
            setattr(message, fd.name, rng.choice(_member_texts(fd)))
        elif fd.enum_type is not None:
            setattr(message, fd.name, rng.choice(fd.enum_type.values).number)
        elif fd.cpp_type in _MEMBER_VALUES:
            setattr(message, fd.name, rng.choice(_MEMBER_VALUES[fd.cpp_type]))
        elif fd.type == fd.TYPE_BYTES:
            setattr(message, fd.name, rng.choice([b"", b"\0\xff"]))


def _member_texts(fd: FieldDescriptor) -> Sequence[str]:
    options: Any = fd.GetOptions()
    encoding = options.Extensions[options_pb2.field].WhichOneof("encoding")
    return _MEMBER_TEXTS.get(encoding, _TEXTS)


def _messages(message: Any, fd: Any, rng: random.Random, depth: int) -> None:
    of, held = fd.message_type, getattr(message, fd.name)
    if of is not None and of.full_name == "google.protobuf.Timestamp":
        held.FromJsonString(rng.choice(["2024-02-29T12:30:00.000007Z", "0033-01-02T00:00:00Z"]))
        return
    if of is None or depth > 2:
        return
    if not fd.is_repeated:
        held.SetInParent()
        _members(held, rng, depth + 1)
    elif not of.GetOptions().map_entry:
        _members(held.add(), rng, depth + 1)
    elif of.fields_by_name["value"].message_type is not None:
        _members(held[rng.choice(_KEYS)], rng, depth + 1)


# --- rules and filters ------------------------------------------------------------------------


class Asker:
    """Makes expressions over some fields of a dataset; with ``catalog``, also through
    references."""

    def __init__(
        self,
        dataset: Dataset,
        fields: Sequence[Field],
        rng: random.Random,
        catalog: Catalog | None = None,
        claims: Sequence[str] = (),
        members: Callable[[Field], Sequence[Field]] = lambda field: field.members,
    ) -> None:
        self._dataset, self._catalog, self._rng, self._claims = dataset, catalog, rng, claims
        self._members = members
        self._fields = [f for f in fields if f.kind is not Kind.BYTES]

    def expression(self, depth: int = 0) -> str:
        """AIP-160 text."""
        rng = self._rng
        roll = rng.random()
        if depth > 2 or roll < 0.5:
            return self._comparison("", self._dataset, self._fields)
        if roll < 0.65:
            return f"NOT ({self.expression(depth + 1)})"
        parts = [f"({self.expression(depth + 1)})" for _ in range(2)]
        return rng.choice([" AND ", " OR "]).join(parts)

    def _comparison(self, prefix: str, dataset: Dataset, fields: Sequence[Field]) -> str:
        rng = self._rng
        if self._catalog is not None and dataset.references and rng.random() < 0.4:
            alias, via = rng.choice(list(dataset.references.items()))
            assert via.reference is not None
            target = self._catalog[via.reference.dataset]
            there = [f for f in target.fields if f.kind is not Kind.BYTES]
            return self._comparison(f"{prefix}{alias}.", target, there)
        field = rng.choice(fields)
        name = prefix + rng.choice([field.path, field.json_path])
        if field.repeated:
            return self._within(name, field)
        if field.kind is Kind.STRUCT:
            return self._about_struct(name)
        if rng.random() < 0.15:
            return f"{name}:*"
        if self._claims and field.kind is Kind.STRING and rng.random() < 0.4:
            return f"{name} {rng.choice(['=', '!='])} claims.{rng.choice(self._claims)}"
        known = _COMPARATORS[:2] if field.kind in _UNORDERED else _COMPARATORS
        return f"{name} {rng.choice(known)} {self._literal(field)}"

    def _within(self, name: str, field: Field) -> str:
        rng = self._rng
        if rng.random() < 0.2:
            return f"{name}:*"
        key = "" if field.kind is Kind.LIST else "." + _quoted(rng.choice(_KEYS))
        if field.element is not None:
            return f"{name}{key}:{self._literal(field.element)}"
        texts = [m for m in self._members(field) if m.kind is Kind.STRING]
        if not texts:
            return f"{name}:*"
        steps = rng.choice(texts).steps[len(field.steps) :]
        return f"{name}{key}.{'.'.join(steps)}:{self._sought()}"

    def _about_struct(self, name: str) -> str:
        rng = self._rng
        if rng.random() < 0.2:
            return f"{name}:{rng.choice(['*', 'k'])}"
        path = ".".join(_quoted(rng.choice(_KEYS)) for _ in range(rng.choice([1, 1, 2, 3])))
        sought = rng.choice(["1", '"1"', "a", "true", "0.1", '"a*"'])
        known = ["=", "!="] if sought == "true" or "*" in sought else [*_COMPARATORS, ":"]
        return rng.choice([f"{name}.{path} {rng.choice(known)} {sought}", f"{name}.{path}:*"])

    def _sought(self) -> str:
        rng = self._rng
        return rng.choice(['"*"', '"a***"', '"***"', _quoted(rng.choice(_TEXTS))])

    def _literal(self, field: Field) -> str:
        rng = self._rng
        if field.path == "etag":
            return _quoted(str(rng.randrange(3)))
        if field.reference is not None or field.key:
            return _quoted(f"{rng.choice(['owner', 'thing', 'customer'])}-{rng.randrange(5)}")
        if field.kind is Kind.ENUM:
            return rng.choice(list(field.enum_values or ()))
        value = rng.choice(_POOLS[field.kind])
        if field.kind is Kind.STRING and rng.random() < 0.3:
            return rng.choice(['"a*"', '"*c"', '"*@*"', '"a***"'])
        return _quoted(canonical.to_text(field, value))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
    return f'"{escaped}"'


def random_grants(
    catalog: Catalog, dataset: Dataset, rng: random.Random, claims: Sequence[str]
) -> list[Grant]:
    """One to three grants on a dataset, with masks and row rules; most allow reading."""
    asker = Asker(dataset, dataset.fields, rng, catalog, claims)
    every = dataset.every_field
    paths = [f.path for f in every] + [
        ".".join(f.steps[:n]) for f in every for n in range(1, len(f.steps))
    ]
    grants = []
    for n in range(rng.choice([1, 1, 1, 2, 3])):
        masks = {path: _mask(rng) for path in rng.sample(paths, rng.randrange(len(paths) // 2))}
        classes = {c: _mask(rng) for c in FieldClass if rng.random() < 0.9}
        rule = asker.expression() if rng.random() < 0.75 else ""
        actions = frozenset({Action.READ, rng.choice(list(Action))})
        grants.append(Grant(f"role-{n}", dataset.name, actions, classes, masks, rule))
    return grants


def _mask(rng: random.Random) -> Mask:
    masks: list[Mask] = [Mask.CLEAR, Mask.CLEAR, Mask.CLEAR, *Mask]
    return rng.choice(masks)


def random_selection(fields: Sequence[Field], rng: random.Random) -> str:
    """A selection of fields, by leaves and by messages; often all fields."""
    if rng.random() < 0.4 or not fields:
        return ""
    names = [f.path for f in fields] + [f.steps[0] for f in fields]
    return ",".join(dict.fromkeys(rng.sample(names, min(len(names), rng.choice([1, 2, 5])))))


def cases(seed: int, count: int) -> Iterator[tuple[int, random.Random]]:
    """Numbered cases, each with its own source of randomness, so that one can be repeated alone."""
    for case in range(count):
        yield case, random.Random(f"{seed}/{case}")
