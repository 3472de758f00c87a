"""Issuers from before revision 0014 continue to speak for the same consumers."""

from __future__ import annotations

import asyncpg

from penstockd.auth.trust import load_issuers
from penstockd.catalog import Catalog
from penstockd.store.migrate import apply_migration
from penstockd.store.migrations.versions import v0014_webhook_scopes as revision

#: Id, consumer_id, consumer_claim, consumers; and whether the claim names consumers from now on.
BEFORE = [
    ("open", "", "azp", "{}", True),
    ("mapped", "", "azp", '{"app": "crm"}', False),
    ("fixed", "crm", "", "{}", False),
]


async def test_who_relied_on_an_empty_map_gets_the_flag(catalog: Catalog, empty_url: str) -> None:
    await apply_migration(empty_url, catalog)
    connection = await asyncpg.connect(empty_url)
    try:
        await connection.execute("ALTER TABLE hub.issuer DROP COLUMN consumers_by_claim")
        for name, consumer, claim, consumers, _ in BEFORE:
            await connection.execute(
                "INSERT INTO hub.issuer (issuer_id, issuer, jwks_uri, audiences, algorithms,"
                " token_types, max_age_seconds, consumer_id, consumer_claim, consumers, active)"
                " VALUES ($1, $1, 'https://a', '{a}', '{RS256}', '{JWT}', 60, $2, $3, $4, true)",
                name,
                consumer,
                claim,
                consumers,
            )
        await connection.execute(revision.ISSUERS)
        found = {i.issuer_id: i.consumers_by_claim for i in await load_issuers(connection)}
        assert found == {name: flag for name, *_, flag in BEFORE}
        # An earlier webhook keeps its meaning: without claims, and with its scopes.
        default = await connection.fetchval(
            "SELECT column_default FROM information_schema.columns"
            " WHERE table_name = 'webhook' AND column_name = 'claims'"
        )
        assert default == "'{}'::jsonb"
    finally:
        await connection.close()
