"""Writes consumers, roles and grants. Every change is a new policy revision (see the store)."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from penstockd.policy.model import Grant, Permission
from penstockd.store.database import Connection


async def put_role(
    connection: Connection,
    role_id: str,
    description: str,
    grants: Iterable[Grant],
    permissions: Iterable[Permission] = (),
) -> None:
    """Create or replace a role with all of its grants and permissions."""
    await connection.execute(
        "INSERT INTO hub.role (role_id, description, permissions) VALUES ($1, $2, $3)"
        " ON CONFLICT (role_id) DO UPDATE"
        " SET description = excluded.description, permissions = excluded.permissions",
        role_id,
        description,
        sorted(permissions),
    )
    await connection.execute("DELETE FROM hub.grant WHERE role_id = $1", role_id)
    await connection.executemany(
        "INSERT INTO hub.grant (role_id, dataset, actions, class_masks, field_masks, row_filter)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        [
            (
                role_id,
                grant.dataset,
                sorted(grant.actions),
                orjson.dumps({c.name: m.value for c, m in grant.class_masks.items()}).decode(),
                orjson.dumps({f: m.value for f, m in grant.field_masks.items()}).decode(),
                grant.row_filter,
            )
            for grant in grants
        ],
    )


async def put_consumer(
    connection: Connection, consumer_id: str, title: str, roles: Iterable[str]
) -> None:
    """Create a consumer, or give the one there is these roles and no others."""
    await connection.execute(
        "INSERT INTO hub.consumer (consumer_id, title) VALUES ($1, $2)"
        " ON CONFLICT (consumer_id) DO UPDATE SET title = excluded.title",
        consumer_id,
        title,
    )
    await connection.execute("DELETE FROM hub.consumer_role WHERE consumer_id = $1", consumer_id)
    await connection.executemany(
        "INSERT INTO hub.consumer_role (consumer_id, role_id) VALUES ($1, $2)",
        [(consumer_id, role) for role in sorted(set(roles))],
    )
