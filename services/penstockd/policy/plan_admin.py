"""Reads and writes plans as they are stored, within a ``history.open_policy_change``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from penstockd.policy.plans import Plan, plan_of
from penstockd.store.database import Connection

_PLAN = """
SELECT plan_id, jsonb_build_object('description', description, 'time_zone', time_zone,
    'shadow', shadow, 'limits', limits)
FROM hub.plan
"""


async def read_plan(connection: Connection, plan_id: str) -> Plan | None:
    """The plan with this id, or None."""
    row = await connection.fetchrow(_PLAN + "WHERE plan_id = $1", plan_id)
    return plan_of(row[0], orjson.loads(row[1])) if row is not None else None


async def read_plans(connection: Connection, after: str, limit: int) -> list[Plan]:
    """At most ``limit`` plans with ids after ``after``, in order of id."""
    order = "WHERE plan_id > $1 ORDER BY plan_id LIMIT $2"
    rows = await connection.fetch(_PLAN + order, after, limit)
    return [plan_of(row[0], orjson.loads(row[1])) for row in rows]


async def read_every_plan(connection: Connection) -> dict[str, Plan]:
    """All plans, by id."""
    rows = await connection.fetch(_PLAN)
    return {row[0]: plan_of(row[0], orjson.loads(row[1])) for row in rows}


async def plan_ids(connection: Connection) -> frozenset[str]:
    """The ids of all plans."""
    return frozenset(row[0] for row in await connection.fetch("SELECT plan_id FROM hub.plan"))


async def put_plan(connection: Connection, plan: Plan) -> None:
    """Create or replace a plan."""
    await connection.execute(
        "INSERT INTO hub.plan (plan_id, description, time_zone, shadow, limits)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (plan_id) DO UPDATE"
        " SET description = excluded.description, time_zone = excluded.time_zone,"
        " shadow = excluded.shadow, limits = excluded.limits",
        plan.plan_id,
        plan.description,
        plan.time_zone,
        plan.shadow,
        orjson.dumps(plan.limits.document).decode(),
    )


async def remove_plans(connection: Connection, ids: Iterable[str]) -> None:
    """Delete plans that no consumer has."""
    await connection.execute("DELETE FROM hub.plan WHERE plan_id = ANY($1)", sorted(ids))


async def list_plan_holders(connection: Connection, plan_id: str) -> Sequence[str]:
    """The ids of the consumers that have a plan, in order."""
    rows = await connection.fetch(
        "SELECT consumer_id FROM hub.consumer WHERE plan_id = $1 ORDER BY 1", plan_id
    )
    return [row[0] for row in rows]
