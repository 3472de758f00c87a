"""Pages end before they are too large for their carrier, and together they are complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from harness import RunningHub
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.client import Client
from penstockd.reply_room import GRPC_BYTES, REST_BYTES

#: Together, these records are larger than a page may be on any surface.
COUNT, NOTES = 90, 100_000
FILTER = 'source = "wide"'
KEYS = [f"wide-{n:03}" for n in range(COUNT)]

_FILL = """
DO $$
DECLARE columns text;
BEGIN
    SELECT string_agg(quote_ident(column_name), ', ') INTO columns FROM information_schema.columns
    WHERE table_schema = 'data' AND table_name = 'customers'
    AND column_name NOT IN ('customer_id', 'notes', 'source');
    EXECUTE format('INSERT INTO data.customers (customer_id, notes, source, %s)
        SELECT ''wide-'' || lpad(n::text, 3, ''0''), repeat({text}, {times}), ''wide'', %s
        FROM (SELECT * FROM data.customers WHERE customer_id LIKE ''c0%%'' LIMIT 1) AS one,
        generate_series(0, {last}) AS n', columns, columns);
END $$
"""


@pytest.fixture(params=["plain", "escaped"])
def wide(spare: RunningHub, request: pytest.FixtureRequest) -> Iterator[RunningHub]:
    """A hub with records that are large, or become so in JSON."""
    text, times = ("''x''", NOTES) if request.param == "plain" else ("''<''", NOTES // 5)
    spare.sql(_FILL.format(text=text, times=times, last=COUNT - 1))
    yield spare
    spare.sql("DELETE FROM data.customers WHERE source = 'wide'")


@pytest.mark.parametrize(("size", "order"), [(0, ""), (COUNT, "customer_id desc"), (1000, "name")])
def test_pages_of_a_list_over_rest(wide: RunningHub, size: int, order: str) -> None:
    found, token, pages = list[str](), "", 0
    while pages == 0 or token:
        query: dict[str, Any] = {
            "filter": FILTER,
            "page_size": size,
            "order_by": order,
            "page_token": token,
        }
        reply = wide.get("/v1/customers", **query)
        assert reply.status == 200, reply.text
        assert len(reply.body) <= REST_BYTES
        found += [r["customerId"] for r in reply.json()["customers"]]
        token, pages = reply.json().get("nextPageToken", ""), pages + 1
    assert found == (KEYS[::-1] if order.endswith("desc") else KEYS)
    assert pages > 1


def test_pages_of_a_list_over_grpc(wide: RunningHub) -> None:
    request = api.ListCustomersRequest(filter=FILTER, page_size=1000)
    found = []
    # A client's usual limit is 4 MiB.
    with grpc.insecure_channel(f"127.0.0.1:{wide.port}") as channel:
        stub = CustomersStub(channel)
        while True:
            reply = stub.ListCustomers(request, metadata=wide.metadata("admin"))
            assert 0 < reply.ByteSize() <= GRPC_BYTES
            found += [r.customer_id for r in reply.customers]
            if not reply.next_page_token:
                break
            request.page_token = reply.next_page_token
    assert found == KEYS


@pytest.mark.parametrize("form", ["NDJSON", "CSV", "XML", "PARQUET"])
def test_pages_as_files(wide: RunningHub, form: str) -> None:
    rows, token, pages = 0, "", 0
    while pages == 0 or token:
        query: dict[str, Any] = {
            "filter": FILTER,
            "format": form,
            "page_size": 1000,
            "page_token": token,
        }
        reply = wide.get("/v1/customers:exportPage", **query)
        assert reply.status == 200, reply.text
        assert len(reply.body) <= REST_BYTES
        rows += int(reply.headers["penstock-receipt-rows"])
        token, pages = reply.headers.get("penstock-next-page-token", ""), pages + 1
    assert rows == COUNT


def test_pages_as_files_over_grpc(wide: RunningHub) -> None:
    request = api.ExportCustomersRequest(filter=FILTER, page_size=1000, format="NDJSON")
    with grpc.insecure_channel(f"127.0.0.1:{wide.port}") as channel:
        call: Any = CustomersStub(channel).ExportCustomers
        reply, done = call.with_call(request, metadata=wide.metadata("admin"))
    assert len(reply.data) <= GRPC_BYTES
    headers = dict(done.initial_metadata())
    cut = int(headers["penstock-receipt-rows"]) < COUNT
    assert cut == ("penstock-next-page-token" in headers)


def test_the_library_follows_short_pages(wide: RunningHub) -> None:
    with Client(wide.url, api_key=wide.api_key) as client:
        every = client.dataset("customers").list(filter=FILTER, page_size=1000)
        assert [record.customer_id for record in every] == KEYS
