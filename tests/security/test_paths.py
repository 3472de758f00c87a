"""The path of a REST call decides what it is about: no body and no query overrides it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from harness import RunningHub, in_json, new_customer
from penstockd.rpc.rest.paths import http_rules

from .test_access_admin import methods

KEYS = [
    "plain",
    "a b",
    "a+b",
    "a%b",
    "a%2Fb",
    "%41",
    "a:b",
    "a/b",
    "/",
    "a/../b",
    "//",
    "a\u00a0\u200bb",
    "a\\b",
    "ä雪",
    "a&b=c?d#e",
    "a;b,c",
    "'\"<>",
    "~",
]


def with_body() -> list[tuple[Any, str, str, list[str]]]:
    """For each method with both a path and a body: verb, path, the field that the body fills, and
    the fields of the path."""
    found = []
    for method in methods():
        options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
        body = options.Extensions[annotations_pb2.http].body
        for rule in http_rules(method):
            fields = [variable.path for variable in rule.variables]
            if fields and body:
                found.append((method, rule.verb, rule.template, [body, *fields]))
    return found


BODIES = with_body()


@pytest.mark.parametrize(
    ("method", "verb", "template", "names"), BODIES, ids=[m.full_name for m, *_ in BODIES]
)
def test_no_body_names_another(
    hub: RunningHub, method: Any, verb: str, template: str, names: list[str]
) -> None:
    body, *fields = names
    path = template
    for name in fields:
        path = path.replace(f"{{{name}}}", "7")
    for name in fields:
        own = name.removeprefix(f"{body}.")
        if "." in own:
            continue
        reply = hub.request(verb, path, consumer="admin", json_body={own: "8"})
        assert reply.status == 400, reply.text
        assert (reply.reason, list(reply.violations())) == ("VALUE_INVALID", [in_json(own)])
        same = hub.request(verb, path, consumer="admin", json_body={own: "7"})
        told = same.status == 400 and "differs from the path" in same.text
        assert not told, "negative control: the same value is no other"


def test_there_is_something_to_walk() -> None:
    assert len(BODIES) >= 20


def test_no_other_record_is_changed(hub: RunningHub) -> None:
    one, other = new_customer(), new_customer()
    for record in (one, other):
        reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        assert reply.status == 200, reply.text
    path = f"/v1/customers/{one['customerId']}"
    body = {"customer_id": other["customerId"], "name": "Hit"}
    refused = hub.request("PATCH", path, consumer="admin", json_body=body)
    assert (refused.status, list(refused.violations())) == (400, ["customerId"])
    for name in ("customer_id", "customerId", "customer.customer_id", "customer.customerId"):
        query = {name: other["customerId"]}
        changed = {"name": "A"}
        for verb, at, sent in [
            ("PATCH", path, changed),
            ("GET", path, None),
            ("DELETE", path + "-none", None),
        ]:
            reply = hub.request(verb, at, consumer="admin", json_body=sent, query=query)
            told = in_json(name.removeprefix("customer.")) if sent else name
            assert (reply.status, list(reply.violations())) == (400, [told]), verb
    found = hub.get(f"/v1/customers/{other['customerId']}").json()
    assert found["name"] == other["name"]


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_any_characters(hub: RunningHub, key: str) -> None:
    """The hub compares the same text that the sidecar decodes."""
    record = new_customer()
    record["customerId"] += key
    made = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert made.status == 200, made.text
    path = f"/v1/customers/{quote(record['customerId'], safe='')}"
    for verb, body in (("GET", None), ("PATCH", {"name": "B"}), ("DELETE", None)):
        reply = hub.request(verb, path, consumer="admin", json_body=body)
        assert reply.status == 200, f"{verb}: {reply.text}"
        if verb != "DELETE":
            assert reply.json()["customerId"] == record["customerId"]
    assert hub.get(path).reason == "RECORD_NOT_FOUND", "it was this one"
