"""Requests parsed in parts equal those that were sent, or are refused where they exceed a bound."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message

from chance import SEED
from fields import all_routes, enum_places, put, sized_places
from penstock.api.v1 import customers_service_pb2 as customers
from penstock.api.v1 import orders_service_pb2 as orders
from penstock.hub.v1 import webhooks_pb2
from penstock.model.v1.orders_pb2 import Order
from penstockd.budget import Budget, await_metered
from penstockd.catalog.load import load_catalog
from penstockd.catalog.varint import encode_varint
from penstockd.errors import Refused, RequestMalformed, RequestTooLarge, ValueInvalid
from penstockd.resources import find_descriptors
from penstockd.rpc import bounds, reading
from penstockd.rpc.bounds import FIELDS, LARGE_MESSAGE, limit_of, message_limit
from penstockd.rpc.reading import RequestReader


async def read(kind: type[Message], data: bytes, most: int = LARGE_MESSAGE) -> Any:
    return await RequestReader(kind, most).read(data)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse even small messages in parts."""
    monkeypatch.setattr(reading, "PIECE_BYTES", 40)
    monkeypatch.setattr(reading, "PIECE_FIELDS", 7)


def some_batch(chance: random.Random) -> Message:
    """Orders with lines, in many shapes."""
    batch = orders.BatchUpsertOrdersRequest(request_id="r" * chance.randint(0, 90))
    for i in range(chance.randint(0, 12)):
        order = batch.orders.add(order_id=f"o{i}", currency_code="EUR")
        if chance.random() < 0.7:
            order.shipping_address.city = "Ō" * chance.randint(0, 60)
        for k in range(chance.randint(0, 9)):
            order.lines.add(product_id="p" * chance.randint(0, 50), quantity=k)
    return batch


@pytest.mark.usefixtures("small_pieces")
async def test_parts_are_the_whole() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for _ in range(300):
        made = some_batch(chance)
        data = made.SerializeToString()
        # A message may come in any number of pieces, singular messages included.
        doubled = data + some_batch(chance).SerializeToString()
        for sent in (data, doubled):
            assert await read(type(made), sent) == type(made).FromString(sent)


@pytest.mark.usefixtures("small_pieces")
async def test_damaged_bytes_are_read_alike_or_refused() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    refused = 0
    for _ in range(1500):
        data = bytearray(some_batch(chance).SerializeToString() or b"\x0a\x00")
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        del data[chance.randint(len(data) // 2, len(data)) :]
        kind = orders.BatchUpsertOrdersRequest
        try:
            whole: Message | None = kind.FromString(bytes(data))
        except DecodeError:
            whole = None
        try:
            parts: Message | None = await read(kind, bytes(data))
        except RequestMalformed:
            parts = None
            refused += 1
        # Groups, which none of our messages has, are refused only when read in parts.
        assert parts == whole or parts is None
    assert 0 < refused < 1500


HUGE = 4_000_000
#: Fields whose content takes long to parse, as each item is a message.
OF_MESSAGES = ("lines of an order", "lines in a batch", "empty orders")


def hostile() -> dict[str, tuple[type[Message], bytes, str]]:
    """Messages of some MiB that are quick to send, and the field at which each is refused."""
    line = Order.DESCRIPTOR.fields_by_name["lines"]
    lines = (encode_varint(line.number << 3 | 2) + b"\0") * (HUGE // 2)
    order = orders.BatchUpsertOrdersRequest.DESCRIPTOR.fields_by_name["orders"]
    in_batch = encode_varint(order.number << 3 | 2) + encode_varint(len(lines)) + lines
    created = orders.CreateOrderRequest.DESCRIPTOR.fields_by_name["order"]
    in_create = encode_varint(created.number << 3 | 2) + encode_varint(len(lines)) + lines
    selections = b"\x32\x00" * (HUGE // 8)
    webhook = b"\x0a" + encode_varint(len(selections)) + selections
    changes = customers.ListCustomerChangesRequest
    operations = changes(operations=["CREATED"] * (HUGE // 8)).SerializeToString()
    unpacked = b"".join(
        [encode_varint(changes.DESCRIPTOR.fields_by_name["operations"].number << 3), b"\1"]
    )
    return {
        "lines of an order": (orders.CreateOrderRequest, in_create, "order.lines"),
        "lines in a batch": (orders.BatchUpsertOrdersRequest, in_batch, "orders[0].lines"),
        "empty orders": (
            orders.BatchUpsertOrdersRequest,
            (encode_varint(order.number << 3 | 2) + b"\0") * (HUGE // 2),
            "orders",
        ),
        "selections": (webhooks_pb2.CreateWebhookRequest, webhook, "webhook.selections"),
        "operations": (changes, operations, "operations"),
        "operations, unpacked": (changes, unpacked * (HUGE // 8), "operations"),
        "a field again and again": (orders.CreateOrderRequest, b"\x12\0" * (HUGE // 2), ""),
        "unknown fields": (orders.CreateOrderRequest, b"\xf8\x3f\x01" * (HUGE // 3), ""),
    }


@pytest.mark.parametrize("name", hostile())
async def test_a_count_is_refused_before_contents_are_made(name: str) -> None:
    kind, data, field = hostile()[name]
    least, plain = [], []
    for _ in range(3):
        with pytest.raises(Refused) as raised:
            budget = Budget("test")
            await await_metered(budget, read(kind, data))
        least.append(budget.longest)
        at_once = Budget("test")
        await await_metered(at_once, _at_once(kind, data))
        plain.append(at_once.longest)
    if field:
        assert isinstance(raised.value, RequestTooLarge)
        assert [v.field for v in raised.value.violations] == [field]
    else:
        assert isinstance(raised.value, RequestMalformed)
    if name in OF_MESSAGES:
        # The control: the earlier way blocks the loop longer, since it parses the contents.
        assert min(least) * 1.5 < min(plain), (least, plain)


async def _at_once(kind: type[Message], data: bytes) -> None:
    for _ in kind.FromString(data).ListFields():
        pass


async def test_a_message_has_a_bound_in_bytes() -> None:
    kind = webhooks_pb2.ListWebhooksRequest
    most = message_limit(kind.DESCRIPTOR)
    assert most == bounds.MESSAGE < message_limit(orders.CreateOrderRequest.DESCRIPTOR)
    with pytest.raises(RequestTooLarge, match="more than 1,048,576 bytes"):
        await read(kind, b"\0" * (most + 1), most)


def test_every_bound_is_one_of_a_field() -> None:
    pool = load_catalog(find_descriptors()).pool
    for name in FIELDS:
        assert pool.FindFieldByName(name) is not None


async def test_every_field_is_refused_beyond_its_bound_and_named() -> None:
    """For fields that the server bounds; records' fields are checked with their values."""
    seen = set()
    for route in all_routes():
        for place in sized_places(route):
            if any(bounds.in_record(f) for f in place.path):
                continue
            limit = limit_of(place.field)
            if limit > 1_000_000:
                continue
            text: Any = b"x" if place.field.type == place.field.TYPE_BYTES else "x"
            many = not (place.field.is_repeated)
            data = place.message(text * (limit + 1) if many else limit + 1).SerializeToString()
            with pytest.raises(RequestTooLarge) as raised:
                await read(route.request, data)
            (violation,) = raised.value.violations
            assert violation.field.endswith(place.field.name), place.name
            seen.add(place.field.full_name)
            good = place.message(text * limit if many else limit).SerializeToString()
            await read(route.request, good)
    assert len(seen) > 200


@pytest.mark.parametrize("number", [7777, -1])
async def test_a_number_that_an_enum_does_not_have_is_refused_and_named(number: int) -> None:
    """For every enum of every method; those of records are checked with their values."""
    seen = set()
    for route in all_routes():
        for place in enum_places(route):
            if any(bounds.in_record(f) for f in place.path):
                continue
            assert place.field.enum_type is not None
            good, *_ = place.field.enum_type.values_by_number
            many = place.field.is_repeated
            await read(route.request, place.message([good] if many else good).SerializeToString())
            data = place.message([good, number] if many else number).SerializeToString()
            with pytest.raises(ValueInvalid) as raised:
                await read(route.request, data)
            (violation,) = raised.value.violations
            named = place.field.name + ("[1]" if many else "")
            assert violation.field.endswith(named), place.name
            assert str(number) in violation.description
            seen.add(place.field.full_name)
    assert len(seen) > 10, seen


def test_put_makes_what_it_says() -> None:
    """The walker's own: it makes a message with that many items."""
    order, fields = Order(), list[Any](Order.DESCRIPTOR.fields)
    put(order, next(f for f in fields if f.name == "lines"), 3)
    assert len(order.lines) == 3
