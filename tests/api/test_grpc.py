"""The same calls by gRPC, gRPC-Web and reflection, with the generated stubs and with buf."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from harness import PATIENCE, RunningHub, new_customer
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.hub.v1 import datasets_pb2, datasets_pb2_grpc
from penstock.model.v1.customers_pb2 import Customer


@pytest.fixture(scope="module")
def channel(hub: RunningHub) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as opened:
        yield opened


@pytest.fixture(scope="module")
def customers(channel: grpc.Channel) -> CustomersStub:
    return CustomersStub(channel)


@pytest.fixture
def admin(hub: RunningHub) -> tuple[tuple[str, str], ...]:
    return hub.metadata("admin")


def message(**values: Any) -> Customer:
    return json_format.ParseDict(new_customer(**values), Customer())


def error(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and request id of a call that fails."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    refused: Any = raised.value
    status = rpc_status.from_call(refused)
    assert status is not None and status.message == refused.details()
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    assert any(d.Unpack(info) for d in status.details)
    assert any(d.Unpack(request) for d in status.details)
    assert info.domain == "penstock"
    return refused.code(), info.reason, request.request_id


def test_a_record_is_created_read_changed_and_deleted(
    customers: CustomersStub, admin: Any, hub: RunningHub
) -> None:
    record = message(email="a@b.c", creditLimit="1.50", billingAddress={"city": "Ōsaka"})
    key = record.customer_id
    created = customers.CreateCustomer(api.CreateCustomerRequest(customer=record), metadata=admin)
    assert (created.credit_limit, created.billing_address.city) == ("1.50", "Ōsaka")
    by_rest = hub.get(f"/v1/customers/{key}").json()
    assert json_format.ParseDict(by_rest, Customer()) == created
    get = api.GetCustomerRequest(customer_id=key)
    assert customers.GetCustomer(get, metadata=admin) == created
    get.fields = "name,billingAddress.city"
    partial = customers.GetCustomer(get, metadata=admin)
    assert partial == Customer(name="Test", billing_address=Customer.Address(city="Ōsaka"))
    change = api.UpdateCustomerRequest(
        customer=Customer(customer_id=key, name="N"),
        update_mask=FieldMask(paths=["name", "email"]),
        etag=created.etag,
    )
    updated = customers.UpdateCustomer(change, metadata=admin)
    assert updated.name == "N" and not updated.HasField("email")
    code, reason, _ = error(lambda: customers.UpdateCustomer(change, metadata=admin))
    assert (code, reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    delete = api.DeleteCustomerRequest(customer_id=key)
    customers.DeleteCustomer(delete, metadata=admin)
    code, reason, _ = error(lambda: customers.DeleteCustomer(delete, metadata=admin))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "RECORD_NOT_FOUND")


def test_pages_make_up_the_list(customers: CustomersStub, admin: Any) -> None:
    asked = api.ListCustomersRequest(
        filter="kind = COMPANY", order_by="name desc", fields="customer_id,name", page_size=1000
    )
    whole = customers.ListCustomers(asked, metadata=admin)
    assert len(whole.customers) > 17 and not whole.next_page_token
    found: list[Customer] = []
    asked.page_size = 17
    while True:
        page = customers.ListCustomers(asked, metadata=admin)
        found += page.customers
        asked.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == list(whole.customers)


@pytest.mark.parametrize("name", ["CSV", "JSON", "NDJSON", "XML"])
def test_an_export_is_the_same_as_by_rest(
    customers: CustomersStub, admin: Any, hub: RunningHub, name: str
) -> None:
    asked = api.StreamExportCustomersRequest(
        filter="status = ACTIVE", order_by="name", fields="customer_id,name,tags", format=name
    )
    bodies = list(customers.StreamExportCustomers(asked, metadata=admin))
    by_rest = hub.get(
        "/v1/customers:export",
        filter="status = ACTIVE",
        order_by="name",
        fields="customer_id,name,tags",
        format=name,
    )
    assert bodies[0].content_type == by_rest.headers["content-type"]
    assert b"".join(body.data for body in bodies) == by_rest.body
    assert len(by_rest.body) > 1000


def test_export_pages_name_the_next_in_a_header(customers: CustomersStub, admin: Any) -> None:
    asked = api.ExportCustomersRequest(format="NDJSON", fields="customer_id", page_size=100)
    lines: list[bytes] = []
    pages = 0
    while True:
        body, call = customers.ExportCustomers.with_call(asked, metadata=admin)
        lines += body.data.splitlines()
        pages += 1
        header = {k: v for k, v in call.initial_metadata()}
        if "penstock-next-page-token" not in header:
            break
        asked.page_token = str(header["penstock-next-page-token"])
    assert pages > 2
    keys = [json.loads(line)["customerId"] for line in lines]
    assert len(keys) >= 300 and keys == sorted(set(keys))


def test_an_import_in_pieces(customers: CustomersStub, admin: Any, hub: RunningHub) -> None:
    records = [new_customer(notes=f"n{i}") for i in range(50)]
    data = "".join(json.dumps(r) + "\n" for r in records).encode()

    def pieces(data: bytes) -> Iterator[api.ImportCustomersRequest]:
        for at in range(0, len(data), 1000):
            body = HttpBody(data=data[at : at + 1000])
            yield api.ImportCustomersRequest(format="" if at else "NDJSON", file=body)

    counts = customers.ImportCustomers(pieces(data), metadata=admin)
    assert counts == api.ImportCustomersResponse(row_count=50, created_count=50)
    counts = customers.ImportCustomers(pieces(data), metadata=admin)
    assert counts == api.ImportCustomersResponse(row_count=50, unchanged_count=50)
    upsert = api.BatchUpsertCustomersRequest(
        customers=[Customer(customer_id=r["customerId"], name="Test") for r in records[:2]]
    )
    reply = customers.BatchUpsertCustomers(upsert, metadata=admin)
    assert reply == api.BatchUpsertCustomersResponse(updated_count=2)
    assert hub.get(f"/v1/customers/{records[0]['customerId']}").json()["notes"] is None


def test_an_upload_that_is_cancelled_loads_nothing(
    customers: CustomersStub, admin: Any, hub: RunningHub
) -> None:
    records = [new_customer() for _ in range(3)]
    lines = [json.dumps(r).encode() + b"\n" for r in records]

    class Broken(Exception):
        pass

    def pieces() -> Iterator[api.ImportCustomersRequest]:
        yield api.ImportCustomersRequest(format="NDJSON", file=HttpBody(data=lines[0] + lines[1]))
        raise Broken

    with pytest.raises(grpc.RpcError):
        customers.ImportCustomers(pieces(), metadata=admin)
    for record in records:
        assert hub.get(f"/v1/customers/{record['customerId']}").status == 404


def test_errors_carry_their_details(customers: CustomersStub, hub: RunningHub) -> None:
    asked = api.ListCustomersRequest(filter="name =")
    calls = {
        (grpc.StatusCode.INVALID_ARGUMENT, "FILTER_INVALID"): hub.metadata("admin"),
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"): (("x-api-key", "no"),),
    }
    for expected, metadata in calls.items():
        found = error(lambda metadata=metadata: customers.ListCustomers(asked, metadata=metadata))
        assert found[:2] == expected
        assert len(found[2]) == 36
    export = api.StreamExportCustomersRequest(format="YAML")
    code, reason, _ = error(
        lambda: list(customers.StreamExportCustomers(export, metadata=hub.metadata("bi")))
    )
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FORMAT_UNKNOWN")


def test_the_datasets_are_those_the_caller_may_see(channel: grpc.Channel, hub: RunningHub) -> None:
    stub = datasets_pb2_grpc.DatasetsStub(channel)
    request = datasets_pb2.ListDatasetsRequest()
    seen = {
        consumer: {
            d.name: (list(d.actions), {f.path for f in d.fields})
            for d in stub.ListDatasets(request, metadata=hub.metadata(consumer)).datasets
        }
        for consumer in ("admin", "crm", "bi")
    }
    everything = ["contacts", "customers", "interactions", "orders", "products"]
    assert list(seen["admin"]) == list(seen["bi"]) == everything
    assert list(seen["crm"]) == [name for name in everything if name != "products"]
    assert all(actions == ["read"] for actions, _ in seen["bi"].values())
    hidden = seen["admin"]["customers"][1] - seen["crm"]["customers"][1]
    assert hidden == {"tax_id", "credit_limit"}


def test_health_and_what_is_not_there(channel: grpc.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    reply = health.Check(health_pb2.HealthCheckRequest())
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    missing: Any = channel.unary_unary("/penstock.api.v1.Customers/Nothing")
    with pytest.raises(grpc.RpcError) as raised:
        missing(b"")
    refused: Any = raised.value
    assert refused.code() is grpc.StatusCode.UNIMPLEMENTED


def grpc_web(hub: RunningHub, method: str, body: bytes, consumer: str | None) -> list[Any]:
    """The frames of a gRPC-Web reply as (flags, payload), with its headers first."""
    kind = "application/grpc-web+proto"
    reply = hub.request(
        "POST",
        f"/penstock.api.v1.Customers/{method}",
        consumer=consumer,
        body=struct.pack(">BI", 0, len(body)) + body,
        headers={"content-type": kind, "accept": kind, "x-grpc-web": "1"},
    )
    assert reply.status == 200
    assert reply.headers["content-type"] == kind
    frames: list[Any] = [reply.headers]
    rest = reply.body
    while rest:
        flags, size = struct.unpack(">BI", rest[:5])
        frames.append((flags, rest[5 : 5 + size]))
        rest = rest[5 + size :]
    return frames


def test_browsers_speak_grpc_web(hub: RunningHub) -> None:
    request = api.GetCustomerRequest(customer_id="c00000001", fields="customer_id,name")
    _, data, trailers = grpc_web(hub, "GetCustomer", request.SerializeToString(), "admin")
    assert data[0] == 0
    found = Customer.FromString(data[1])
    assert found == Customer(customer_id="c00000001", name="Patricia Smith")
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers[1].replace(b" ", b"")
    headers, *frames = grpc_web(hub, "GetCustomer", request.SerializeToString(), None)
    text = str(headers) + str(frames)
    assert headers.get("grpc-status") == "16" or "grpc-status:16" in text.replace(" ", "")
    assert "Patricia" not in text


def test_other_codecs_of_grpc_web_are_refused_in_its_form(hub: RunningHub) -> None:
    for kind in ("application/grpc-web+json", "application/grpc-web-text+json"):
        path = "/penstock.api.v1.Customers/GetCustomer"
        headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1"}
        reply = hub.request("POST", path, consumer="admin", body=b"{}", headers=headers)
        assert (reply.status, reply.headers["content-type"]) == (200, kind)
        frame = base64.b64decode(reply.body) if "text" in kind else reply.body
        assert frame[0] == 0x80 and int.from_bytes(frame[1:5], "big") == len(frame) - 5
        assert frame[5:].startswith(b"grpc-status:12\r\n")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_all_listed_services_can_be_described(channel: grpc.Channel, version: str) -> None:
    ask = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    def asked(**request: Any) -> Any:
        [reply] = ask(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=PATIENCE)
        return reply

    names = {s.name for s in asked(list_services="").list_services_response.service}
    assert {"penstock.api.v1.Customers", "penstock.hub.v1.Auth", "grpc.health.v1.Health"} <= names
    assert {f"grpc.reflection.{v}.ServerReflection" for v in ("v1", "v1alpha")} <= names
    for name in names:
        pool = DescriptorPool()
        files = asked(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto
        parsed = [FileDescriptorProto.FromString(f) for f in files]
        for file in reversed(parsed):  # the requested file first, then its imports
            _add_file(pool, file, {f.name: f for f in parsed})
        assert pool.FindServiceByName(name).methods, name
    assert asked(file_containing_symbol="penstock.None").HasField("error_response")


def _add_file(pool: DescriptorPool, file: FileDescriptorProto, known: dict[str, Any]) -> None:
    try:
        pool.FindFileByName(file.name)
    except KeyError:
        for name in file.dependency:
            _add_file(pool, known[name], known)
        pool.Add(file)


def buf(hub: RunningHub, method: str, data: dict[str, Any], consumer: str) -> Any:
    program = shutil.which("buf") or str(Path(sys.executable).with_name("buf"))
    key = hub.consumers[consumer]["api_key"]
    options = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect"]
    given = ["-H", f"x-api-key: {key}", "-d", json.dumps(data)]
    return subprocess.run(
        [program, "curl", *options, *given, f"{hub.url}/{method}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_buf_needs_no_stubs(hub: RunningHub) -> None:
    asked = {"customerId": "c00000001", "fields": "name,billing_address.city"}
    done = buf(hub, "penstock.api.v1.Customers/GetCustomer", asked, "admin")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "name": "Patricia Smith",
        "billingAddress": {"city": "Austin"},
    }
    hidden = buf(hub, "penstock.api.v1.Customers/GetCustomer", {**asked, "fields": "tax_id"}, "crm")
    assert hidden.returncode != 0
    assert "unknown field 'tax_id'" in hidden.stderr
