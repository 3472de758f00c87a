"""Merge patches of JSON data, and how bodies become such patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstockd.catalog import Dataset
from penstockd.catalog.merging import MergePatch, merge_json
from penstockd.catalog.scalars import ValueRefused
from penstockd.catalog.values import json_parser
from worlds import COMMON, HEAD, compiled

#: The cases of RFC 7396, appendix A: the original, the patch, the result.
RFC: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

MODEL = """
message Probe {
  option (penstock.options.v1.dataset) = {title: "Probes"};
  message Deep { string mail = 1; }
  message Inner {
    string long_name = 1;
    optional int64 count = 2;
    oneof way { string mail = 3; int32 phone = 4; Deep within = 5; }
    map<int32, Inner> by_number = 6;
    repeated string tags = 7;
  }
  string probe_id = 1 [(penstock.options.v1.field).key = true];
  map<bool, Inner> parts = 2;
  map<string, string> words = 3;
  google.protobuf.Struct facts = 4;
"""


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("merging")
    return compiled(folder, HEAD + MODEL + COMMON)["probes"]


def patch_of(dataset: Dataset, path: str, value: Any) -> MergePatch:
    field = dataset.by_path[path]
    return MergePatch.of(field, value, json_parser(field))


@pytest.mark.parametrize(("target", "patch", "result"), RFC)
def test_the_cases_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_json(target, patch) == result


def test_a_merge_leaves_what_it_merges_as_it_was() -> None:
    target, patch = {"a": {"b": 1, "c": [1]}}, {"a": {"b": None, "d": {"e": 1}}}
    assert merge_json(target, patch) == {"a": {"c": [1], "d": {"e": 1}}}
    assert target == {"a": {"b": 1, "c": [1]}} and patch == {"a": {"b": None, "d": {"e": 1}}}


def test_messages_keep_what_is_absent(probes: Dataset) -> None:
    first = patch_of(
        probes, "parts", {"true": {"long_name": "n", "mail": "m", "count": 5}}
    ).merged()
    whole = {"longName": "n", "count": "5", "mail": "m", "byNumber": {}, "tags": []}
    assert first == {"true": whole}
    for given, changed in (
        ({"tags": ["t"]}, {"tags": ["t"]}),
        ({"longName": None}, {"longName": ""}),
        ({"by_number": {"007": {"count": "1"}}},
         {"byNumber": {"7": {"longName": "", "count": "1", "byNumber": {}, "tags": []}}}),
    ):  # fmt: skip
        assert patch_of(probes, "parts", {"true": given}).merged(first) == {"true": whole | changed}
    no_count = {k: v for k, v in whole.items() if k != "count"}
    assert patch_of(probes, "parts", {"true": {"count": None}}).merged(first) == {"true": no_count}
    assert patch_of(probes, "parts", {"true": None, "false": {}}).merged(first) == {
        "false": {"longName": "", "byNumber": {}, "tags": []}
    }


def test_a_member_of_a_oneof_removes_the_others(probes: Dataset) -> None:
    held = patch_of(probes, "parts", {"true": {"mail": "m"}}).merged()
    for given in ({"phone": 1}, {"phone": 1, "mail": None}):
        found = patch_of(probes, "parts", {"true": given}).merged(held)["true"]
        assert found["phone"] == 1 and "mail" not in found
    within = patch_of(probes, "parts", {"true": {"within": {"mail": "x"}}}).merged(held)["true"]
    assert within["within"]["mail"] == "x" and "mail" not in within
    none = patch_of(probes, "parts", {"true": {"phone": None}}).merged(held)["true"]
    assert none["mail"] == "m", "what is not set unsets nothing"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("parts", {"yes": {}}, "at key: "),
        ("parts", {"true": {"x": None}}, "at ['true']: has the unknown member 'x'"),
        ("parts", {"true": {"long_name": "a", "longName": None}}, "the member 'longName' twice"),
        ("parts", {"true": {"mail": "m", "phone": 0}}, "several of its members are set"),
        ("parts", {"true": {"by_number": {"1": {}, "01": None}}}, "has a key twice"),
        ("parts", {"true": {"by_number": {"x": None}}}, "at ['true'].byNumber: key: "),
        ("parts", {"true": {"tags": {}}}, "must be an array"),
        ("parts", {"true": "x"}, "must be an object"),
        ("words", {"a": {"b": None}}, "must be a string"),
        ("words", {"a": 1}, "must be a string"),
        ("facts", {"n": 2**53}, ""),
    ],
)  # fmt: skip
def test_what_is_refused(probes: Dataset, path: str, value: Any, reason: str) -> None:
    with pytest.raises(ValueRefused) as refused:
        patch_of(probes, path, value).merged()
    assert reason in refused.value.reason, refused.value.reason
