"""A plan names the roles, shapes, subscriptions and webhooks that name a field which changes."""

from __future__ import annotations

import asyncpg
import pytest

from penstockd.catalog import Catalog
from penstockd.store.field_users import describe_field_users, list_field_users
from penstockd.store.migrate import apply_migration, make_engine, plan_migration

from .test_migrate import without

_USERS = """
INSERT INTO hub.role (role_id) VALUES ('masks'), ('rows'), ('plain');
INSERT INTO hub.grant (role_id, dataset, actions, class_masks, field_masks, row_filter) VALUES
    ('masks', 'customers', '{read}', '{}', '{"tax_id": "hide"}', ''),
    ('rows', 'customers', '{read}', '{}', '{}', 'taxId:* AND name = "x"'),
    ('plain', 'customers', '{read}', '{}', '{"name": "hide"}', 'my_tax_id = 1'),
    ('masks', 'orders', '{read}', '{}', '{"columns": "hide"}', '');
INSERT INTO hub.consumer (consumer_id) VALUES ('crm');
INSERT INTO hub.shape (consumer_id, shape_id, version, definition) VALUES
    ('crm', 'old', 1, '{"dataset": "customers", "columns": [{"field": "tax_id"}]}'),
    ('crm', 'old', 2, '{"dataset": "customers", "columns": [{"field": "name"}]}'),
    ('crm', 'cel', 1, '{"dataset": "customers", "columns": [{"expression": "tax_id + name",
        "field": "", "constant": "tax_id"}]}'),
    ('crm', 'said', 1, '{"dataset": "customers", "columns": [{"field": "name",
        "constant": "tax_id", "name": "tax_id"}]}'),
    ('crm', 'rows', 1, '{"dataset": "customers", "columns": [{"field": "name"}],
        "rows": {"field": "tags"}}'),
    ('crm', 'other', 1, '{"dataset": "orders", "columns": [{"field": "tax_id"}]}');
INSERT INTO hub.webhook (webhook_id, consumer_id, kind, selections, options, start_number) VALUES
    ('wh_1', 'crm', 'HTTP', '[{"dataset": "orders", "filter": "", "fields": "tax_id"},
        {"dataset": "customers", "filter": "tax_id:*", "fields": ""}]', '{}', 0),
    ('wh_2', 'crm', 'HTTP', '[{"dataset": "customers", "filter": "", "fields": "name"}]', '{}', 0);
"""


@pytest.fixture
async def users_url(catalog: Catalog, empty_url: str) -> str:
    """A store in which some of each kind name customers.tax_id."""
    await apply_migration(empty_url, catalog)
    connection = await asyncpg.connect(empty_url)
    await connection.execute(_USERS)
    await connection.close()
    return empty_url


async def test_a_plan_names_who_names_a_removed_field(catalog: Catalog, users_url: str) -> None:
    steps = await plan_migration(users_url, without(catalog, "customers", "tax_id"))
    (told,) = [s.description for s in steps if "customers.tax_id is no longer" in s.description]
    assert told.endswith(
        "; named by role masks, role rows, shape cel of crm, webhook wh_1 of crm"
    ), told
    steps = await plan_migration(users_url, without(catalog, "customers", "tags"))
    (told,) = [s.description for s in steps if "customers.tags is no longer" in s.description]
    assert told.endswith("; named by shape rows of crm")
    # The control: nobody names this one.
    steps = await plan_migration(users_url, without(catalog, "customers", "phone"))
    (told,) = [s.description for s in steps if "customers.phone is no longer" in s.description]
    assert "named by" not in told


def test_many_users_are_counted() -> None:
    assert describe_field_users([]) == ""
    text = describe_field_users([f"role {n}" for n in range(25)])
    assert text.startswith("; named by role 0, role 1,") and text.endswith("role 19 and 5 more")


@pytest.mark.parametrize(
    ("path", "count"),
    [("tax_id", 4), ("tags", 1), ("tax", 0), ("id", 0), ("billing_address.city", 0)],
)
async def test_names_count_as_a_whole(users_url: str, path: str, count: int) -> None:
    engine = make_engine(users_url)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda c: list_field_users(c, "customers", [path]))
    await engine.dispose()
    assert len(found) == count, found
