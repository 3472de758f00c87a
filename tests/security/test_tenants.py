"""S3: a tenant puts another's keys into every method of every dataset, and gains nothing by it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from harness import PATIENCE, RunningHub, in_force

from .marked import STUBS
from .tenants import put_consumer, put_role, remove

OWN, FOREIGN, ABSENT = "s3-own-1", "s3-for-1", "s3-abs-1"
MARK = "zq-of-the-other"
RULES = {
    "customers": "source = claims.tenant",
    "products": "name = claims.tenant",
    **dict.fromkeys(("contacts", "orders", "interactions"), "customer.source = claims.tenant"),
}
#: Methods that create a missing record: for them a free key is no secret.
MAKES = ("Create", "BatchUpsert", "Import")


def singular(dataset: str) -> str:
    return dataset.removesuffix("s")


def record(dataset: str, key: str, tenant: str, customer: str) -> dict[str, Any]:
    """A record of a tenant; the other tenant's record contains the mark."""
    made: dict[str, Any] = {f"{singular(dataset)}Id": key}
    if dataset == "customers":
        return {**made, "name": tenant, "kind": "PERSON", "source": tenant, "notes": tenant}
    if dataset == "products":
        return {**made, "name": tenant, "description": tenant}
    return {**made, "customerId": customer, "source": tenant}


@pytest.fixture(scope="module")
def tenant(hub: RunningHub) -> Iterator[tuple[tuple[str, str], ...]]:
    """The metadata of a tenant that sees its own records; the other's records exist as well."""
    for dataset in RULES:
        batch = [
            record(dataset, OWN, "s3-own", OWN),
            record(dataset, FOREIGN, MARK, FOREIGN),
        ]
        path = f"/v1/{dataset}:batchUpsert"
        made = hub.request("POST", path, consumer="admin", json_body={dataset: batch})
        assert made.status == 200, made.text
    put_role(hub, "s3", RULES)
    headers = put_consumer(hub, "s3", ["s3"], tenant=["s3-own"])
    path = f"/v1/customers/{OWN}"
    in_force(lambda: hub.request("GET", path, headers=headers).status == 200)
    yield tuple(headers.items())
    remove(hub, "s3", roles=["s3"])
    for dataset in reversed(RULES):
        for key in (OWN, FOREIGN, ABSENT):
            hub.request("DELETE", f"/v1/{dataset}/{key}", consumer="admin")


def stored(hub: RunningHub) -> dict[str, list[Any]]:
    """All records of the other tenant."""
    return {
        dataset: hub.sql(f"SELECT * FROM data.{dataset} WHERE {singular(dataset)}_id = $1", FOREIGN)
        for dataset in RULES
    }


def methods(dataset: str) -> Sequence[Any]:
    messages = STUBS[dataset][0]
    (service,) = messages.DESCRIPTOR.services_by_name.values()
    return list(service.methods)


def requests(dataset: str, method: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Requests that name the key wherever the method allows one, with each switch in turn."""
    fields = method.input_type.fields_by_name
    switches = [f.name for f in method.input_type.fields if f.type == f.TYPE_BOOL]
    for switch in (None, *switches):
        request = message_factory.GetMessageClass(method.input_type)()
        body = record(dataset, key, "s3-own", OWN)
        for name in fields:
            if name == f"{singular(dataset)}_id":
                setattr(request, name, key)
            elif name == singular(dataset):
                json_format.ParseDict(body, getattr(request, name))
            elif name == dataset:
                json_format.ParseDict(body, getattr(request, name).add())
            elif name == "update_mask":
                paths = {"products": ["description"], "customers": ["notes"]}
                getattr(request, name).paths.extend(paths.get(dataset, ["customer_id"]))
            elif name == "filter":
                setattr(request, name, f'{singular(dataset)}_id = "{key}"')
            elif name == "format":
                setattr(request, name, "NDJSON" if "file" in fields else "CSV")
            elif name == "ranges":
                told = getattr(request, name).add(row_count=1)
                told.records.add(key=key, sha256="0" * 64)
            elif name == "file":
                getattr(request, name).data = json.dumps(body).encode()
            elif name == switch:
                setattr(request, name, True)
        yield switch or "", request


def call(channel: grpc.Channel, method: Any, request: Any, metadata: Any) -> tuple[str, bytes]:
    """The code and reply of a call, or the text of the refusal without its request id.

    A stream of changes does not end: its first message counts as its reply, and states where it
    begins. test_feed_views tests whose changes it shows.
    """
    path = f"/{method.containing_service.full_name}/{method.name}"
    wire = {"request_serializer": type(request).SerializeToString}
    replies: list[bytes] = []
    try:
        if method.client_streaming:
            replies.append(channel.stream_unary(path, **wire)(iter([request]), metadata=metadata))
        elif method.server_streaming:
            listen = channel.unary_stream(path, **wire)
            stream = listen(request, metadata=metadata, timeout=PATIENCE)
            for reply in stream:
                replies.append(reply)
                if feeds(method):
                    break
            stream.cancel()
        else:
            replies.append(channel.unary_unary(path, **wire)(request, metadata=metadata))
    except grpc.RpcError as error:
        refused: Any = error
        return refused.code().name, _said(refused)
    said = b"".join(replies)
    if feeds(method):
        assert MARK.encode() not in said and FOREIGN.encode() not in said, method.name
        return "OK", b""
    return "OK", _lasting(method, said)


def _lasting(method: Any, reply: bytes) -> bytes:
    """A reply without the parts that differ between any two calls, or for digests between any two
    queries."""
    if not method.name.startswith(("Digest", "Repair")):
        return reply
    message: Any = message_factory.GetMessageClass(method.output_type).FromString(reply)
    for name in ("state", "cursor", "view"):
        message.ClearField(name)
    return bytes(message.SerializeToString(deterministic=True))


def feeds(method: Any) -> bool:
    """Whether it returns changes."""
    return str(method.name).startswith("Watch") or str(method.name).endswith("Changes")


def _said(refused: Any) -> bytes:
    details = dict(refused.trailing_metadata())["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(details)
    kept = [d for d in status.details if not d.Is(error_details_pb2.RequestInfo.DESCRIPTOR)]
    said = status_pb2.Status(code=status.code, message=status.message, details=kept)
    return bytes(said.SerializeToString(deterministic=True))


def reads_or_removes(method: Any, switch: str) -> bool:
    return not method.name.startswith(MAKES) and not (
        method.name.startswith("Update") and switch == "allow_missing"
    )


@pytest.mark.parametrize("dataset", list(RULES))
def test_another_tenants_keys(hub: RunningHub, tenant: Any, dataset: str) -> None:
    before = stored(hub)
    assert all(len(rows) == 1 for rows in before.values())
    named = 0
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        for method in methods(dataset):
            for (switch, foreign), (_, absent) in zip(
                requests(dataset, method, FOREIGN), requests(dataset, method, ABSENT), strict=True
            ):
                what = f"{method.name} {switch}"
                assert FOREIGN in str(foreign), f"{what}: the request does not name the key"
                named += 1
                code, said = call(channel, method, foreign, tenant)
                assert MARK.encode() not in said, what
                assert stored(hub) == before, what
                if reads_or_removes(method, switch):
                    expected = call(channel, method, absent, tenant)
                    plain = said.replace(FOREIGN.encode(), b"<key>")
                    assert (code, plain) == (
                        expected[0],
                        expected[1].replace(ABSENT.encode(), b"<key>"),
                    ), what
                elif switch not in ("partial", "preview"):  # these reply with the bad rows
                    assert code in ("NOT_FOUND", "ALREADY_EXISTS", "INVALID_ARGUMENT"), what
    assert named >= 9, "not all methods were tried"


@pytest.mark.parametrize("dataset", list(RULES))
def test_the_same_requests_work_on_what_is_ones_own(
    hub: RunningHub, tenant: Any, dataset: str
) -> None:
    """Negative control: the calls refused above succeed for the owner of the key."""
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        for method in methods(dataset):
            if method.name.startswith("Delete"):
                continue
            for switch, request in requests(dataset, method, OWN):
                code, said = call(channel, method, request, tenant)
                if method.name.startswith("Create"):
                    assert code == "ALREADY_EXISTS", f"{method.name} {switch}"
                    continue
                assert code == "OK", f"{method.name} {switch}: {said!r}"
                if feeds(method):
                    continue
                if method.name.startswith(("Get", "List", "Export", "StreamExport")):
                    assert OWN.encode() in said, method.name


def test_nothing_else_leads_to_another_tenant(hub: RunningHub, tenant: Any) -> None:
    headers = dict(tenant)
    for dataset in RULES:
        key = f"{singular(dataset)}_id"
        for query in (
            {"filter": f'{key} >= "s3-"'},
            {"filter": f'NOT {key} = "x"'},
            {"filter": f'{key} = "{FOREIGN}" OR {key} = "{OWN}"'},
            {"filter": f'{key} = "s3-*"', "order_by": f"{key} desc"},
        ):
            for path in (f"/v1/{dataset}", f"/v1/{dataset}:export"):
                reply = hub.request("GET", path, headers=headers, query=query)
                assert reply.status == 200, reply.text
                assert OWN in reply.text
                assert FOREIGN not in reply.text and MARK not in reply.text
