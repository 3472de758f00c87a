"""A database is brought to the model: additions automatically, other changes by command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from penstockd.catalog import Catalog, Field, Kind
from penstockd.store.migrate import (
    MigrationFailed,
    MigrationNeeded,
    apply_migration,
    plan_migration,
)


def with_fields(
    catalog: Catalog, name: str, change: Callable[[list[Field]], list[Field]]
) -> Catalog:
    """The catalog with changed fields in one dataset."""
    datasets = {d.name: d for d in catalog}
    datasets[name] = replace(datasets[name], fields=tuple(change(list(datasets[name].fields))))
    return Catalog(datasets, catalog.pool)


def without(catalog: Catalog, name: str, path: str) -> Catalog:
    return with_fields(catalog, name, lambda fields: [f for f in fields if f.path != path])


def changed(catalog: Catalog, name: str, path: str, **values: Any) -> Catalog:
    def change(fields: list[Field]) -> list[Field]:
        return [replace(f, **values) if f.path == path else f for f in fields]

    return with_fields(catalog, name, change)


async def query(url: str, sql: str, *arguments: object) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]
    finally:
        await connection.close()


async def one_product(url: str) -> None:
    await query(
        url,
        "INSERT INTO data.products (product_id, name, create_time, update_time, etag)"
        " VALUES ('p1', '42', now(), now(), 1)",
    )


async def test_an_empty_database_gets_everything_once(catalog: Catalog, empty_url: str) -> None:
    steps = await apply_migration(empty_url, catalog)
    assert {s.description for s in steps} == {f"new dataset {d.name}" for d in catalog}
    assert all(s.additive for s in steps)
    assert await plan_migration(empty_url, catalog) == []
    assert await apply_migration(empty_url, catalog) == []


async def test_two_that_migrate_at_once_do_it_once(catalog: Catalog, empty_url: str) -> None:
    done = await asyncio.gather(*(apply_migration(empty_url, catalog) for _ in range(4)))
    assert sorted(len(steps) for steps in done) == [0, 0, 0, len(catalog)]


async def test_a_plan_changes_nothing(catalog: Catalog, empty_url: str) -> None:
    await apply_migration(empty_url, without(catalog, "products", "name"))
    [step] = await plan_migration(empty_url, catalog)
    assert step.description == "new field products.name"
    assert await plan_migration(empty_url, catalog) == [step]


async def test_a_new_dataset_is_added(catalog: Catalog, empty_url: str) -> None:
    fewer = Catalog({d.name: d for d in catalog if d.name != "orders"}, catalog.pool)
    await apply_migration(empty_url, fewer)
    [step] = await apply_migration(empty_url, catalog)
    assert (step.description, step.additive) == ("new dataset orders", True)


@pytest.mark.parametrize("name", ["customers", "products", "orders", "interactions", "contacts"])
async def test_every_field_can_be_added_to_records_that_are_there(
    catalog: Catalog, empty_url: str, name: str
) -> None:
    dataset = catalog[name]
    key_only = with_fields(catalog, name, lambda fields: [f for f in fields if f.key])
    await apply_migration(empty_url, key_only)
    await query(empty_url, f"INSERT INTO data.\"{name}\" VALUES ('k')")
    steps = await apply_migration(empty_url, catalog)
    assert len(steps) == len(dataset.fields) - 1
    assert all(s.additive for s in steps)
    [row] = await query(empty_url, f'SELECT * FROM data."{name}"')
    values = dict(zip(await columns(empty_url, name), row, strict=True))
    for field in dataset.fields:
        assert (values[field.path] is None) == field.nullable, field.path
        if field.kind is Kind.ENUM and not field.nullable:
            assert field.enum_values is not None
            assert field.enum_values[values[field.path]] == 0
    assert await plan_migration(empty_url, catalog) == []


async def columns(url: str, name: str) -> list[str]:
    rows = await query(
        url,
        "SELECT column_name::text FROM information_schema.columns"
        " WHERE table_schema = 'data' AND table_name = $1 ORDER BY ordinal_position",
        name,
    )
    return [row[0] for row in rows]


async def test_a_field_that_becomes_optional_is_additive(catalog: Catalog, empty_url: str) -> None:
    await apply_migration(empty_url, catalog)
    [step] = await apply_migration(empty_url, changed(catalog, "products", "name", nullable=True))
    assert (step.description, step.additive) == ("products.name may now be unset", True)
    await query(empty_url, "INSERT INTO data.products (product_id, etag) VALUES ('p', 1)")
    assert await query(empty_url, "SELECT name FROM data.products") == [(None,)]


NOT_ADDITIVE: dict[str, tuple[Callable[[Catalog], Catalog], str]] = {
    "field dropped": (
        lambda c: without(c, "products", "name"),
        "products.name is no longer in the model",
    ),
    "dataset dropped": (
        lambda c: Catalog({d.name: d for d in c if d.name != "products"}, c.pool),
        "dataset products is no longer in the model",
    ),
    "type changed": (
        lambda c: changed(c, "products", "name", kind=Kind.INT64),
        "products.name changes from string to int64",
    ),
    "no longer optional": (
        lambda c: changed(c, "products", "weight_kg", nullable=False),
        "products.weight_kg may no longer be unset",
    ),
}


@pytest.mark.parametrize("change", NOT_ADDITIVE)
async def test_what_is_not_additive_is_refused_and_names_the_command(
    catalog: Catalog, empty_url: str, change: str
) -> None:
    make, description = NOT_ADDITIVE[change]
    await apply_migration(empty_url, without(catalog, "orders", "carrier"))
    await one_product(empty_url)
    # The additive part of the difference is not applied either.
    with pytest.raises(MigrationNeeded) as refused:
        await apply_migration(empty_url, make(catalog))
    assert description in str(refused.value)
    assert "penstock migrate --apply" in str(refused.value)
    assert len(await plan_migration(empty_url, catalog)) == 1
    assert await query(empty_url, "SELECT name FROM data.products") == [("42",)]


@pytest.mark.parametrize("change", [c for c in NOT_ADDITIVE if c != "no longer optional"])
async def test_by_command_it_is_applied(catalog: Catalog, empty_url: str, change: str) -> None:
    make, description = NOT_ADDITIVE[change]
    await apply_migration(empty_url, catalog)
    await one_product(empty_url)
    wanted = make(catalog)
    [step] = await apply_migration(empty_url, wanted, destructive=True)
    assert step.description.startswith(description)
    assert not step.additive
    assert await plan_migration(empty_url, wanted) == []
    if change == "type changed":
        assert await query(empty_url, "SELECT name FROM data.products") == [(42,)]


async def test_queued_events_that_the_model_cannot_read_expire_by_command(
    catalog: Catalog, empty_url: str
) -> None:
    """Dead letters and retries outlive the log, which holds nothing here."""
    wanted = changed(catalog, "products", "name", kind=Kind.INT64)
    await apply_migration(empty_url, catalog)
    [step] = await plan_migration(empty_url, wanted)
    assert step.description.startswith("products.name changes from")
    for dataset, after in (("products", b"\n"), ("products", None), ("orders", b"\n")):
        await query(
            empty_url,
            "INSERT INTO hub.webhook_event"
            " (view_id, number, transaction, dataset, key, operation, after, commit_time)"
            " VALUES ('seen', 1, 1, $1, 'k', 1, $2, now())",
            dataset,
            after,
        )
    steps = await plan_migration(empty_url, wanted)
    [queued] = [s for s in steps if s.description.startswith("queued events of webhooks")]
    assert "products.name" in queued.description and not queued.additive
    with pytest.raises(MigrationNeeded, match="queued events of webhooks"):
        await apply_migration(empty_url, wanted)
    await apply_migration(empty_url, wanted, destructive=True)
    seen = "SELECT view_id, after IS NULL, dataset FROM hub.webhook_event ORDER BY event_id"
    assert await query(empty_url, seen) == [
        ("", False, "products"),
        ("seen", True, "products"),
        ("seen", False, "orders"),
    ]
    assert await plan_migration(empty_url, wanted) == []


async def test_an_operators_own_triggers_stay(catalog: Catalog, empty_url: str) -> None:
    await apply_migration(empty_url, catalog)
    await query(
        empty_url,
        'CREATE TRIGGER "My own" AFTER INSERT ON data.products FOR EACH STATEMENT'
        " EXECUTE FUNCTION hub.note_lost_references('x')",
    )
    names = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname ~ '^(My|lost)'"
    before = sorted(await query(empty_url, names))
    assert ("My own",) in before and len(before) > 1
    # A trigger of the hub on a table that shall have none is dropped.
    await query(
        empty_url,
        "CREATE TRIGGER lost_references_delete AFTER DELETE ON data.products FOR EACH STATEMENT"
        " EXECUTE FUNCTION hub.note_lost_references('products', 'product_id')",
    )
    assert await apply_migration(empty_url, catalog) == []
    assert sorted(await query(empty_url, names)) == before


async def test_a_field_that_becomes_text_sorts_by_bytes(catalog: Catalog, empty_url: str) -> None:
    await apply_migration(empty_url, changed(catalog, "products", "name", kind=Kind.INT64))
    await apply_migration(empty_url, catalog, destructive=True)
    [(collation,)] = await query(
        empty_url,
        "SELECT collname::text FROM pg_attribute JOIN pg_collation c ON c.oid = attcollation"
        " WHERE attrelid = 'data.products'::regclass AND attname = 'name'",
    )
    assert collation == "C"
    assert await plan_migration(empty_url, catalog) == []


async def test_unset_values_get_the_default_by_command(catalog: Catalog, empty_url: str) -> None:
    await apply_migration(empty_url, changed(catalog, "products", "name", nullable=True))
    await query(empty_url, "INSERT INTO data.products (product_id, etag) VALUES ('p', 1)")
    with pytest.raises(MigrationNeeded, match="unset values become ''"):
        await apply_migration(empty_url, catalog)
    await apply_migration(empty_url, catalog, destructive=True)
    assert await query(empty_url, "SELECT name FROM data.products") == [("",)]
    assert await plan_migration(empty_url, catalog) == []


async def test_a_conversion_that_fails_changes_nothing_and_says_why(
    catalog: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, catalog)
    await query(
        empty_url,
        "INSERT INTO data.products (product_id, name, create_time, update_time, etag)"
        " VALUES ('p', 'not a number', now(), now(), 1)",
    )
    with pytest.raises(MigrationFailed, match="not a number"):
        await apply_migration(
            empty_url, changed(catalog, "products", "name", kind=Kind.INT64), destructive=True
        )
    assert await plan_migration(empty_url, catalog) == []


async def test_a_database_of_a_newer_version_is_refused_in_a_sentence(
    catalog: Catalog, store_url: str
) -> None:
    assert await plan_migration(store_url, catalog) == [], "the control: its own version"
    await query(store_url, "UPDATE hub.schema_version SET version_num = '9999'")
    for bring in (plan_migration, apply_migration):
        with pytest.raises(MigrationFailed, match=r"newer version of the hub: start that version$"):
            await bring(store_url, catalog)
    assert await query(store_url, "SELECT version_num FROM hub.schema_version") == [("9999",)]
