"""Reads and writes consumers, roles and grants as they are stored.

Every change is part of a new policy revision (see the store). Callers check first (see ``checks``)
and write within a ``history.open_policy_change``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from penstockd.catalog import FieldClass
from penstockd.policy.model import Action, Consumer, Grant, Mask, Permission, Role
from penstockd.policy.plans import PlanLimits
from penstockd.store.database import Connection

_ROLE = """
SELECT r.role_id, jsonb_build_object('description', r.description,
    'permissions', to_jsonb(r.permissions), 'grants',
    (SELECT coalesce(jsonb_object_agg(g.dataset, jsonb_build_object('actions', to_jsonb(g.actions),
        'class_masks', g.class_masks, 'field_masks', g.field_masks, 'row_filter', g.row_filter,
        'hash_domain', g.hash_domain)),
        '{}') FROM hub.grant AS g WHERE g.role_id = r.role_id))
FROM hub.role AS r
"""
_CONSUMER = """
SELECT c.consumer_id, jsonb_build_object('title', c.title, 'active', c.active,
    'claims', c.claims, 'plan', coalesce(c.plan_id, ''), 'limits', c.limits, 'roles',
    (SELECT coalesce(jsonb_agg(o.role_id), '[]') FROM hub.consumer_role AS o
     WHERE o.consumer_id = c.consumer_id)), c.create_time
FROM hub.consumer AS c
"""


@dataclass(frozen=True, slots=True)
class StoredConsumer:
    """A consumer and when it was created."""

    consumer: Consumer
    create_time: datetime


def role_of(role_id: str, stored: Mapping[str, Any]) -> Role:
    """A role from its JSON in the store or the history."""
    grants = [
        Grant(
            role_id,
            dataset,
            frozenset(map(Action, grant["actions"])),
            {FieldClass[c]: Mask(m) for c, m in grant["class_masks"].items()},
            {path: Mask(m) for path, m in grant["field_masks"].items()},
            grant["row_filter"],
            grant.get("hash_domain", ""),  # revisions older than hash domains lack it
        )
        for dataset, grant in sorted(stored["grants"].items())
    ]
    permissions = frozenset(map(Permission, stored["permissions"]))
    return Role(role_id, stored["description"], tuple(grants), permissions)


def consumer_of(consumer_id: str, stored: Mapping[str, Any]) -> Consumer:
    """A consumer from its JSON in the store or the history."""
    claims = {name: tuple(values) for name, values in stored["claims"].items()}
    return Consumer(
        consumer_id,
        stored["active"],
        frozenset(stored["roles"]),
        claims,
        stored["title"],
        stored.get("plan", ""),  # revisions older than plans lack both
        PlanLimits.of(stored.get("limits", {})),
    )


async def read_role(connection: Connection, role_id: str) -> Role | None:
    """The role with this id, or None."""
    row = await connection.fetchrow(_ROLE + "WHERE r.role_id = $1", role_id)
    return role_of(row[0], orjson.loads(row[1])) if row is not None else None


async def read_roles(connection: Connection, after: str, limit: int) -> list[Role]:
    """At most ``limit`` roles with ids after ``after``, in order of id."""
    order = 'WHERE r.role_id COLLATE "C" > $1 ORDER BY r.role_id COLLATE "C" LIMIT $2'
    rows = await connection.fetch(_ROLE + order, after, limit)
    return [role_of(row[0], orjson.loads(row[1])) for row in rows]


async def role_ids(connection: Connection) -> frozenset[str]:
    """The ids of all roles."""
    return frozenset(row[0] for row in await connection.fetch("SELECT role_id FROM hub.role"))


async def read_consumer(connection: Connection, consumer_id: str) -> StoredConsumer | None:
    """The consumer with this id, or None."""
    row = await connection.fetchrow(_CONSUMER + "WHERE c.consumer_id = $1", consumer_id)
    if row is None:
        return None
    return StoredConsumer(consumer_of(row[0], orjson.loads(row[1])), row[2])


async def read_consumers(connection: Connection, after: str, limit: int) -> list[StoredConsumer]:
    """At most ``limit`` consumers with ids after ``after``, in order of id."""
    order = 'WHERE c.consumer_id COLLATE "C" > $1 ORDER BY c.consumer_id COLLATE "C" LIMIT $2'
    rows = await connection.fetch(_CONSUMER + order, after, limit)
    return [StoredConsumer(consumer_of(r[0], orjson.loads(r[1])), r[2]) for r in rows]


async def read_consumers_named(
    connection: Connection, names: Collection[str]
) -> list[StoredConsumer]:
    """Those of some consumers that exist."""
    if not names:
        return []
    rows = await connection.fetch(_CONSUMER + "WHERE c.consumer_id = ANY ($1)", list(names))
    return [StoredConsumer(consumer_of(r[0], orjson.loads(r[1])), r[2]) for r in rows]


async def put_role(connection: Connection, role: Role) -> None:
    """Create or replace a role with all of its grants and permissions."""
    await connection.execute(
        "INSERT INTO hub.role (role_id, description, permissions) VALUES ($1, $2, $3)"
        " ON CONFLICT (role_id) DO UPDATE"
        " SET description = excluded.description, permissions = excluded.permissions",
        role.role_id,
        role.description,
        sorted(role.permissions),
    )
    await connection.execute("DELETE FROM hub.grant WHERE role_id = $1", role.role_id)
    await connection.executemany(
        "INSERT INTO hub.grant (role_id, dataset, actions, class_masks, field_masks, row_filter,"
        " hash_domain) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            (
                role.role_id,
                grant.dataset,
                sorted(grant.actions),
                orjson.dumps({c.name: m.value for c, m in grant.class_masks.items()}).decode(),
                orjson.dumps({f: m.value for f, m in grant.field_masks.items()}).decode(),
                grant.row_filter,
                grant.hash_domain,
            )
            for grant in role.grants
        ],
    )


async def put_consumer(connection: Connection, consumer: Consumer) -> None:
    """Create a consumer, or replace all of it but its credentials."""
    await connection.execute(
        "INSERT INTO hub.consumer (consumer_id, title, active, claims, plan_id, limits)"
        " VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (consumer_id) DO UPDATE SET title = excluded.title,"
        " active = excluded.active, claims = excluded.claims, plan_id = excluded.plan_id,"
        " limits = excluded.limits",
        consumer.consumer_id,
        consumer.title,
        consumer.active,
        orjson.dumps({name: list(values) for name, values in consumer.claims.items()}).decode(),
        consumer.plan or None,
        orjson.dumps(consumer.limits.document).decode(),
    )
    await connection.execute(
        "DELETE FROM hub.consumer_role WHERE consumer_id = $1", consumer.consumer_id
    )
    await connection.executemany(
        "INSERT INTO hub.consumer_role (consumer_id, role_id) VALUES ($1, $2)",
        [(consumer.consumer_id, role) for role in sorted(consumer.roles)],
    )


async def remove_roles(connection: Connection, ids: Iterable[str]) -> None:
    """Delete roles that no consumer holds."""
    await connection.execute("DELETE FROM hub.role WHERE role_id = ANY($1)", sorted(ids))


async def remove_consumer(connection: Connection, consumer_id: str) -> None:
    """Delete a consumer with its credentials."""
    await connection.execute("DELETE FROM hub.consumer WHERE consumer_id = $1", consumer_id)


async def list_holders(connection: Connection, role_id: str) -> Sequence[str]:
    """The ids of the consumers that hold a role, in order."""
    rows = await connection.fetch(
        "SELECT consumer_id FROM hub.consumer_role WHERE role_id = $1 ORDER BY 1", role_id
    )
    return [row[0] for row in rows]
