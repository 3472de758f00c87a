"""Sizes of replies: estimates are upper bounds, and every list of the hub stays within the room."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor

from penstockd.catalog.load import load_catalog
from penstockd.commands import access
from penstockd.keyring import FixedKey
from penstockd.paging import Paging
from penstockd.query import PageTokens
from penstockd.reply_room import count_fitting, value_size
from penstockd.resources import find_descriptors

COMMANDS = Path(access.__file__).parents[1]
#: Lists without page tokens, and why their replies are small.
BOUNDED = {
    "ListDatasets": "those of the model",
    "ListErrors": "those of the hub",
    "ListShapeVersions": "100 numbers",
}
TEXTS = ["plain", "<<>>", "\x01\x02\x7f", '"\\', "\u2028\u2029", "ünï", "𠮷😀", "", "\ufeff"]


def fill(chance: random.Random, message: Any, depth: int = 0) -> None:
    """Set every field of a message to a value that is long in JSON."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            if depth > 3 or field.message_type.GetOptions().map_entry:
                continue
            if field.message_type.full_name.startswith("google.protobuf."):
                continue
            made = getattr(message, field.name)
            fill(chance, made.add() if field.is_repeated else made, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(value_of(chance, field) for _ in range(3))
        else:
            setattr(message, field.name, value_of(chance, field))


def value_of(chance: random.Random, field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return chance.choice(field.enum_type.values).number
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(chance.randrange(50))
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(TEXTS) * chance.randrange(1, 50)
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.random()
    return chance.randrange(2**31)


def as_sidecar_prints(message: Any) -> int:
    """The bytes of a message as JSON, with the escapes of the sidecar's printer."""
    text = json_format.MessageToJson(message, indent=None, ensure_ascii=False)
    escaped = sum(text.count(c) for c in "<>\x7f\u2028\u2029\ufeff")
    return len(text.encode()) + 6 * escaped


def test_no_reply_is_larger_than_its_estimate() -> None:
    pool = load_catalog(find_descriptors()).pool
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for name in ("Access", "Audit", "Webhooks", "Changes", "Issuers", "Shapes", "Subscriptions"):
        for method in pool.FindServiceByName(f"penstock.hub.v1.{name}").methods:
            reply = message_factory.GetMessageClass(method.output_type)()
            fill(chance, reply)
            assert value_size(reply, "GRPC") >= reply.ByteSize(), method.full_name
            assert value_size(reply, "REST") >= as_sidecar_prints(reply), method.full_name


@pytest.mark.parametrize("surface", ["GRPC", "REST"])
def test_a_page_ends_before_the_room_does(surface: str) -> None:
    size = lambda text: value_size(text, surface)  # noqa: E731
    texts = ["<" * 1000] * 100
    count = count_fitting(texts, size, 50_000)
    assert 0 < count < 100 and sum(map(size, texts[:count])) <= 50_000
    assert count_fitting(texts, size, 1) == 1  # a page that may go on is never empty
    assert count_fitting([], size, 1) == 0
    assert count_fitting(texts[:3], size, 50_000) == 3


@pytest.mark.parametrize("surface", ["GRPC", "GRPC_WEB", "REST"])
def test_pages_of_the_hubs_lists_end_early_and_join_into_the_whole(surface: str) -> None:
    tokens = PageTokens(FixedKey(b"a secret of thirty-two bytes...."))
    entry = SimpleNamespace(surface=surface, row_count=None)
    call: Any = SimpleNamespace(entry=entry, principal=SimpleNamespace(consumer_id="c"))
    items = [{"id": n, "filter": "<" * 120_000} for n in range(100)]
    found, token = list[dict[str, object]](), ""
    while not found or token:
        paging = Paging(tokens, call, "things", 50, token)
        after = paging.after(-1)
        page, token = paging.cut(items[after + 1 :][: paging.limit], lambda i: i["id"])
        assert 0 < len(page) < 50
        assert entry.row_count == len(page)
        found += page
    assert found == items


def test_every_list_of_the_hub_is_paged_or_small() -> None:
    pool = load_catalog(find_descriptors()).pool
    services = pool.FindFileByName("penstock/hub/v1/access.proto").package
    found = set()
    for file in find_hub_files(pool, services):
        for service in file.services_by_name.values():
            for method in service.methods:
                if not method.name.startswith("List"):
                    continue
                fields = method.output_type.fields_by_name
                paged = "next_page_token" in fields or "next_cursor" in fields
                assert paged != (method.name in BOUNDED), method.full_name
                found.add(method.name)
    assert {"ListEntries", "ListConsumers", "ListDeliveries", "ListShapes"} <= found


def find_hub_files(pool: Any, package: str) -> list[Any]:
    names = Path(__file__).parents[2].glob("protos/penstock/hub/v1/*.proto")
    return [pool.FindFileByName(f"{package.replace('.', '/')}/{name.name}") for name in names]


def test_every_paged_command_cuts_its_pages() -> None:
    """Each use of Paging ends with ``cut`` or ``fit``, which stay within the room."""
    users = [p for p in COMMANDS.rglob("*.py") if "Paging(" in p.read_text()]
    assert len(users) >= 9
    for path in users:
        nodes = ast.walk(ast.parse(path.read_text()))
        called = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert called & {"cut", "fit"}, path.name
