"""Rows that a role does not see do not exist for it: not listed, not counted, not
distinguishable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from harness import RunningHub
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub

from .marked import RECORDS, key_field
from .test_hidden_values import shape

pytestmark = pytest.mark.lane("security/marked")

DEPENDENT = ("contacts", "orders", "interactions")


def keys(hub: RunningHub, dataset: str, consumer: str) -> set[str]:
    """The keys of all records that a consumer sees, from an export."""
    key = dataset.removesuffix("s") + "_id"
    reply = hub.get(f"/v1/{dataset}:export", consumer, format="CSV", fields=key)
    return set(reply.text.splitlines()[1:])


def rows(hub: RunningHub, dataset: str) -> list[tuple[Any, ...]]:
    key = dataset.removesuffix("s") + "_id"
    join = "" if dataset == "customers" else " LEFT JOIN data.customers c USING (customer_id)"
    status = "status" if dataset == "customers" else "c.status"
    return hub.sql(f"SELECT d.{key}, {status} FROM data.{dataset} d{join}")


@pytest.mark.parametrize("dataset", ["customers", *DEPENDENT])
def test_bi_sees_active_customers_and_what_is_theirs(marked_hub: RunningHub, dataset: str) -> None:
    stored = rows(marked_hub, dataset)
    active = {key for key, status in stored if status == "ACTIVE"}
    assert 0 < len(active) < len(stored)
    assert keys(marked_hub, dataset, "bi") == active
    assert keys(marked_hub, dataset, "crm") == {key for key, _ in stored}


def test_bi_sees_all_products(marked_hub: RunningHub) -> None:
    stored = {key for (key,) in marked_hub.sql("SELECT product_id FROM data.products")}
    assert keys(marked_hub, "products", "bi") == stored


@pytest.fixture
def churned(marked_hub: RunningHub) -> Iterator[None]:
    """The customer mk-seen is CHURNED while the test runs."""

    def become(status: str) -> None:
        path = "/v1/customers/mk-seen"
        reply = marked_hub.request("PATCH", path, consumer="crm", json_body={"status": status})
        assert reply.json()["status"] == status

    become("CHURNED")
    yield
    become("ACTIVE")
    assert "mk-seen" in keys(marked_hub, "customers", "bi")


@pytest.mark.usefixtures("churned")
def test_a_customer_that_leaves_takes_all_of_its_own_along(marked_hub: RunningHub) -> None:
    for dataset in ("customers", *DEPENDENT):
        key = RECORDS[dataset][0][key_field(dataset)]
        assert marked_hub.get(f"/v1/{dataset}/{key}", "crm").status == 200
        assert marked_hub.get(f"/v1/{dataset}/{key}", "bi").status == 404
        assert key not in keys(marked_hub, dataset, "bi")
        listed = marked_hub.get(f"/v1/{dataset}", "bi", filter='source = "marked"').json()
        assert key not in {r[key_field(dataset)] for r in listed[dataset]}


def test_an_invisible_record_is_an_absent_one(marked_hub: RunningHub) -> None:
    for dataset in ("customers", *DEPENDENT):
        key = RECORDS[dataset][1][key_field(dataset)]
        absent = key.replace("gone", "none")
        assert marked_hub.get(f"/v1/{dataset}/{key}", "admin").status == 200
        for fields in ("", "source"):
            found, missing = (
                marked_hub.get(f"/v1/{dataset}/{k}", "bi", fields=fields) for k in (key, absent)
            )
            assert found.status == 404
            assert shape(found, key) == shape(missing, absent)


def test_an_invisible_record_is_an_absent_one_by_grpc(marked_hub: RunningHub) -> None:
    def refusal(key: str) -> tuple[Any, ...]:
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetCustomer(
                api.GetCustomerRequest(customer_id=key), metadata=marked_hub.metadata("bi")
            )
        refused: Any = raised.value
        names = sorted(name for name, _ in refused.trailing_metadata())
        return refused.code(), refused.details().replace(key, "<key>"), names

    with grpc.insecure_channel(f"127.0.0.1:{marked_hub.port}") as channel:
        stub = CustomersStub(channel)
        assert refusal("mk-gone") == refusal("mk-none")


def test_pages_do_not_count_what_is_hidden(marked_hub: RunningHub) -> None:
    """Every page but the last is full: hidden rows leave no gaps."""
    token, sizes = "", []
    while True:
        page = marked_hub.get("/v1/customers", "bi", page_size=20, page_token=token).json()
        sizes.append(len(page.get("customers", [])))
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert set(sizes[:-1]) == {20}
    assert sum(sizes) == len(keys(marked_hub, "customers", "bi"))
