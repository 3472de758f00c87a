"""Every option of the vocabulary has an effect wherever it can be written, or is refused by name.

The options are read from the descriptor of ``options.proto``. The places are all kinds of fields at
the top of a record, in a message within it, and in a repeated message and a map.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    text_format,
    wrappers_pb2,
)

from penstock.options.v1 import options_pb2
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.catalog.model import VALUE_MESSAGES, ModelError
from worlds import COMMON, HEAD, compiled

#: A value of each option that has an effect.
VALUES = {
    "class": "class: SENSITIVE",
    "key": "key: true",
    "output_only": "output_only: true",
    "decimal": "decimal: {precision: 5, scale: 2}",
    "date": "date: true",
    "indexed": "indexed: true",
    "unique": "unique: true",
    "reference": 'reference: {dataset: "probes", as: "other"}',
}
FIELDS = {
    "key_field": "string {} = 1 [{}]",
    "text": "string {} = 2 [{}]",
    "optional_text": "optional string {} = 3 [{}]",
    "number": "int64 {} = 4 [{}]",
    "moment": "google.protobuf.Timestamp {} = 5 [{}]",
    "texts": "repeated string {} = 6 [{}]",
    "text_map": "map<string, string> {} = 7 [{}]",
    "message": "{scope}Inner {} = 8 [{}]",
    "messages": "repeated {scope}Inner {} = 9 [{}]",
    "message_map": "map<string, {scope}Inner> {} = 10 [{}]",
}
SCOPES = ("Probe", "Nested", "Element", "Value", "Unused")


def model(at: tuple[str, str] | None, option: str) -> str:
    """The model with one option at one place; without an option, the model to compare with."""
    parts = []
    for scope in SCOPES:
        lines = []
        for name, shape in FIELDS.items():
            if name == "key_field" and scope != "Probe":
                continue
            given = [f"(penstock.options.v1.field) = {{{option}}}"] if at == (scope, name) else []
            if name == "key_field":
                known = "key: true" + (f", {option}" if given and "key" not in option else "")
                given = [f"(penstock.options.v1.field) = {{{known}}}"]
            shown = shape.replace("{scope}", scope).format(name, ", ".join(given))
            lines.append("  " + shown.replace(" []", "") + ";")
        marked = scope == "Probe"
        head = f"message {scope} {{" + (
            ' option (penstock.options.v1.dataset) = {title: "Probes"};' if marked else ""
        )
        more = (
            "  Nested nested = 20; repeated Element elements = 21; map<string, Value> values = 22;"
        )
        end = COMMON if marked else "}"
        parts += [f"message {scope}Inner {{ string inner_text = 1; }}", head, *lines]
        parts += [more if marked else "", end]
    return HEAD + "\n".join(parts)


class Plain:
    """The model without options, compiled once. A place gets an option in the descriptors, as the
    compiler would add it, since there are hundreds of places."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.told = told(compiled(folder, model(None, "")))
        self._set = (folder / "set.binpb").read_bytes()

    def with_option(self, scope: str, name: str, option: str) -> Catalog:
        files = descriptor_pb2.FileDescriptorSet.FromString(self._set)
        file = next(f for f in files.file if f.name == "penstock/model/v1/probes.proto")
        message = next(m for m in file.message_type if m.name == scope)
        field = next(f for f in message.field if f.name == name)
        extension: Any = options_pb2.field
        text_format.Merge(option, field.options.Extensions[extension])
        target = self._folder / "with_option.binpb"
        target.write_bytes(files.SerializeToString())
        return load_catalog(target)


def told(catalog: Catalog) -> list[Any]:
    """Everything that the hub knows about the fields."""
    names = (
        *("path", "kind", "field_class", "nullable", "in_key", "output_only", "precision", "scale"),
        *("indexed", "unique"),
    )
    return [
        (
            *(getattr(f, n) for n in names),
            f.element and f.element.kind,
            f.element and f.element.field_class,
            f.reference,
        )
        for f in catalog["probes"].every_field
    ]


def places() -> Iterator[tuple[str, str, str]]:
    for option, scope, name in itertools.product(VALUES, SCOPES, FIELDS):
        if name != "key_field" or scope == "Probe":
            yield option, scope, name


def test_the_values_are_of_all_options() -> None:
    assert VALUES.keys() == {fd.name for fd in options_pb2.FieldOptions.DESCRIPTOR.fields}


def test_every_option_has_an_effect_or_is_refused(tmp_path: Path) -> None:
    plain = Plain(tmp_path)
    by_text = told(compiled(tmp_path, model(("Nested", "text"), VALUES["class"])))
    assert told(plain.with_option("Nested", "text", VALUES["class"])) == by_text
    effective, refused = set(), set()
    for option, scope, name in places():
        if (option, name) == ("key", "key_field"):
            continue  # every one of them has it
        try:
            found = told(plain.with_option(scope, name, VALUES[option]))
        except ModelError as exc:
            text = str(exc)
            assert name in text, (option, scope, name, text)
            refused.add((option, scope, name))
        else:
            assert found != plain.told, f"{option} on {scope}.{name} has no effect"
            effective.add((option, scope, name))
    assert {o for o, _, _ in effective} == VALUES.keys()
    keys = {(scope, name) for option, scope, name in effective if option == "key"}
    assert keys == {("Probe", "text"), ("Probe", "number")}
    assert {("class", s, n) for s in SCOPES[1:4] for n in ("text", "messages")} <= effective
    assert {("class", "Probe", "key_field"), ("reference", "Element", "text")} <= refused
    assert {("output_only", "Probe", "message"), ("class", "Unused", "text")} <= refused


@pytest.mark.parametrize(
    ("wrong", "right", "reason"),
    [
        (
            "  string text = 2;\n  optional string optional_text = 3;",
            "  string text = 2 [(penstock.options.v1.field).reference = "
            '{dataset: "probes", as: "o"}];\n  optional string optional_text = 3 '
            '[(penstock.options.v1.field).reference = {dataset: "probes", as: "o"}];',
            "has the reference 'o' already",
        ),
        (
            "message ProbeInner { string inner_text = 1; }",
            "message ProbeInner { string inner_text = 1 [(penstock.options.v1.field).class = PII]; "
            "option (penstock.options.v1.dataset) = {}; }",
            "2 do",
        ),
        (
            "  string text = 2;",
            "  string text = 2 [(penstock.options.v1.field).date = false];",
            "leave it out",
        ),
        (
            "  string text = 2;",
            "enum E { NONE = 0; A = 1 [(penstock.options.v1.label) = 'a-b']; } E text = 2; "
            "repeated E several = 31;",
            "an enum with labels cannot stand in a list or map",
        ),
        (
            "  string text = 2;",
            "enum E { NONE = 0; A = 1 [(penstock.options.v1.label) = 'B']; B = 2; } E text = 2;",
            "'B' is another value, too",
        ),
        (
            "  string text = 2;",
            "  string text = 2; message Deep { oneof x { string a = 1; ProbeInner b = 2; } } "
            "Deep deep = 31;",
            "a oneof within a message holds values only",
        ),
        (
            "  string text = 2;",
            "  string text = 2 [(penstock.options.v1.field).decimal = {precision: 0}];",
            "a precision of 1 to 38",
        ),
    ],
)
def test_what_would_be_passed_over_is_refused(
    tmp_path: Path, wrong: str, right: str, reason: str
) -> None:
    text = model(None, "")
    assert wrong in text
    with pytest.raises(ModelError, match=reason):
        compiled(tmp_path, text.replace(wrong, right, 1))


def test_a_class_that_nothing_inherits_is_refused(tmp_path: Path) -> None:
    own = "string inner_text = 1 [(penstock.options.v1.field).class = PII];"
    for name, inherits in (("message", False), ("messages", False), ("message_map", True)):
        text = model(("Probe", name), "class: PUBLIC")
        text = text.replace("string inner_text = 1;", own, 1)
        if inherits:
            compiled(tmp_path, text)  # the keys of the map do
            continue
        with pytest.raises(ModelError, match="every field in the message has a class of its own"):
            compiled(tmp_path, text)


def test_a_scale_of_zero_is_none(tmp_path: Path) -> None:
    for option, expected in (
        ("decimal: {precision: 20, scale: 0}", (20, 0)),
        ("decimal: {precision: 6}", (6, 6)),
        ("decimal: {}", (38, 9)),
    ):
        field = compiled(tmp_path, model(("Probe", "text"), option))["probes"].by_path["text"]
        assert (field.precision, field.scale) == expected


#: Places where a message of protobuf's library can occur.
PLACES = {
    "the record": "{0} odd = 30;",
    "a message": "message Nest {{ {0} odd = 1; }} Nest nest = 30;",
    "a list": "repeated {0} odd = 30;",
    "an element": "message Part {{ {0} odd = 1; }} repeated Part parts = 30;",
    "a map": "map<string, {0}> odd = 30;",
    "a map's element": "message Part {{ {0} odd = 1; }} map<string, Part> parts = 30;",
}
#: Those of one value, where a Struct may stand.
SINGLE = ("the record", "a message")
LIBRARY = (wrappers_pb2, struct_pb2, duration_pb2, any_pb2, empty_pb2, field_mask_pb2)


@pytest.mark.parametrize("place", PLACES)
def test_messages_of_the_library_are_values_or_refused(tmp_path: Path, place: str) -> None:
    """Walks every message, so that none is accepted by oversight."""
    names = [m.full_name for f in LIBRARY for m in f.DESCRIPTOR.message_types_by_name.values()]
    assert {"google.protobuf.Duration", "google.protobuf.StringValue"} <= set(names)
    needed = [f.DESCRIPTOR.name for f in LIBRARY if f.DESCRIPTOR.name not in HEAD]
    imports = "".join(f'import "{name}";\n' for name in needed)
    own = "string key = 1 [(penstock.options.v1.field).key = true];"
    for name in [*names, "google.protobuf.NullValue", *VALUE_MESSAGES]:
        more = f"{own} {PLACES[place].format(name)}"
        text = HEAD.replace("import", imports + "import", 1)
        text += f"message Probe {{ option (penstock.options.v1.dataset) = {{}}; {more}" + COMMON
        if name == "google.protobuf.Struct" and place not in SINGLE:
            with pytest.raises(ModelError, match=f"{name} cannot stand in a list or map"):
                compiled(tmp_path, text)
            continue
        if name in VALUE_MESSAGES:
            assert compiled(tmp_path, text)["probes"]
            continue
        with pytest.raises(ModelError, match=f"a dataset cannot hold {name}"):
            compiled(tmp_path, text)


def test_every_path_has_a_column_of_its_own(tmp_path: Path) -> None:
    long = "a" * 70
    names = [*("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"), f"{long}x", f"{long}y"]
    fields = "".join(f"string {name} = {i};" for i, name in enumerate(names, 2))
    own = "string key = 1 [(penstock.options.v1.field).key = true];"
    text = f"message Probe {{ option (penstock.options.v1.dataset) = {{}}; {own}{fields}" + COMMON
    found = compiled(tmp_path, HEAD + text)["probes"].fields
    columns = [f.column for f in found]
    assert len(set(columns)) == len(columns) and max(map(len, columns)) <= 63
    assert not {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"} & set(columns)
    assert [f.column for f in found if f.path == "source_id"] == ["source_id"]


@pytest.mark.parametrize("name", ["HasField", "SerializeToString", "DESCRIPTOR", "__class__"])
def test_a_name_that_hides_what_messages_have_is_refused(tmp_path: Path, name: str) -> None:
    text = model(None, "")
    assert "string text = 2;" in text
    with pytest.raises(ModelError, match=f"{name}: every message in Python"):
        compiled(tmp_path, text.replace("string text = 2;", f"string {name} = 2;", 1))
