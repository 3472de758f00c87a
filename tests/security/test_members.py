"""Members of repeated messages: every path shows them as the role allows, and a role that writes
without seeing them leaves them unchanged.

``lines.product_id`` and ``lines.quantity`` are clear, ``lines.unit_price`` is hidden and
``lines.discount`` is null for the reader here.
"""

from __future__ import annotations

import io
import json
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import grpc
import pyarrow.ipc
import pyarrow.parquet
import pytest

from feeds import Made, Scene, consumer_with, credentials, grant, patch, put
from harness import Reply, RunningHub
from penstock.api.v1 import orders_service_pb2, orders_service_pb2_grpc

HIDDEN, NOTHING = "73137.7313", "0.313131"
SEEN = {"productId": "zq-product", "quantity": 7}
LINE = {**SEEN, "unitPrice": HIDDEN, "discount": NOTHING}
MASKS: Any = {"lines.unit_price": "hide", "lines.discount": "null"}


@pytest.fixture(scope="module")
def reader(hub: RunningHub) -> Iterator[Made]:
    with consumer_with(hub, grant("orders", **MASKS)) as made:
        yield made


@pytest.fixture(scope="module")
def order(hub: RunningHub) -> str:
    key = f"t-members-{uuid.uuid4().hex[:8]}"
    put(hub, "orders", {"orderId": key, "customerId": "c", "source": key, "lines": [LINE, LINE]})
    return key


def key_of(made: Made) -> dict[str, str]:
    return {"x-api-key": made.key.removeprefix("key:")}


def get(made: Made, path: str, **query: object) -> Reply:
    """GET as the test's consumer."""
    return made.hub.request("GET", path, headers=key_of(made), query=query)


def test_every_format_leaves_out_what_is_hidden(hub: RunningHub, reader: Made, order: str) -> None:
    found: dict[str, Any] = {}
    for name in ("JSON", "NDJSON", "CSV", "XML", "XLSX", "PARQUET", "ARROW"):
        asked = {"format": name, "filter": f'order_id = "{order}"'}
        reply = get(reader, "/v1/orders:export", **asked)
        assert reply.status == 200, reply.text
        page = get(reader, "/v1/orders:exportPage", **asked)
        for body in (reply.body, page.body):
            assert HIDDEN.encode() not in body and NOTHING.encode() not in body, name
        found[name] = reply.body
    nulled = {**SEEN, "discount": None}
    assert json.loads(found["NDJSON"].splitlines()[0])["lines"] == [nulled, nulled]
    assert json.loads(found["JSON"])[0]["lines"] == [nulled, nulled]
    row = ET.fromstring(found["XML"]).find("order")
    assert row is not None
    assert [sorted(m.tag for m in item) for item in row.iter("item")] == [
        ["product_id", "quantity"]
    ] * 2
    line = {"product_id": "zq-product", "quantity": 7, "discount": None}
    for body in (found["PARQUET"], found["ARROW"]):
        assert nested_lines(body) == [[line, line]], "without a column for what is hidden"
    asked = {"nested": "json", "filter": f'order_id = "{order}"'}
    for name in ("PARQUET", "ARROW"):
        reply = get(reader, "/v1/orders:export", format=name, **asked)
        assert [json.loads(cell) for cell in nested_lines(reply.body)] == [[SEEN, SEEN]]
    whole = hub.get("/v1/orders:export", "admin", format="NDJSON", filter=f'order_id = "{order}"')
    assert HIDDEN.encode() in whole.body, "negative control"


def nested_lines(body: bytes) -> list[Any]:
    """The column of lines in a file of Parquet or Arrow."""
    if body.startswith(b"PAR1"):
        table = pyarrow.parquet.read_table(io.BytesIO(body))
    else:
        table = pyarrow.ipc.open_stream(body).read_all()
    found: list[Any] = table.column("lines").to_pylist()
    return found


def test_records_and_feeds_leave_out_what_is_hidden(
    hub: RunningHub, reader: Made, order: str
) -> None:
    got = get(reader, f"/v1/orders/{order}").json()
    listed = get(reader, "/v1/orders", filter=f'order_id = "{order}"').json()
    assert got["lines"] == listed["orders"][0]["lines"]
    assert [{**line, "unitPrice": ""} for line in got["lines"]] == [{**SEEN, "unitPrice": ""}] * 2
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = orders_service_pb2_grpc.OrdersStub(channel)
        request = orders_service_pb2.GetOrderRequest(order_id=order)
        record = stub.GetOrder(request, metadata=credentials(hub, reader.key))
    assert [(n.product_id, n.unit_price, n.HasField("discount")) for n in record.lines] == [
        ("zq-product", "", False)
    ] * 2
    with Scene(hub, reader.key, "orders", include_before=True) as scene:
        dearer = {**LINE, "unitPrice": "1.0000"}
        patch(hub, "orders", order, lines=[dearer, LINE])
        patch(hub, "orders", order, lines=[{**LINE, "quantity": 8}, LINE])
        events = scene.told()
    assert len(events) == 1, "a change of what is hidden is no event"
    assert events[0].changed[0] == "lines"
    for image in (events[0].before, events[0].after):
        assert image and HIDDEN.encode() not in image and b"1.0000" not in image


def test_a_hidden_member_does_not_exist_for_filters(
    hub: RunningHub, reader: Made, order: str
) -> None:
    def asked(filter: str, made: Made | None = reader) -> Any:
        query = {"filter": f'order_id = "{order}" AND {filter}'}
        return get(made, "/v1/orders", **query) if made else hub.get("/v1/orders", **query)

    unknown = asked("lines.unit_pricf:*")
    for text in (f'lines.unit_price:"{HIDDEN}"', "lines.unit_price:*", "lines.unitPrice:*"):
        refused = asked(text)
        assert (refused.status, refused.reason) == (400, unknown.reason)
    assert asked(f'lines.unit_price:"{HIDDEN}"', None).json()["orders"], "negative control"
    assert asked(f'lines.discount:"{NOTHING}"').json() == {}
    assert asked('lines.product_id:"zq-product"').json()["orders"]
    assert asked("lines:*").json()["orders"]


def test_members_are_listed_as_they_are_seen(hub: RunningHub, reader: Made) -> None:
    datasets = get(reader, "/v1/datasets").json()["datasets"]
    fields = next(d for d in datasets if d["name"] == "orders")["fields"]
    lines = next(f for f in fields if f["path"] == "lines")
    assert [(m["path"], m.get("mask")) for m in lines["members"]] == [
        ("lines.product_id", None),
        ("lines.quantity", None),
        ("lines.discount", "NULL"),
    ]
    schema = get(reader, "/v1/datasets/orders/schema.xsd").text
    assert 'name="product_id"' in schema and "unit_price" not in schema
    body = {"dataset": "orders", "consumer_id": reader.name}
    answer = hub.request("POST", "/v1/access:explain", consumer="admin", json_body=body).json()
    verdicts = {f["path"]: f for f in answer["fields"]}
    assert verdicts["lines.unit_price"]["mask"] == "hide"
    assert "field_masks names lines.unit_price" in verdicts["lines.unit_price"]["reason"]
    assert not verdicts["lines"].get("writable")


def test_who_does_not_see_all_members_cannot_write_them(hub: RunningHub, order: str) -> None:
    masked = grant("orders", **MASKS)
    masked["actions"] += ["create", "update"]
    before = hub.get(f"/v1/orders/{order}", "admin").json()["lines"]
    with consumer_with(hub, masked) as made:
        path = f"/v1/orders/{order}"
        for lines in ([], [SEEN], [LINE]):
            refused = hub.request(
                *("PATCH", path),
                headers=key_of(made),
                json_body={"lines": lines},
                query={"update_mask": "lines"},
            )
            assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
            assert "you may not write lines: you do not see all members of it" in refused.text
        line = json.dumps({"orderId": order, "lines": [SEEN], "carrier": "Other"}).encode()
        refused = hub.request(
            *("POST", "/v1/orders:import?format=NDJSON"), headers=key_of(made), body=line
        )
        assert refused.status == 400 and "lines" in refused.text
        batch = {"orders": [{"orderId": order, "lines": [SEEN]}]}
        refused = hub.request(
            *("POST", "/v1/orders:batchUpsert"), headers=key_of(made), json_body=batch
        )
        assert refused.status == 403
        written = hub.request("PATCH", path, headers=key_of(made), json_body={"carrier": "Mine"})
        assert written.status == 200 and HIDDEN not in written.text
    kept = hub.get(path, "admin").json()
    assert (kept["carrier"], kept["lines"]) == ("Mine", before)
