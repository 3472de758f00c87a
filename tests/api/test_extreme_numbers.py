"""Times, durations and whole numbers in requests, at and beyond their limits: every method answers
correctly, or refuses and names the field. The fields come from the descriptors, so the test covers
new ones by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, json_format, message_factory

from harness import RunningHub
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors

# protobuf's type stubs have two incompatible classes of descriptors.
Descriptor = Any
FieldDescriptor = Any

TIMESTAMP, DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"
_LEAST, _MOST = -(2**63), 2**63 - 1
_NANOS = [-(2**31), -1, 10**9, 2**31 - 1]
#: Seconds and nanoseconds at the limits of the types, of the calendar, and of allowed values.
PAIRS = {
    TIMESTAMP: [
        (_LEAST, 0), (-62135596801, 0), (-62135596800, 0), (253402300799, 999_999_999),
        (253402300800, 0), (_MOST, 999_999_999), *((1, nanos) for nanos in _NANOS),
    ],
    DURATION: [
        (_LEAST, 0), (-315_576_000_000, 0), (-1, 0), (0, -1), (315_576_000_000, 0),
        (_MOST, 999_999_999), *((1, nanos) for nanos in _NANOS),
    ],
}  # fmt: skip
#: The same as texts, for REST.
TEXTS = {
    TIMESTAMP: [
        "0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
        "10000-01-01T00:00:00Z", "2024-02-30T00:00:00Z", "1",
    ],
    DURATION: [
        "315576000000s", "-315576000000s", "315576000001s", "-0.000000001s", "1e3s", "NaNs", "1",
    ],
    "": ["-9223372036854775809", "-1", "9223372036854775808", "18446744073709551616", "1.5"],
}  # fmt: skip
#: Values for the fields that name something.
NAMES = {
    "consumer_id": "walk",
    "role_id": "walk",
    "subscription_id": "walk",
    "shape_id": "walk",
    "issuer_id": "walk",
    "dataset": "customers",
    "record_key": "walk",
    "customer_id": "walk",
    "credential_id": "walk",
}
#: Further values, without which methods do not read the tested fields.
NEEDS: dict[str, dict[str, Any]] = {
    "CreateShape": {
        "shape": {
            "shapeId": "walk",
            "dataset": "customers",
            "columns": [{"name": "A", "field": "credit_limit", "numberFormat": {"decimals": 2}}],
        }
    },
    "CreateSubscription": {"subscription": {"subscriptionId": "walk", "datasets": ["customers"]}},
    "CreateConsumer": {"consumer": {"consumerId": "walked", "roles": ["crm"]}},
    "CreateRole": {"role": {"roleId": "walked", "grants": []}},
    "CreateWebhook": {
        "webhook": {"kind": "LISTEN", "selections": [{"dataset": "customers"}], "options": {}}
    },
    "IssueCredential": {"kind": "API_KEY"},
    "StreamExportCustomers": {"format": "NDJSON"},
    "ExportCustomers": {"format": "NDJSON"},
    "RepairCustomers": {"ranges": [{}]},
    "BatchUpsertCustomers": {"customers": [{"customerId": "walk", "name": "W"}]},
    "CreateCustomer": {"customer": {"customerId": "walk", "name": "W"}},
    "UpdateCustomer": {"customer": {"customerId": "walk", "name": "W"}, "allowMissing": True},
    "AcknowledgeDeliveries": {"outcomes": [{"deliveryId": "walk", "status": 200}]},
}
NEEDS |= {
    "UpdateConsumer": {"consumer": {"consumerId": "walk", "roles": ["crm"]}},
    "UpdateWebhook": {"webhook": {"options": {}}},
    "RecoverDeliveries": {"startTime": "2024-01-01T00:00:00Z"},
    "RollbackPolicy": {"revision": 10**12},  # which no hub has reached: nothing is rolled back
}
NEEDS["UpdateShape"] = NEEDS["PreviewShape"] = NEEDS["CreateShape"]
#: Outcomes that show a fault of the hub, or a call that never ends.
BAD = {
    grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED,
}  # fmt: skip
_CATALOG = load_catalog(find_descriptors())
_WHOLE = ("CPPTYPE_INT32", "CPPTYPE_INT64", "CPPTYPE_UINT32", "CPPTYPE_UINT64")


def kind_of(fd: FieldDescriptor) -> str | None:
    """The kind of values that the test gives a field; None if it leaves the field out."""
    if fd.message_type is not None:
        name = fd.message_type.full_name
        return name if name in PAIRS else None
    return "" if fd.cpp_type in [getattr(fd, name) for name in _WHOLE] else None


def places_in(message: Descriptor, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of the tested fields."""
    for fd in message.fields:
        of = fd.message_type
        if kind_of(fd) is not None:
            yield (*before, fd.name)
            continue
        walked = of is not None and not of.full_name.startswith("google.protobuf")
        if walked and len(before) < 4 and not of.GetOptions().map_entry:
            yield from places_in(of, (*before, fd.name))


def methods() -> Iterator[Any]:
    """All methods of the hub, and those of one dataset."""
    files = descriptor_pb2.FileDescriptorSet.FromString(find_descriptors().read_bytes())
    for file in files.file:
        for service in file.service:
            if file.package == "penstock.hub.v1" or service.name == "Customers":
                found = _CATALOG.pool.FindServiceByName(f"{file.package}.{service.name}")
                yield from found.methods


METHODS = {m.full_name: m for m in methods() if any(places_in(m.input_type))}


def values_of(fd: FieldDescriptor) -> list[Any]:
    """Extreme values of a field in a message."""
    kind = kind_of(fd)
    if kind:
        return [dict(zip(("seconds", "nanos"), pair, strict=True)) for pair in PAIRS[kind]]
    bits = 32 if fd.cpp_type in (fd.CPPTYPE_INT32, fd.CPPTYPE_UINT32) else 64
    if fd.cpp_type in (fd.CPPTYPE_UINT32, fd.CPPTYPE_UINT64):
        return [2**bits - 1]
    return [-(2 ** (bits - 1)), -1, 2 ** (bits - 1) - 1]


def request_of(method: Any, names: Mapping[str, str]) -> Any:
    """A request that the hub would accept, as far as the test knows one."""
    request = message_factory.GetMessageClass(method.input_type)()
    json_format.ParseDict(NEEDS.get(method.name, {}), request, descriptor_pool=_CATALOG.pool)
    for message in (request, *(held for _, held in request.ListFields())):
        for fd in getattr(message, "DESCRIPTOR", method.input_type).fields:
            known = fd.name in names and hasattr(message, fd.name)
            if known and not fd.is_repeated and not getattr(message, fd.name):
                setattr(message, fd.name, names[fd.name])
    return request


def put(message: Any, place: tuple[str, ...], value: Any) -> None:
    """Set the field at a path; in a list, that of the first item."""
    *steps, last = place
    for step in steps:
        inner = getattr(message, step)
        repeated = message.DESCRIPTOR.fields_by_name[step].is_repeated
        message = (inner[0] if len(inner) else inner.add()) if repeated else inner
    if isinstance(value, dict):
        for name, part in value.items():
            setattr(getattr(message, last), name, part)
    elif message.DESCRIPTOR.fields_by_name[last].is_repeated:
        getattr(message, last).append(value)
    else:
        setattr(message, last, value)


def field_at(message: Descriptor, place: tuple[str, ...]) -> FieldDescriptor:
    for step in place[:-1]:
        message = message.fields_by_name[step].message_type
    return message.fields_by_name[place[-1]]


@pytest.fixture(scope="module")
def names(hub: RunningHub) -> Iterator[dict[str, str]]:
    """The names of things that the test may use: a consumer, a webhook, a subscription, a shape."""
    made = dict(NAMES)

    def post(path: str, body: Any) -> Any:
        reply = hub.request("POST", path, consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return reply.json()

    def listed() -> set[str]:
        found = hub.get("/v1/webhooks", "admin", page_size=1000).json().get("webhooks", [])
        return {webhook["webhookId"] for webhook in found}

    before = listed()
    selections = [{"dataset": "customers", "filter": 'customer_id = "walk-never"'}]
    webhook = post("/v1/webhooks", {"url": "", "kind": "LISTEN", "selections": selections})
    made["webhook_id"] = webhook["webhook"]["webhookId"]
    post("/v1/subscriptions", NEEDS["CreateSubscription"])
    post("/v1/shapes", NEEDS["CreateShape"]["shape"])
    post("/v1/access/consumers", {"consumerId": "walk", "roles": ["crm"]})
    issued = post("/v1/access/consumers/walk/credentials", {"kind": "API_KEY"})
    made["credential_id"] = issued["credential"]["credentialId"]
    yield made
    left = [f"/v1/webhooks/{webhook_id}" for webhook_id in listed() - before]
    left += ["/v1/subscriptions/walk", "/v1/shapes/walk", "/v1/customers/walk"]
    left += [
        f"/v1/access/{path}" for path in ("consumers/walk", "consumers/walked", "roles/walked")
    ]
    for path in left:
        reply = hub.request("DELETE", path, consumer="admin")
        assert reply.status in (200, 404), reply.text


def call(channel: Any, hub: RunningHub, method: Any, request: Any, seconds: int) -> tuple[Any, str]:
    """The code and the message of one call; a stream is left after its first reply."""
    service, name = method.containing_service.full_name, method.name
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    make = kinds[method.client_streaming, method.server_streaming](f"/{service}/{name}")
    sent = request.SerializeToString()
    given = iter([sent]) if method.client_streaming else sent
    try:
        reply = make(given, metadata=hub.metadata("admin"), timeout=seconds)
        if method.server_streaming:
            next(iter(reply), None)
            reply.cancel()
    except grpc.RpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


def test_the_walk_reaches_the_fields() -> None:
    """The control: the test finds methods of all services, and fields of all three kinds."""
    assert {m.containing_service.name for m in METHODS.values()} >= {
        "Audit", "Changes", "Consumers", "Customers", "Policy", "Shapes", "Subscriptions",
        "Webhooks",
    }  # fmt: skip
    kinds = [
        kind_of(field_at(m.input_type, place))
        for m in METHODS.values()
        for place in places_in(m.input_type)
    ]
    assert min(kinds.count(kind) for kind in (TIMESTAMP, DURATION, "")) >= 5 and len(kinds) > 90


@pytest.mark.parametrize("name", METHODS)
def test_grpc_answers_or_refuses(hub: RunningHub, names: dict[str, str], name: str) -> None:
    method = METHODS[name]
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        for place in places_in(method.input_type):
            for value in values_of(field_at(method.input_type, place)):
                request = request_of(method, names)
                put(request, place, value)
                waits = place[-1] == "wait"
                code, said = call(channel, hub, method, request, 1 if waits else 120)
                waited = waits and code is grpc.StatusCode.DEADLINE_EXCEEDED
                assert waited or code not in BAD, (name, place, value, code, said)


@pytest.mark.parametrize("name", METHODS)
def test_rest_answers_or_refuses(hub: RunningHub, names: dict[str, str], name: str) -> None:
    method = METHODS[name]
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    if verb is None or method.client_streaming:
        return
    for place in places_in(method.input_type):
        kind = kind_of(field_at(method.input_type, place))
        for text in TEXTS[kind or ""]:
            path = re.sub(
                r"{(?:\w+\.)*(\w+)(?:=[^}]*)?}",
                lambda found: names.get(found[1], "walk"),
                getattr(rule, verb),
            )
            within = place if rule.body in ("", "*") else place[1:]
            waits = place[-1] == "wait"
            headers = {"grpc-timeout": "1S"} if waits else {}
            headers |= {"content-type": "application/json"} if rule.body else {}
            body: Any = text
            for step in reversed(within):
                body = {step: body}
            document = {**needed_body(method, rule.body), **(body if within else {})}
            reply = hub.request(
                verb.upper(),
                path,
                consumer="admin",
                query={".".join(place): text} if not rule.body else {},
                body=json.dumps(document).encode() if rule.body else None,
                headers=headers,
            )
            fine = reply.status < 500 or (waits and reply.status == 504)
            assert fine, (name, place, text, reply.status, reply.text)


def needed_body(method: Any, body: str) -> dict[str, Any]:
    needed = NEEDS.get(method.name, {})
    return dict(needed) if body == "*" else dict(needed.get(body, {}))
