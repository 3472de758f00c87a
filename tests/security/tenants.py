"""Consumers that see only their own records: roles with row rules, made by SQL as an operator
might."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from harness import RunningHub
from penstockd.auth.credentials import API_KEY, CLIENT_SECRET, Credentials
from penstockd.auth.secret import load_secret
from penstockd.keyring import CREDENTIALS, KeyRing

CLASSES = {c: "clear" for c in ("PUBLIC", "INTERNAL", "PII", "SENSITIVE")}
ACTIONS = ("create", "delete", "read", "update")


def put_role(
    hub: RunningHub,
    role: str,
    filters: Mapping[str, str],
    *,
    actions: Sequence[str] = ACTIONS,
    masks: Mapping[str, str] | None = None,
) -> None:
    """Store a role that sees all fields of the rows that a filter shows, dataset by dataset."""
    hub.sql("INSERT INTO hub.role (role_id) VALUES ($1) ON CONFLICT DO NOTHING", role)
    hub.sql("DELETE FROM hub.grant WHERE role_id = $1", role)
    for dataset, text in filters.items():
        hub.sql(
            "INSERT INTO hub.grant (role_id, dataset, actions, class_masks, field_masks,"
            " row_filter) VALUES ($1, $2, $3, $4, $5, $6)",
            role,
            dataset,
            list(actions),
            json.dumps(CLASSES),
            json.dumps(masks or {}),
            text,
        )


def put_consumer(
    hub: RunningHub, consumer: str, roles: Sequence[str], **claims: Sequence[str]
) -> dict[str, str]:
    """Store a consumer with roles and claims; returns headers that authenticate it."""
    return {"x-api-key": put_credentials(hub, consumer, roles, **claims)[API_KEY]}


def put_credentials(
    hub: RunningHub, consumer: str, roles: Sequence[str], **claims: Sequence[str]
) -> dict[str, str]:
    """Store a consumer with roles and claims; returns its secrets by kind."""
    secret = load_secret(hub.environment.get("PENSTOCK_SECRET"), hub.data)
    credentials = Credentials(KeyRing.of(secret).keys(CREDENTIALS))

    async def put() -> dict[str, str]:
        connection: Any = await asyncpg.connect(hub.dsn)
        try:
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO hub.consumer (consumer_id, claims) VALUES ($1, $2)",
                    consumer,
                    json.dumps(claims),
                )
                for role in roles:
                    await connection.execute(
                        "INSERT INTO hub.consumer_role VALUES ($1, $2)", consumer, role
                    )
                return {
                    kind: (await credentials.issue(connection, consumer, kind)).secret
                    for kind in (API_KEY, CLIENT_SECRET)
                }
        finally:
            await connection.close()

    return asyncio.run(put())


def remove(hub: RunningHub, *consumers: str, roles: Sequence[str] = ()) -> None:
    """Remove consumers and roles again."""
    hub.sql("DELETE FROM hub.consumer WHERE consumer_id = ANY($1)", list(consumers))
    hub.sql("DELETE FROM hub.role WHERE role_id = ANY($1)", list(roles))
