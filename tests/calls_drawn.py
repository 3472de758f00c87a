"""Random HTTP calls: of every method that the descriptors describe, in ways that clients have and
in ways that none should have."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from google.protobuf import descriptor_pb2

from penstockd.catalog import Catalog
from penstockd.rpc.rest.paths import HttpRule, http_rules
from plain_records import Descriptor, FieldDescriptor, Number, is_map
from values_drawn import TEXTS, damage, dump, good_json

#: Methods that would change what the other calls of a run meet.
UNCALLED = {
    "RollbackPolicy": "brings earlier roles and consumers back",
    "RollbackPlans": "brings earlier plans back",
    "RotateSigningKeys": "ends tokens",
}
#: Ids that nothing has, so that no call changes what the hub needs.
_IDS = ["absent", "rnd-x", "00000000-0000-0000-0000-000000000000", "0", "-1", "99", "a~b", "~"]
_IDS += ["é", "a b", "a/b", ".hidden", "A" * 300, "a:b", "%", "'--", "x" * 5000, "\U0001f600"]
_VERBS = [
    "GET",
    "POST",
    "PATCH",
    "DELETE",
    "PUT",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "PURGE",
    "get",
    "QUERY",
]
_TYPES = ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
_ODD_TYPES = [
    "",
    "text/csv",
    "application/xml",
    "application/json; charset=utf-16",
    "a",
    "*/*",
    ";",
]
_ODD_TYPES += ["application/json-patch+json", "multipart/form-data; boundary=x", "é/é", "a/b" * 300]
_ODD_TYPES += ["application/grpc", "application/grpc-web", "application/x-www-form-urlencoded"]
ACCEPTS = ["application/json", "*/*", "application/xml", "application/problem+json, */*;q=0.1"]
ACCEPTS += [
    "application/*",
    "application/json;q=0.5, application/xml;q=0.4",
    "image/png",
    "text/csv",
]
ACCEPTS += [
    "application/json;q=0",
    "*/*;q=0",
    ",",
    ";;q=",
    "a/b;q=x",
    "application/json;q=1e9",
    "é",
]
ACCEPTS += ["text/event-stream", "application/x-ndjson", 'application/json;a=","', "x" * 3000]
_TAGS = ['"x"', "*", 'W/"x"', '"x", "y"', "", '"', "x", ",", '"-xml"', '"é"', "W/", '"x' * 500]
_ODD_HEADERS: list[tuple[str, Sequence[str]]] = [
    ("if-match", _TAGS),
    ("if-none-match", _TAGS),
    ("accept-encoding", ["gzip", "gzip;q=0", "identity;q=0", "*;q=0", "gzip;q=x", "x" * 500]),
    ("content-encoding", ["gzip", "br", "identity", "x"]),
    ("last-event-id", ["", "x", "é", "A" * 4000]),
    ("range", ["bytes=0-1", "bytes=-", "x"]),
    ("origin", ["http://evil.example", "null", ""]),
    ("x-http-method-override", ["DELETE", "PUT"]),
    ("x-http-status", ["200", "500", "x"]),
    ("x-envoy-original-path", ["/v1/products", "x"]),
    ("x-envoy-original-method", ["DELETE", "é"]),
    ("x-envoy-upstream-rq-timeout-ms", ["1", "x"]),
    ("x-penstock-brief", ["1"]),
    ("grpc-status", ["0", "13"]),
    ("grpc-timeout", ["1n", "1H", "x"]),
    ("te", ["trailers", "x"]),
    ("expect", ["x"]),
    ("forwarded", ["for=1.2.3.4", "x"]),
    ("x-forwarded-for", ["1.2.3.4", "x", ""]),
    ("cookie", ["a=b; c", "=" * 2000]),
    ("sec-fetch-mode", ["cors", "navigate", "x"]),
    ("traceparent", ["00-" + "0" * 32 + "-" + "0" * 16 + "-00", "x"]),
    ("user-agent", ["", "é" * 100, "${jndi:x}"]),
]
_PARAMETERS = [
    "page_size",
    "pageSize",
    "page_token",
    "filter",
    "order_by",
    "fields",
    "format",
    "limit",
]
_PARAMETERS += [
    "validate_only",
    "etag",
    "nothing",
    "",
    "customer.name",
    "a.b.c.d.e.f",
    "é",
    "x" * 300,
]
_ARGUMENTS = [
    "",
    "0",
    "1",
    "-1",
    "1e3",
    "true",
    "True",
    "yes",
    "null",
    "NaN",
    "1" * 30,
    "name",
    "x y",
]
_ARGUMENTS += [
    'name = "a"',
    "*",
    "name,",
    "a.b",
    "\x00",
    "é",
    "CSV",
    "JSON",
    "name desc",
    "'",
    "(((",
    "5s",
]
_PATHS = [
    "/",
    "//",
    "/v1",
    "/v1/",
    "/v1//customers",
    "/v1/customers/",
    "/v1/customers/%",
    "/v2/customers",
]
_PATHS += ["/v1/customers/%00", "/v1/customers/%ff", "/v1/customers/%2e%2e", "/v1/customers/..%2f"]
_PATHS += [
    "/v1/customers/../orders",
    "/v1/customers;a=b",
    "/v1/customers:nothing",
    "/v1/customers::",
]
_PATHS += [
    "/V1/CUSTOMERS",
    "/v1/customers/a/b/c",
    "/v1/customers/a:b",
    "/v1/%63ustomers",
    "/v1/données",
]
_PATHS += [
    "/v1/customers?" + "a=1&" * 600,
    "/v1/" + "x" * 7000,
    "/v1/customers#x",
    "/v1/customers?%",
]
_PATHS += [
    "/v1/customers?filter=%ff",
    "/v1/customers?&&=&",
    "/v1/data/customers",
    "/v1/errors/NOTHING",
]
_PATHS += ["/penstock.api.v1.Customers/GetCustomer", "/oauth2/token?a=b", "/.well-known/x", "*"]


@dataclass
class HttpCall:
    """One call, ready to be sent."""

    verb: str
    target: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | None = None
    #: Whether the reply may be a feed, which does not end.
    endless: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header."""
        return next((value for known, value in self.headers if known == name), None)

    def __str__(self) -> str:
        return f"{self.verb} {self.target[:300]}\n{self.headers}\n{(self.body or b'')[:2000]!r}"


@dataclass(frozen=True)
class Binding:
    """A verb and a path of a method."""

    method: Any
    rule: HttpRule

    @property
    def endless(self) -> bool:
        """Whether its reply is a feed."""
        name = self.method.output_type.full_name
        return bool(self.method.server_streaming) and name != "google.api.HttpBody"


def bindings(catalog: Catalog, descriptors: Path) -> list[Binding]:
    """All ways to call methods, but those that are not called."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    names = {m.name for file in files.file for s in file.service for m in s.method}
    assert names >= UNCALLED.keys(), "UNCALLED names a method that does not exist"
    return list(_bindings(catalog, files))


def _bindings(catalog: Catalog, files: Any) -> Iterator[Binding]:
    for file in files.file:
        for service in file.service:
            for method in service.method:
                full = f"{file.package}.{service.name}.{method.name}"
                if method.name in UNCALLED or file.package == "penstock.rest.v1":
                    continue
                found = catalog.pool.FindMethodByName(full)
                for rule in http_rules(found):
                    yield Binding(found, rule)


def method_call(rng: random.Random, binding: Binding) -> HttpCall:
    """A call of a method, with parameters and a body that more or less fit."""
    target = fill_path(rng, binding.rule) + query_of(rng, binding)
    body, headers = None, drawn_headers(rng)
    if binding.rule.body:
        body = body_of(rng, binding)
        headers.append(("content-type", drawn_type(rng)))
    elif rng.random() < 0.03:
        body = b"{}"
    return HttpCall(binding.rule.verb, target, headers, body, binding.endless)


def fill_path(rng: random.Random, rule: HttpRule) -> str:
    """The rule's path, with ids that nothing has."""
    path, at = "", 0
    for variable in rule.variables:
        start = rule.template.index("{", at)
        path += rule.template[at:start]
        given = rng.choice(_IDS)
        path += quote(given, safe="/" if not variable.one_segment else "")
        at = rule.template.index("}", start) + 1
    return path + rule.template[at:]


def query_of(rng: random.Random, binding: Binding) -> str:
    """A query, usually of the method's own parameters."""
    fields = [f for f in binding.method.input_type.fields if f.message_type is None]
    pairs: list[tuple[str, str]] = []
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        if fields and rng.random() < 0.7:
            known = rng.choice(fields)
            pairs.append((rng.choice((known.name, known.json_name)), _argument(rng, known)))
        else:
            pairs.append((rng.choice(_PARAMETERS), rng.choice(_ARGUMENTS)))
    if binding.method.input_type.fields_by_name.get("heartbeat_seconds"):
        pairs.append(("heartbeat_seconds", "1"))
    return query_text(pairs)


def query_text(pairs: Sequence[tuple[str, str]]) -> str:
    """The pairs as a query, or nothing."""
    if not pairs:
        return ""
    return "?" + "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)


def _argument(rng: random.Random, known: FieldDescriptor) -> str:
    if rng.random() < 0.3:
        return rng.choice(_ARGUMENTS)
    if known.enum_type is not None:
        return str(rng.choice(list(known.enum_type.values)).name)
    if known.cpp_type == known.CPPTYPE_BOOL:
        return rng.choice(("true", "false"))
    if known.cpp_type != known.CPPTYPE_STRING:
        return rng.choice(("0", "1", "5"))
    return rng.choice(("", "name", "x", 'name = "a"', "customer_id"))


def body_of(rng: random.Random, binding: Binding) -> bytes:
    """A body for a method, by the fields of its request, now and then damaged."""
    rule, kind = binding.rule, binding.method.input_type
    if kind.full_name == "google.api.HttpBody":
        return rng.choice([b"", b"grant_type=client_credentials", b"a=b&a=b", b"\xff", b"%"])
    if rule.body != "*":
        kind = kind.fields_by_name[rule.body].message_type
    if kind.full_name == "google.api.HttpBody":
        return rng.choice([b"", b"customer_id,name\nrnd-x,", b"[]", b"{", b"<a/>", b"PK\x03\x04"])
    text = dump(rng, drawn_message(rng, kind, 0))
    return damage(rng, text) if rng.random() < 0.15 else text.encode("utf-8", "surrogatepass")


def drawn_message(rng: random.Random, kind: Descriptor, depth: int) -> dict[str, Any]:
    """JSON of any message: usually values of the right types."""
    found = {}
    for known in kind.fields:
        if depth > 3 or rng.random() < (0.4 if depth else 0.5):
            continue
        found[rng.choice((known.json_name, known.json_name, known.name))] = _member(
            rng, known, depth
        )
    if rng.random() < 0.04:
        found["nothing"] = 1
    return found


def _member(rng: random.Random, known: FieldDescriptor, depth: int) -> Any:
    if rng.random() < 0.06:
        return rng.choice([None, True, Number("7"), "x", [], {}, [None], {"a": 1}])
    if is_map(known):
        item = known.message_type.fields_by_name["value"]
        return {rng.choice(TEXTS): _single(rng, item, depth) for _ in range(rng.randrange(3))}
    if known.is_repeated:
        return [_single(rng, known, depth) for _ in range(rng.randrange(3))]
    return _single(rng, known, depth)


def _single(rng: random.Random, known: FieldDescriptor, depth: int) -> Any:
    of = known.message_type
    if of is not None:
        texts = {
            "google.protobuf.Timestamp": ["2026-01-01T00:00:00Z", "x", "0001-01-01T00:00:00Z"],
            "google.protobuf.Duration": ["0s", "0.000000001s", "-1s", "999999999999s", "1"],
            "google.protobuf.FieldMask": ["", "name", "a.b,c", ",", "*"],
        }.get(of.full_name)
        if texts:
            return rng.choice(texts)
        if of.full_name == "google.protobuf.Struct":
            return {"a": good_json(rng, 2)}
        return drawn_message(rng, of, depth + 1)
    if known.enum_type is not None:
        return rng.choice([v.name for v in known.enum_type.values] + ["NOTHING"])
    if known.cpp_type == known.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if known.cpp_type != known.CPPTYPE_STRING:
        return Number(rng.choice(("0", "1", "5", "-1", "100000", "1.5", "1e400")))
    if known.type == known.TYPE_BYTES:
        return rng.choice(("", "QUJD", "x"))
    return rng.choice([*TEXTS, "customers", "read", "name", "rnd-x", "http://127.0.0.1:1/", "5s"])


def drawn_headers(rng: random.Random) -> list[tuple[str, str]]:
    """Headers that a client may send, and others."""
    found = []
    if rng.random() < 0.5:
        found.append(("accept", drawn_accept(rng)))
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        name, values = rng.choice(_ODD_HEADERS)
        found.append((name, rng.choice(values)))
    return found


def drawn_accept(rng: random.Random) -> str:
    """An Accept header, usually one that the hub can serve."""
    return rng.choice(ACCEPTS[:5] if rng.random() < 0.7 else ACCEPTS)


def drawn_type(rng: random.Random) -> str:
    """A content type, usually of JSON."""
    return rng.choice(_TYPES if rng.random() < 0.85 else _ODD_TYPES)


def odd_call(rng: random.Random, known: Sequence[Binding]) -> HttpCall:
    """A call with an odd path or verb."""
    binding = rng.choice(known)
    path = rng.choice(_PATHS) if rng.random() < 0.5 else fill_path(rng, binding.rule)
    if rng.random() < 0.2:
        at = rng.randrange(1, len(path) + 1)
        path = (
            path[:at]
            + rng.choice(("/", ":", "%2F", "%", "?", "%25", "é", "~", "..", "%C3"))
            + path[at:]
        )
    target = quote(path, safe="/%:?=&;~.,*#@+") if path != "*" else path
    verb = rng.choice(_VERBS)
    body = rng.choice([None, None, b"{}", b"x"]) if verb not in ("GET", "HEAD") else None
    return HttpCall(
        verb, target[:9000], drawn_headers(rng), body, binding.endless or ":watch" in path
    )
