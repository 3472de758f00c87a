"""The path of a REST call is compared with the message, for every method that REST reaches."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from penstockd.errors import RequestMalformed, ValueInvalid
from penstockd.installation import read_catalog
from penstockd.rpc.bindings import PATH, VERB, Bindings, http_rules, same_segments, segment_pattern

#: Texts that a path may contain in one segment, once they are encoded.
TEXTS = ["c1", "a/b", "a%2Fb", "%41", "ä b", "a:pause", "a:b", "100%", "+", "..%2f", "'\"&=?#"]


def reached() -> Iterator[tuple[MethodDescriptor, str, str, list[str]]]:
    """Every REST binding of every service: method, verb, template and its fields."""
    for service in services():
        for method in service.methods:
            for verb, template in http_rules(method):
                parts = [p.partition("}")[0] for p in template.split("{")[1:]]
                yield method, verb, template, [p.partition("=")[0] for p in parts]


def services() -> Iterator[Any]:
    catalog = read_catalog()
    for dataset in catalog:
        name = "".join(part.capitalize() for part in dataset.name.split("_"))
        yield catalog.pool.FindServiceByName(f"penstock.api.v1.{name}")
    hub = catalog.pool.FindMessageTypeByName("penstock.hub.v1.Webhook").file.package
    for name in HUB:
        yield catalog.pool.FindServiceByName(f"{hub}.{name}")


HUB = (
    "Access",
    "Audit",
    "Auth",
    "Changes",
    "Consumers",
    "Datasets",
    "Errors",
    "Issuers",
    "Policy",
    "Receipts",
    "Roles",
    "SigningKeys",
    "Subscriptions",
    "Webhooks",
)
ALL = list(reached())
BINDING = [(m, v, t, f) for m, v, t, f in ALL if f]


def leaf(method: MethodDescriptor, path: str) -> FieldDescriptor:
    message: Any = method.input_type
    *steps, last = path.split(".")
    for step in steps:
        message = message.fields_by_name[step].message_type
    found: FieldDescriptor = message.fields_by_name[last]
    return found


@functools.cache
def bindings(method: MethodDescriptor) -> Bindings:
    return Bindings(method)


def put(message: Any, path: str, value: Any) -> None:
    *steps, last = path.split(".")
    for step in steps:
        message = getattr(message, step)
    setattr(message, last, value)


def check(
    method: MethodDescriptor, verb: str, template: str, said: dict[str, Any], held: dict[str, Any]
) -> None:
    """Check a message with some values against a path with some values."""
    message = message_factory.GetMessageClass(method.input_type)()
    path = template
    for name, value in held.items():
        put(message, name, value)
    for name, value in said.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    assert "{" not in path
    for query in ("", "?a=%2F&b"):
        bindings(method).check({PATH: path + query, VERB: verb}, message)


def values(method: MethodDescriptor, fields: list[str], text: str) -> dict[str, Any]:
    """A value for each field, all of them different."""
    found: dict[str, Any] = {}
    for n, name in enumerate(fields):
        whole = leaf(method, name).cpp_type != FieldDescriptor.CPPTYPE_STRING
        found[name] = 7 + n if whole else f"{text}{n or ''}"
    return found


def test_there_is_something_to_walk() -> None:
    assert len(ALL) > 100
    assert len({m.full_name for m, *_ in BINDING}) > 40


@pytest.mark.parametrize(
    ("method", "verb", "template", "fields"),
    BINDING,
    ids=[f"{m.full_name} {v} {t}" for m, v, t, _ in BINDING],
)
def test_every_field_that_a_path_binds(
    method: MethodDescriptor, verb: str, template: str, fields: list[str]
) -> None:
    for text in TEXTS:
        said = values(method, fields, text)
        check(method, verb, template, said, said)
        for name in fields:
            other = said[name] + 1 if isinstance(said[name], int) else f"{said[name]}x"
            for held in (other, type(said[name])()):
                with pytest.raises(ValueInvalid) as refused:
                    check(method, verb, template, said, {**said, name: held})
                assert [v.field for v in refused.value.violations] == [name]
    escaped = [n for n in fields if leaf(method, n).cpp_type == FieldDescriptor.CPPTYPE_STRING]
    for name in escaped:
        said = values(method, fields, "a/b")
        with pytest.raises(ValueInvalid):  # the decoded value of the path
            check(method, verb, template, said, {**said, name: quote(said[name], safe="")})


def test_a_path_of_no_binding_is_refused() -> None:
    method, verb, template, fields = BINDING[0]
    message = message_factory.GetMessageClass(method.input_type)()
    for metadata in ({PATH: "/v1/else", VERB: verb}, {PATH: template, VERB: "BREW"}):
        with pytest.raises(RequestMalformed):
            bindings(method).check(metadata, message)
    bindings(method).check({}, message)  # a call that did not come by REST
    assert fields


def test_no_two_paths_of_one_verb_match_the_same() -> None:
    """Otherwise the hub might compare with another binding than the sidecar used."""
    for method, verb, template, fields in BINDING:
        path = template
        for name in fields:
            path = path.replace(f"{{{name}}}", "7")
        matching = [b for b in Bindings(method).all_bindings if b.verb == verb]
        assert sum(b.pattern.fullmatch(path) is not None for b in matching) == 1


def test_what_is_reserved_stays_encoded_over_several_segments() -> None:
    assert segment_pattern("/v1/**") == "/v1/.+"
    assert same_segments("a%2Fb/c d", "a%2Fb/c%20d")
    assert not same_segments("a/b/c d", "a%2Fb/c%20d")
