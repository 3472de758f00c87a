"""Who may authenticate callers: the hub's own keys and external issuers, at a revision."""

from __future__ import annotations

import orjson

from penstockd.auth.issuers import ClaimMapping, Issuer, Issuers
from penstockd.auth.keys import load_signing_keys, rotate_key
from penstockd.auth.tokens import Tokens
from penstockd.keyring import SIGNING, KeyRing, Seal
from penstockd.store.database import Connection
from penstockd.store.places import Places
from penstockd.store.root_secrets import read_root_secrets

#: The columns of an issuer.
_ISSUERS = """
SELECT issuer_id, issuer, jwks_uri, audiences, algorithms, token_types, max_age_seconds,
       consumer_id, consumer_claim, consumers, consumers_by_claim, claims, scope_claim, active,
       title
FROM hub.issuer
"""


class Trust:
    """Keeps ``ring``, ``tokens``, ``issuers`` and the keys of ``places`` in step with the store;
    ``policy.Policy`` decides when."""

    def __init__(self, ring: KeyRing, tokens: Tokens, issuers: Issuers, places: Places) -> None:
        self.revision = 0
        self._ring, self._tokens, self._issuers = ring, tokens, issuers
        self._seal, self._places = Seal(ring.keys(SIGNING)), places

    async def read(self, connection: Connection) -> None:
        """Reload which root secrets seal and open, signing keys, cursor keys, issuers and the hub's
        own names as an issuer, in the connection's transaction.

        Raises SecretMismatch.
        """
        revision = await connection.fetchval("SELECT revision FROM hub.trust")
        await read_root_secrets(connection, self._ring)
        keys = await load_signing_keys(connection, self._seal)
        issuers = await load_issuers(connection)
        own = await connection.fetch("SELECT issuer FROM hub.token_issuer")
        await self._places.read(connection)
        self._tokens.replace(keys, [row[0] for row in own])
        self._issuers.replace(issuers)
        self.revision = revision

    async def rotate(self, connection: Connection, *, now: bool) -> str:
        """Create a key to sign next (see ``keys.rotate_key``); returns its id."""
        return await rotate_key(connection, self._seal, now=now)


async def note_token_issuer(connection: Connection, issuer: str) -> None:
    """Note that this hub issues tokens under a name: nodes accept tokens under all such names."""
    # Each statement makes all workers read the trust again, even one that inserts nothing.
    known = "SELECT EXISTS (SELECT FROM hub.token_issuer WHERE issuer = $1)"
    if not await connection.fetchval(known, issuer):
        adding = "INSERT INTO hub.token_issuer (issuer) VALUES ($1) ON CONFLICT DO NOTHING"
        await connection.execute(adding, issuer)


async def load_issuers(
    connection: Connection,
    issuer_id: str | None = None,
    *,
    after: str = "",
    limit: int | None = None,
) -> list[Issuer]:
    """All issuers ordered by id, or only the one with ``issuer_id``, if it exists; the first
    ``limit`` after an id."""
    rows = await connection.fetch(
        _ISSUERS + ' WHERE ($1::text IS NULL OR issuer_id = $1) AND issuer_id COLLATE "C" > $2'
        ' ORDER BY issuer_id COLLATE "C" LIMIT $3',
        issuer_id,
        after,
        limit,
    )
    return [
        Issuer(
            issuer_id=row["issuer_id"],
            issuer=row["issuer"],
            jwks_uri=row["jwks_uri"],
            audiences=tuple(row["audiences"]),
            algorithms=tuple(row["algorithms"]),
            token_types=tuple(row["token_types"]),
            max_age_seconds=row["max_age_seconds"],
            consumer_id=row["consumer_id"],
            consumer_claim=row["consumer_claim"],
            consumers=orjson.loads(row["consumers"]),
            consumers_by_claim=row["consumers_by_claim"],
            claims=tuple(ClaimMapping(**c) for c in orjson.loads(row["claims"])),
            scope_claim=row["scope_claim"],
            active=row["active"],
            title=row["title"],
        )
        for row in rows
    ]


async def lock_issuers(connection: Connection) -> None:
    """Prevent others from writing issuers until the transaction ends."""
    await connection.execute("LOCK TABLE hub.issuer IN SHARE ROW EXCLUSIVE MODE")


async def put_issuer(connection: Connection, issuer: Issuer) -> None:
    """Create an issuer, or replace the one with its id. Raises Conflict if another has its name.

    It must have been checked before (see ``issuer_checks``).
    """
    await connection.execute(
        "INSERT INTO hub.issuer (issuer_id, issuer, jwks_uri, audiences, algorithms, token_types,"
        " max_age_seconds, consumer_id, consumer_claim, consumers, claims, scope_claim, active,"
        " title, consumers_by_claim)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
        " ON CONFLICT (issuer_id) DO UPDATE SET issuer = excluded.issuer,"
        " jwks_uri = excluded.jwks_uri, audiences = excluded.audiences,"
        " algorithms = excluded.algorithms, token_types = excluded.token_types,"
        " max_age_seconds = excluded.max_age_seconds, consumer_id = excluded.consumer_id,"
        " consumer_claim = excluded.consumer_claim, consumers = excluded.consumers,"
        " claims = excluded.claims, scope_claim = excluded.scope_claim,"
        " active = excluded.active, title = excluded.title,"
        " consumers_by_claim = excluded.consumers_by_claim, update_time = now()",
        issuer.issuer_id,
        issuer.issuer,
        issuer.jwks_uri,
        issuer.audiences,
        issuer.algorithms,
        issuer.token_types,
        issuer.max_age_seconds,
        issuer.consumer_id,
        issuer.consumer_claim,
        orjson.dumps(dict(issuer.consumers)).decode(),
        orjson.dumps(
            [
                {"token_claim": c.token_claim, "claim": c.claim, "override": c.override}
                for c in issuer.claims
            ]
        ).decode(),
        issuer.scope_claim,
        issuer.active,
        issuer.title,
        issuer.consumers_by_claim,
    )


async def delete_issuer(connection: Connection, issuer_id: str) -> None:
    """Delete an issuer, if it exists."""
    await connection.execute("DELETE FROM hub.issuer WHERE issuer_id = $1", issuer_id)
