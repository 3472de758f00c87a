"""The model's rules hold for every way in, and errors name the field that breaks them."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from harness import Reply, RunningHub, contains, in_json, new_customer
from penstock.api.v1 import orders_service_pb2 as api
from penstock.api.v1.orders_service_pb2_grpc import OrdersStub
from penstock.client import Client, PenstockError
from penstock.model.v1.orders_pb2 import Order

WRONG: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"email": "a@b..c"}, {"email": "must be a valid email address"}),
    ({"email": ""}, {"email": "value is empty, which is not a valid email address"}),
    ({"currencyCode": "eur"}, {"currency_code": "does not match regex pattern `^[A-Z]{3}$`"}),
    ({"creditLimit": "-0.01"}, {"credit_limit": "must not be negative"}),
    ({"name": "é" * 501}, {"name": "must be at most 500 characters"}),
    ({"tags": ["a"] * 1001}, {"tags": "must contain no more than 1000 item(s)"}),
    ({"tags": ["a", "b" * 201]}, {"tags[1]": "must be at most 200 characters"}),
    (
        {"billingAddress": {"city": "c" * 201, "countryCode": "DEU"}, "phone": "1" * 101},
        {
            "phone": "must be at most 100 characters",
            "billing_address.city": "must be at most 200 characters",
            "billing_address.country_code": "does not match regex pattern `^[A-Z]{2}$`",
        },
    ),
]
RIGHT: dict[str, Any] = {
    "email": "first.last+tag@sub.example.com",
    "currencyCode": "EUR",
    "creditLimit": "0.00",
    "lifetimeValue": "-12.5",
    "name": "株式会社 " + "é" * 490,
    "tags": ["日" * 200] * 3,
    "billingAddress": {"city": "Ōsaka", "countryCode": "JP"},
    "phone": "(030) 0074321 ext. 5",
}


def send(hub: RunningHub, method: str, path: str, body: Any) -> Reply:
    return hub.request(method, path, consumer="admin", json_body=body)


@pytest.mark.parametrize(("values", "violations"), WRONG)
def test_every_way_in_names_the_field(
    hub: RunningHub, unchanged: None, values: dict[str, Any], violations: dict[str, str]
) -> None:
    there = hub.get("/v1/customers", page_size=1).json()["customers"][0]["customerId"]
    for reply in (
        send(hub, "POST", "/v1/customers", new_customer(**values)),
        send(hub, "PATCH", f"/v1/customers/{there}", values),
        send(hub, "PATCH", "/v1/customers/absent?allow_missing=true", values),
    ):
        assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), reply.text
        assert reply.violations() == {in_json(f): d for f, d in violations.items()}
    records = [new_customer(), new_customer(**values)]
    reply = send(hub, "POST", "/v1/customers:batchUpsert", {"customers": records})
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    assert reply.violations() == {f"customers[1].{in_json(f)}": d for f, d in violations.items()}
    for format, data in (
        ("ndjson", "\n".join(map(json.dumps, records))),
        ("json", json.dumps(records)),
    ):
        reply = hub.request(
            "POST", f"/v1/customers:import?format={format}", consumer="admin", body=data.encode()
        )
        assert (reply.status, reply.reason) == (400, "IMPORT_ROW_INVALID")
        assert reply.violations() == {f"rows[2].{f}": d for f, d in violations.items()}


def test_what_meets_the_rules_is_taken(hub: RunningHub) -> None:
    """Negative control: values exactly at the limits are accepted."""
    record = new_customer(**RIGHT)
    created = send(hub, "POST", "/v1/customers", record)
    assert created.status == 200 and contains(created.json(), record), created.text
    records = [new_customer(**RIGHT) for _ in range(150)]
    reply = send(hub, "POST", "/v1/customers:batchUpsert", {"customers": records})
    assert reply.json() == {"createdCount": "150"}
    bare = {"customerId": new_customer()["customerId"], "name": "B"}
    assert send(hub, "POST", "/v1/customers", bare).status == 200, "no rule asks for more"


def test_an_update_is_judged_by_what_it_writes(hub: RunningHub) -> None:
    """A wrong value that is not in the mask is neither written nor checked."""
    record = new_customer(notes="n")
    path = f"/v1/customers/{record['customerId']}"
    assert send(hub, "POST", "/v1/customers", record).status == 200
    body = {"email": "nobody", "notes": "m"}
    assert send(hub, "PATCH", f"{path}?update_mask=notes", body).json()["notes"] == "m"
    reply = send(hub, "PATCH", f"{path}?update_mask=email", body)
    assert list(reply.violations()) == ["email"]
    # A value older than the rule does not prevent other changes.
    hub.sql(
        "UPDATE data.customers SET email = 'nobody' WHERE customer_id = $1", record["customerId"]
    )
    assert send(hub, "PATCH", path, {"notes": "o"}).json()["notes"] == "o"


def test_lines_of_an_order_are_named_by_their_place(hub: RunningHub) -> None:
    key = new_customer()["customerId"]
    lines = [
        {"productId": "p", "quantity": 1, "unitPrice": "1.00"},
        {"productId": "p", "quantity": -1, "unitPrice": "-1.00", "discount": "0.15"},
    ]
    expected = {
        "lines[1].quantity": "must be greater than or equal to 0",
        "lines[1].unit_price": "must not be negative",
    }
    order = {"orderId": key, "customerId": "c", "lines": lines}
    told = send(hub, "POST", "/v1/orders", order).violations()
    assert told == {in_json(f): d for f, d in expected.items()}
    reply = hub.request(
        "POST",
        "/v1/orders:import?format=ndjson",
        consumer="admin",
        body=json.dumps(order).encode(),
    )
    assert reply.violations() == {f"rows[1].{f}": d for f, d in expected.items()}
    product = {"productId": key, "name": "P", "attributes": {"k" * 201: "v", "fine": "v" * 10_001}}
    assert send(hub, "POST", "/v1/products", product).violations() == {
        f"attributes['{'k' * 201}']": "key must be at most 200 characters",
        "attributes['fine']": "must be at most 10000 characters",
    }


def test_by_grpc_and_the_sdk(hub: RunningHub) -> None:
    order = Order(order_id=new_customer()["customerId"], customer_id="c", currency_code="euro")
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        request = api.CreateOrderRequest(order=order)
        with pytest.raises(grpc.RpcError) as failure:
            OrdersStub(channel).CreateOrder(request, metadata=hub.metadata("admin"))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with Client(hub.url, api_key=hub.api_key) as client:
        with pytest.raises(PenstockError) as refused:
            client.dataset("orders").create(order)
        assert [v.field for v in refused.value.violations] == ["currency_code"]
        counts = client.dataset("orders").batch_upsert([order], partial=True)
        assert (counts.refused, counts.row_errors[0].field) == (1, "currency_code")
        order.currency_code = "EUR"
        first = client.dataset("orders").create(order, request_id=order.order_id)
        assert client.dataset("orders").create(order, request_id=order.order_id) == first


def test_a_value_that_its_type_does_not_have(hub: RunningHub) -> None:
    """Unknown enum numbers in any place of a record are refused, and are not internal errors."""
    unknown: Any = 99
    key = new_customer()["customerId"]
    order = Order(order_id=key, customer_id="c", status=unknown)
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        with pytest.raises(grpc.RpcError) as failure:
            OrdersStub(channel).CreateOrder(
                api.CreateOrderRequest(order=order), metadata=hub.metadata("admin")
            )
        many = [Order(order_id=f"{key}-{i}", customer_id="c") for i in range(150)]
        request = api.BatchUpsertOrdersRequest(orders=[*many, order], partial=True)
        reply = OrdersStub(channel).BatchUpsertOrders(request, metadata=hub.metadata("admin"))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (reply.created_count, reply.row_errors[0].field) == (150, "status")
