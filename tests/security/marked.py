"""Records whose hidden values are unmistakable, and everything that a consumer can read of them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from harness import Reply, RunningHub
from penstock.api.v1 import (
    contacts_service_pb2,
    contacts_service_pb2_grpc,
    customers_service_pb2,
    customers_service_pb2_grpc,
    interactions_service_pb2,
    interactions_service_pb2_grpc,
    orders_service_pb2,
    orders_service_pb2_grpc,
    products_service_pb2,
    products_service_pb2_grpc,
)

FORMATS = ("CSV", "JSON", "NDJSON", "XML")
STUBS: dict[str, tuple[Any, Any, str]] = {
    "customers": (customers_service_pb2, customers_service_pb2_grpc.CustomersStub, "Customer"),
    "contacts": (contacts_service_pb2, contacts_service_pb2_grpc.ContactsStub, "Contact"),
    "orders": (orders_service_pb2, orders_service_pb2_grpc.OrdersStub, "Order"),
    "products": (products_service_pb2, products_service_pb2_grpc.ProductsStub, "Product"),
    "interactions": (
        interactions_service_pb2,
        interactions_service_pb2_grpc.InteractionsStub,
        "Interaction",
    ),
}

#: Dataset -> records by key. "mk-seen" is ACTIVE and "mk-gone" is CHURNED, each with its records.
RECORDS: dict[str, list[dict[str, Any]]] = {
    "customers": [
        {
            "customerId": f"mk-{name}",
            "name": f"Plain{name}",
            "kind": "PERSON",
            "status": status,
            "email": f"zqmail{name}@example.com",
            "phone": f"zqphone{name}",
            "taxId": f"zqtax{name}",
            "billingAddress": {
                "line1": f"zqline1{name}",
                "line2": f"zqline2{name}",
                "city": f"Plaincity{name}",
                "postalCode": f"zqpost{name}",
            },
            "creditLimit": limit,
            "birthDate": born,
            "notes": f"Plainnotes{name}",
            "source": "marked",
        }
        for name, status, limit, born in (
            ("seen", "ACTIVE", "73137.7313", "1911-01-13"),
            ("gone", "CHURNED", "64246.6424", "1912-02-14"),
        )
    ],
    "contacts": [
        {
            "contactId": f"mk-{name}-contact",
            "customerId": f"mk-{name}",
            "givenName": f"zqgiven{name}",
            "familyName": f"zqfamily{name}",
            "jobTitle": f"Plainjob{name}",
            "email": f"zqcontactmail{name}@example.com",
            "phone": f"zqcontactphone{name}",
            "source": "marked",
        }
        for name in ("seen", "gone")
    ],
    "orders": [
        {
            "orderId": f"mk-{name}-order",
            "customerId": f"mk-{name}",
            "status": "PLACED",
            "total": "10.00",
            "shippingAddress": {
                "recipient": f"zqrecipient{name}",
                "line1": f"zqshipline{name}",
                "city": f"Plainship{name}",
                "postalCode": f"zqshippost{name}",
            },
            "lines": [{"productId": "p", "quantity": 1, "unitPrice": "1"}],
            "source": "marked",
        }
        for name in ("seen", "gone")
    ],
    "products": [
        {"productId": "mk-product", "name": "zqproductname", "supplier": "zqsupplier"},
    ],
    "interactions": [
        {
            "interactionId": f"mk-{name}-talk",
            "customerId": f"mk-{name}",
            "channel": "EMAIL",
            "subject": f"Plainsubject{name}",
            "body": f"zqbody{name}",
            "source": "marked",
        }
        for name in ("seen", "gone")
    ],
}

_EVERYTHING_GONE = {
    "Plaingone", "Plaincitygone", "Plainnotesgone", "Plainjobgone", "Plainshipgone",
    "Plainsubjectgone",
}  # fmt: skip

#: The values that must not reach a consumer, in whatever way it asks.
HIDDEN: dict[str, set[str]] = {
    "crm": {
        "zqtaxseen", "zqtaxgone", "73137.73", "64246.64", "zqproductname", "zqsupplier",
    },
    "bi": {
        "zqtaxseen", "zqtaxgone", "73137.73", "64246.64", "1911-01-13", "1912-02-14",
        *(f"{marker}{name}" for name in ("seen", "gone") for marker in (
            "qmail", "zqphone", "zqline1", "zqline2", "zqpost", "zqgiven", "zqfamily",
            "qcontactmail", "zqcontactphone", "zqrecipient", "zqshipline", "zqshippost", "zqbody",
        )),
        *_EVERYTHING_GONE,
    },
}  # fmt: skip

#: By dataset, names that a consumer may not use; each with an unknown name of the same length.
HIDDEN_NAMES: dict[str, dict[str, list[tuple[str, str]]]] = {
    "crm": {
        "customers": [
            ("tax_id", "tax_iz"),
            ("taxId", "taxIz"),
            ("credit_limit", "credit_limiz"),
            ("creditLimit", "creditLimiz"),
        ]
    },
    "bi": {
        "customers": [
            ("tax_id", "tax_iz"),
            ("phone", "phonz"),
            ("birth_date", "birth_datz"),
            ("birthDate", "birthDatz"),
            ("billing_address.line1", "billing_address.linez"),
            ("billingAddress.postalCode", "billingAddress.postalCodz"),
        ],
        "contacts": [("given_name", "given_namz"), ("phone", "phonz")],
        "orders": [
            ("shipping_address.recipient", "shipping_address.recipienz"),
            ("customer.status", "customer.statuz"),
            ("customer.tax_id", "customer.tax_iz"),
        ],
        "interactions": [("body", "bodz"), ("customer.status", "customer.statuz")],
    },
}


def key_field(dataset: str) -> str:
    """The JSON name of a dataset's key."""
    return dataset.removesuffix("s") + "Id"


def load(hub: RunningHub) -> None:
    """Write the marked records as the administrator."""
    for dataset, records in RECORDS.items():
        body = "".join(json.dumps(r) + "\n" for r in records).encode()
        path = f"/v1/{dataset}:import?format=NDJSON"
        reply = hub.request("POST", path, consumer="admin", body=body)
        assert reply.status == 200, reply.text


def everything(hub: RunningHub, consumer: str) -> Iterator[tuple[str, bytes]]:
    """Each question and every byte of its answer, through all read paths."""
    yield "datasets", raw(hub.get("/v1/datasets", consumer))
    for dataset, records in RECORDS.items():
        for record in records:
            key = record[key_field(dataset)]
            for fields in ("", "*"):
                path = f"/v1/{dataset}/{key}"
                yield f"GET {path}", raw(hub.get(path, consumer, fields=fields))
        for query in queries(dataset):
            yield from by_rest(hub, consumer, dataset, query, FORMATS)
        for query in hidden_queries(consumer, dataset):
            yield from by_rest(hub, consumer, dataset, query, ("CSV",))
        yield from by_grpc(hub, consumer, dataset)


def queries(dataset: str) -> Iterator[dict[str, str]]:
    """Queries of all kinds, with visible and with masked names."""
    yield {}
    yield {"filter": 'source = "marked"'}
    if dataset != "products":
        yield {"filter": 'source = "marked"', "order_by": "email desc"}
        yield {"filter": 'email = "zq*"'}
    if dataset == "customers":
        yield {"filter": "credit_limit > 60000", "order_by": "credit_limit"}
        yield {"filter": 'source = "marked"', "fields": "billing_address,email,credit_limit"}


def hidden_queries(consumer: str, dataset: str) -> Iterator[dict[str, str]]:
    """Queries with names that the consumer may not use."""
    for hidden, _ in HIDDEN_NAMES.get(consumer, {}).get(dataset, []):
        yield {"filter": f"{hidden}:*"}
        yield {"order_by": f"{hidden} desc"}
        yield {"fields": hidden}


def by_rest(
    hub: RunningHub, consumer: str, dataset: str, query: dict[str, str], formats: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    small = hub.get(f"/v1/{dataset}", consumer, page_size=1, **query)
    yield f"{dataset} {query}", raw(small)
    if small.status == 200:
        yield f"{dataset} {query} token", decoded(small.json().get("nextPageToken", ""))
    yield f"{dataset} {query}", raw(hub.get(f"/v1/{dataset}", consumer, page_size=1000, **query))
    for name in formats:
        path = f"/v1/{dataset}:export"
        yield f"{path} {name} {query}", raw(hub.get(path, consumer, format=name, **query))
        page = hub.get(f"{path}Page", consumer, format=name, page_size=999, **query)
        yield f"{path}Page {name} {query}", raw(page)
        page = hub.get(f"{path}Page", consumer, format=name, page_size=1, **query)
        token = decoded(page.headers.get("penstock-next-page-token", ""))
        yield f"{path}Page {name} {query} token", raw(page) + token


def by_grpc(hub: RunningHub, consumer: str, dataset: str) -> Iterator[tuple[str, bytes]]:
    module, stub_class, message = STUBS[dataset]
    plural = dataset.capitalize()
    metadata = hub.metadata(consumer)
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = stub_class(channel)
        calls: list[tuple[str, dict[str, Any]]] = [(f"List{plural}", {"page_size": 1000})]
        key = dataset.removesuffix("s") + "_id"
        calls += [(f"Get{message}", {key: r[key_field(dataset)]}) for r in RECORDS[dataset]]
        calls += [(f"StreamExport{plural}", {"format": name}) for name in FORMATS]
        calls += [(f"Export{plural}", {"format": name, "page_size": 1000}) for name in FORMATS]
        calls += [
            (f"List{plural}", {"filter": f"{hidden}:*"})
            for hidden, _ in HIDDEN_NAMES.get(consumer, {}).get(dataset, [])
        ]
        for method, values in calls:
            request = getattr(module, f"{method}Request")(**values)
            call = getattr(stub, method)
            try:
                if method.startswith("StreamExport"):
                    pieces = [body.data for body in call(request, metadata=metadata)]
                    answer = b"".join(pieces)
                else:
                    answer = call(request, metadata=metadata).SerializeToString()
            except grpc.RpcError as error:
                refused: Any = error
                answer = repr((refused.details(), refused.trailing_metadata())).encode()
            yield f"{method} {values}", answer


def raw(reply: Reply) -> bytes:
    """Status, headers and body."""
    return repr((reply.status, reply.headers)).encode() + reply.body


def decoded(token: str) -> bytes:
    """What anybody who decodes a page token can read in it."""
    try:
        return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error as error:
        raise AssertionError(f"a page token that is not base64: {token}") from error
