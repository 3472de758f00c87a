"""Every path of every service leads to its method, with the values that it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from penstockd.errors import RequestMalformed
from penstockd.installation import read_catalog
from penstockd.rpc.rest.paths import Paths, bound_values, http_rules

#: Texts that a path may contain in one segment, once they are encoded.
TEXTS = ["c1", "a/b", "a%2Fb", "%41", "ä b", "a:pause", "a:b", "100%", "+", "..%2f", "'\"&=?#"]


def reached() -> Iterator[tuple[MethodDescriptor, str, str, list[str]]]:
    """Every rule of every service: method, verb, template and its fields."""
    for service in services():
        for method in service.methods:
            for rule in http_rules(method):
                yield method, rule.verb, rule.template, [v.path for v in rule.variables]


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
    "Shapes",
    "Subscriptions",
    "Usage",
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


PATHS: Paths[str] = Paths((m, m.full_name) for service in services() for m in service.methods)


def find(verb: str, template: str, said: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The method of a path with some values, and the values that it finds."""
    path = template
    for name, value in said.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
    assert "{" not in path
    found = PATHS.find(verb, path)
    assert found is not None, path
    return found.target, dict(bound_values(found))


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
    ALL,
    ids=[f"{m.full_name} {v} {t}" for m, v, t, _ in ALL],
)
def test_every_path_leads_to_its_method(
    method: MethodDescriptor, verb: str, template: str, fields: list[str]
) -> None:
    for text in TEXTS:
        said = values(method, fields, text)
        assert find(verb, template, said) == (method.full_name, said)
        assert verb in PATHS.verbs(template, bool)


def test_what_is_no_path_is_not_found() -> None:
    for path in ("/", "", "/v1", "/v1/customers/", "/v1/customers:x", "/v1//customers", "/v2/x"):
        assert PATHS.find("GET", path) is None, path
        assert PATHS.verbs(path, bool) == []
    assert PATHS.find("BREW", "/v1/customers") is None
    assert PATHS.verbs("/v1/customers", bool) == ["GET", "HEAD", "OPTIONS", "POST"]


def test_a_path_must_be_readable() -> None:
    for path in ("/v1/customers/%ff", "/v1/access/revisions/x", "/v1/access/revisions/%37x"):
        found = PATHS.find("GET", path)
        assert found is not None
        with pytest.raises(RequestMalformed):
            bound_values(found)


def test_no_two_rules_of_one_verb_match_the_same() -> None:
    """Otherwise their order would decide."""
    shapes = [
        (rule.verb, rule.shape)
        for service in services()
        for method in service.methods
        for rule in http_rules(method)
    ]
    assert len(set(shapes)) == len(shapes)
