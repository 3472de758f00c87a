"""Commands of shapes: whose they are, which scopes they need, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fake_organs import CALLER, CommitFailed, HubLike, Row
from penstockd.catalog import FieldClass
from penstockd.commands.shapes.compare_shapes import compare_shapes
from penstockd.commands.shapes.create_shape import create_shape
from penstockd.commands.shapes.delete_shape import delete_shape
from penstockd.commands.shapes.get_shape import get_shape
from penstockd.commands.shapes.list_shapes import list_shapes
from penstockd.commands.shapes.preview_shape import preview_shape
from penstockd.commands.shapes.update_shape import update_shape
from penstockd.errors import PermissionDenied, ShapeNotFound, ValueInvalid
from penstockd.policy.model import Action, Grant, Mask, Permission, Role
from penstockd.shapes.model import ShapeColumn, ShapeDefinition, compare_columns
from penstockd.webhooks.model import Selection

from .test_webhooks import webhook_row

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PUBLIC = {FieldClass.PUBLIC: Mask.CLEAR}
GRANT = Grant("reader", "customers", frozenset({Action.READ}), PUBLIC, {}, "")
READER = Role("reader", "", (GRANT,))
WRITE = Permission.WEBHOOKS_WRITE.value
ELSEWHERE = frozenset({"orders:read"})
NAMES = ShapeDefinition("customers", [ShapeColumn("Name", field="name")])
MORE = ShapeDefinition("customers", [ShapeColumn("Id", field="customer_id"), *NAMES.columns])


@pytest.fixture
def hub(make_hub: Any) -> HubLike:
    """A hub whose caller owns the shape "names" in two versions."""
    return with_names(make_hub(READER))


def with_names(hub: HubLike) -> HubLike:
    rows = [
        Row.of(shape_id="names", version=at, definition=d.document().decode(), create_time=NOW)
        for at, d in ((1, NAMES), (2, MORE))
    ]

    def find(consumer: str, shape_id: str, version: int) -> list[Row]:
        known = consumer == CALLER and shape_id == "names" and version <= 2
        return [rows[version - 1]] if known else []

    hub.give(
        {
            "AND ($3 = 0 OR version = $3)": find,
            "DISTINCT ON (shape_id)": lambda consumer, *_: rows[1:] if consumer == CALLER else [],
            "RETURNING create_time": [(NOW,)],
        }
    )
    return hub


def with_webhook(hub: HubLike, *selections: Selection) -> HubLike:
    """The caller has a webhook, which a token without scopes has made."""
    row = webhook_row(selections=orjson.dumps([s.document() for s in selections]))
    hub.give({"FROM hub.webhook ": [row]})
    return hub


async def test_create_shape(hub: HubLike) -> None:
    made = await create_shape(hub, call := hub.call(), "new", NAMES)
    assert (made.shape_id, made.version, call.entry.record_key) == ("new", 1, "new")
    assert call.recorded
    for shape_id, definition in (
        ("Not an id", NAMES),
        ("new", ShapeDefinition("customers", [])),
        ("new", ShapeDefinition("customers", [ShapeColumn("A", field="nothing")])),
    ):
        with pytest.raises(ValueInvalid):
            await create_shape(hub, hub.call(), shape_id, definition)
    for dataset in ("orders", "nothing"):  # the same for both
        with pytest.raises(PermissionDenied, match=f"{dataset}"):
            await create_shape(hub, hub.call(), "new", ShapeDefinition(dataset, NAMES.columns))
    assert hub.database.committed == 1


async def test_update_shape(hub: HubLike) -> None:
    assert (await update_shape(hub, hub.call(), "names", NAMES)).version == 3
    with pytest.raises(ShapeNotFound):
        await update_shape(hub, hub.call(), "none", NAMES)
    hub.database.commits_fail = True
    with pytest.raises(CommitFailed):
        await update_shape(hub, call := hub.call(), "names", NAMES)
    assert not call.recorded


async def test_update_shape_that_a_webhook_uses_takes_the_right_to_change_the_webhook(
    make_hub: Any,
) -> None:
    reading, writing = frozenset({"customers:read"}), frozenset({"customers:read", WRITE})
    owner = replace(READER, permissions=frozenset({Permission.WEBHOOKS_WRITE}))
    used, pinned, other = (Selection("customers", shape=s) for s in ("names", "names@2", "more"))
    hub = with_webhook(with_names(make_hub(owner)), used)
    with pytest.raises(PermissionDenied, match=WRITE):
        await update_shape(hub, hub.call(scopes=reading), "names", NAMES)
    assert hub.database.committed == 0
    for scopes in (writing, None):
        assert (await update_shape(hub, hub.call(scopes=scopes), "names", NAMES)).version == 3
    with_webhook(hub, Selection("orders"), used)
    with pytest.raises(PermissionDenied, match="shows orders, which your token may not read"):
        await update_shape(hub, hub.call(scopes=writing), "names", NAMES)
    for selection in (pinned, other, Selection("customers")):
        with_webhook(hub, selection)
        assert (await update_shape(hub, hub.call(scopes=reading), "names", NAMES)).version == 3
    # A webhook whose owner may no longer have any sends nothing.
    hub = with_webhook(with_names(make_hub(READER)), used)
    assert (await update_shape(hub, hub.call(scopes=reading), "names", NAMES)).version == 3


async def test_get_shape(hub: HubLike) -> None:
    found, problems = await get_shape(hub, call := hub.call(), "names", 1)
    assert (found.version, problems) == (1, {"": "lacks a column for the key 'customer_id'"})
    assert call.entry.record_key == "names"
    for shape_id, version in (("none", 0), ("names", 3)):
        with pytest.raises(ShapeNotFound):
            await get_shape(hub, hub.call(), shape_id, version)


async def test_list_shapes_of_what_the_token_may_read(hub: HubLike) -> None:
    found, token = await list_shapes(hub, call := hub.call(), 0, "")
    assert token == "" and [shape.version for shape in found] == [2]
    assert call.entry.row_count == 1
    with pytest.raises(PermissionDenied):  # it may read nothing at all
        await list_shapes(hub, hub.call(scopes=ELSEWHERE), 0, "")


async def test_compare_shapes(hub: HubLike) -> None:
    (found,) = compare_columns(*await compare_shapes(hub, hub.call(), "names", 0, 0))
    assert (found.name, found.from_position, found.to_position) == ("Id", 0, 1)
    assert await compare_shapes(hub, hub.call(), "names", 2, 2) == (MORE, MORE)


async def test_preview_shape(hub: HubLike) -> None:
    hub.give({"SELECT count(*) AS count_1": [(0,)]})
    page, problems = await preview_shape(hub, call := hub.call(), MORE, "CSV", "", 0)
    assert (page.body, call.entry.row_count, problems) == (b"Id,Name\n", 0, {})
    _, problems = await preview_shape(hub, hub.call(), NAMES, "CSV", "", 0)
    assert problems == {"": "lacks a column for the key 'customer_id'"}
    with pytest.raises(ValueInvalid):
        await preview_shape(hub, hub.call(), MORE, "CSV", "", -1)


async def test_delete_shape(hub: HubLike) -> None:
    await delete_shape(hub, call := hub.call(), "names")
    assert hub.asked("DELETE FROM hub.shape") == [(CALLER, "names")] and call.recorded


async def test_a_token_that_may_not_read_the_dataset_uses_no_shape(hub: HubLike) -> None:
    for work in (
        get_shape(hub, hub.call(scopes=ELSEWHERE), "names", 0),
        update_shape(hub, hub.call(scopes=ELSEWHERE), "names", NAMES),
        compare_shapes(hub, hub.call(scopes=ELSEWHERE), "names", 0, 0),
        preview_shape(hub, hub.call(scopes=ELSEWHERE), NAMES, "CSV", "", 0),
        delete_shape(hub, hub.call(scopes=ELSEWHERE), "names"),
    ):
        with pytest.raises(PermissionDenied):
            await work
    assert hub.database.committed == 0
