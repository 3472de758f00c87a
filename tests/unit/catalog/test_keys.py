"""Keys as text: each key has one spelling, the same in the hub and its clients."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.client import keys as client_keys
from penstockd.catalog import Dataset
from penstockd.catalog.keys import (
    join_key,
    key_problems,
    key_reader,
    message_key,
    parts_reader,
    split_key,
)
from penstockd.catalog.model import KEY_COLUMN, ModelError
from penstockd.catalog.scalars import ValueRefused
from worlds import COMMON, HEAD, compiled

KEY = "[(penstock.options.v1.field).key = true]"
KINDS = {
    "number": f"sint64 number = 1 {KEY};",
    "text": f"string text = 2 {KEY};",
    "count": f"fixed64 count = 3 {KEY};",
    "short": f"int32 short = 4 {KEY};",
}
VALUES: dict[str, list[Any]] = {
    "number": [-(2**63), -1, 0, 10, 2**63 - 1],
    "text": ["a", "~", "%", "%7E", "~%25~", "%25", "1~2", "ä/?#", "-1"],
    "count": [0, 2**53 + 1, 2**64 - 1],
    "short": [-(2**31), 2**31 - 1],
}


def declare(*fields: str, more: str = "") -> str:
    option = 'option (penstock.options.v1.dataset) = {title: "Probes"};'
    return HEAD + f"message Probe {{ {option} {' '.join(fields)} {more} {COMMON}"


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Dataset]:
    """A dataset for every choice of one to three fields of a key."""
    made = {}
    for count in (1, 2, 3):
        for names in itertools.combinations(KINDS, count):
            folder = tmp_path_factory.mktemp("model")
            made[names] = compiled(folder, declare(*(KINDS[n] for n in names)))["probes"]
    return made


def test_every_key_has_one_spelling(datasets: dict[tuple[str, ...], Dataset]) -> None:
    for names, dataset in datasets.items():
        assert [f.path for f in dataset.key_fields] == list(names)
        assert dataset.joins_key == (names != ("text",))
        assert (dataset.key.path == KEY_COLUMN) == dataset.joins_key
        assert dataset.key_fields[0] in dataset.fields
        seen = set()
        fields = client_keys.find_key_fields(dataset.message_type)
        assert client_keys.joins_key(fields) == dataset.joins_key
        for parts in itertools.product(*(VALUES[n] for n in names)):
            text = join_key(parts)
            assert text not in seen, "two keys never have the same text"
            seen.add(text)
            assert split_key(dataset, text) == list(parts)
            record = dataset.message_class(**dict(zip(names, parts, strict=True)))
            assert message_key(dataset, record) == client_keys.key_of(record, fields) == text
            row = [None, *parts[::-1]]
            order = [dataset.by_path["source"], *reversed(dataset.key_fields)]
            assert key_reader(dataset, order)(row) == text
            assert parts_reader(dataset, order)(row) == parts
            assert key_problems(dataset, parts) == []


@settings(deadline=None)  # a machine under load is slow
@given(st.text(), st.integers(-(2**63), 2**63 - 1), st.text(min_size=1))
def test_parts_never_run_into_each_other(first: str, number: int, last: str) -> None:
    text = join_key([first, number, last])
    assert text.count("~") == 2, "no part has a tilde of its own"
    assert join_key([text, number]) != text


@pytest.mark.parametrize(
    ("names", "spelled"),
    [
        (
            ("number",),
            ("", "+1", "01", "-0", "-01", "1.0", "1e3", " 1", "1 ", "\uff11", "0x1", "1_0"),
        ),
        (("number",), (str(2**63), str(-(2**63) - 1), "9" * 25, "1~1")),
        (("count",), ("-1", str(2**64))),
        (("short",), (str(2**31),)),
        (("number", "text"), ("1", "1~a~b", "a~1", "1~%", "1~%7e", "1~%2", "1~%41", "01~a")),
        (("number", "text", "count"), ("1~a", "1~a~", "~a~1", "1~a~-1")),
    ],
)
def test_other_spellings_are_refused(
    datasets: dict[tuple[str, ...], Dataset], names: tuple[str, ...], spelled: tuple[str, ...]
) -> None:
    for text in spelled:
        with pytest.raises(ValueRefused):
            split_key(datasets[names], text)


def test_what_a_key_may_not_hold(datasets: dict[tuple[str, ...], Dataset]) -> None:
    text, pair = datasets[("text",)], datasets[("number", "text")]
    for value in (".", "..", "a\nb", "\u2028", "", "k" * 513):
        assert [path for path, _ in key_problems(text, [value])] == ["text"], value
    for value in ("a\nb", "\u2028", ""):
        assert [path for path, _ in key_problems(pair, [1, value])] == ["text"], value
    assert key_problems(pair, [1, ".."]) == [], "the whole key is no segment that paths lose"
    assert [path for path, _ in key_problems(pair, [1, "~" * 200])] == ["number"], "600 bytes"


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("bool field = 5 {};", "consists of strings and whole numbers"),
        ("bytes field = 5 {};", "consists of strings and whole numbers"),
        ("double field = 5 {};", "consists of strings and whole numbers"),
        ("google.protobuf.Timestamp field = 5 {};", "consists of strings and whole numbers"),
        ("repeated int64 field = 5 {};", "consists of strings and whole numbers"),
        ("enum E {{ NONE = 0; }} E field = 5 {};", "consists of strings and whole numbers"),
        ("optional int64 field = 5 {};", "none of them optional"),
        ("oneof choice {{ int64 field = 5 {}; }}", "none of them optional"),
        (
            "string field = 5 [(penstock.options.v1.field) = {{key: true, date: true}}];",
            "consists of strings and whole numbers",
        ),
        (
            "int64 field = 5 [(penstock.options.v1.field) = {{key: true, class: PII}}];",
            "it can only be PUBLIC",
        ),
        (
            "int64 field = 5 [(penstock.options.v1.field) = {{key: true, unique: true}}];",
            "a part need not be unique",
        ),
        (
            "int64 field = 5 [(penstock.options.v1.field) = {{key: true, output_only: true}}];",
            "the writer chooses the key",
        ),
        ("string field = 5;", "must be the key"),
    ],
)
def test_models_whose_keys_the_hub_cannot_hold(tmp_path: Path, field: str, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        compiled(tmp_path, declare(field.format(KEY)))


def test_a_record_whose_name_requests_need(tmp_path: Path) -> None:
    text = declare(KINDS["number"]).replace("message Probe", "message Key")
    with pytest.raises(ModelError, match="give the message another name"):
        compiled(tmp_path, text)
    assert compiled(tmp_path, text.replace("sint64", "string"))["probes"].singular == "key"


def test_references_to_keys(tmp_path: Path) -> None:
    refer = '{} other_id = 5 [(penstock.options.v1.field).reference = {{dataset: "probes"}}];'
    for kind, keys, problem in (
        ("sfixed64", ("number",), ""),
        ("string", ("text",), ""),
        ("int32", ("number",), "is INT32, and the key of 'probes', to which it refers, is INT64"),
        ("string", ("number",), "is STRING, and the key of 'probes'"),
        ("int64", ("text",), "is INT64, and the key of 'probes'"),
        ("string", ("number", "text"), "whose key has several parts"),
    ):
        text = declare(*(KINDS[k] for k in keys), more=refer.format(kind))
        if problem:
            with pytest.raises(ModelError, match=problem):
                compiled(tmp_path, text)
        else:
            assert compiled(tmp_path, text)["probes"].references["other"].path == "other_id"
