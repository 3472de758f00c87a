"""The store's records of root secrets: since when each of them seals, and the lasting keys."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag

from penstockd.keyring import SIGNING, KeyRing, Seal, SecretMismatch, SecretTerm
from penstockd.store.database import Connection

_TERMS = """
SELECT root_secret_id, extract(epoch FROM seal_time)::float8, retire_time IS NOT NULL
FROM hub.root_secret ORDER BY seal_time, root_secret_id
"""


async def read_root_secrets(connection: Connection, ring: KeyRing) -> None:
    """Make a ring follow the store, if a secret is registered there. Raises SecretMismatch."""
    if terms := await connection.fetch(_TERMS):
        kept = await connection.fetch("SELECT purpose, sealed FROM hub.lasting_key")
        ring.use([SecretTerm(*row) for row in terms], dict(map(tuple, kept)))


async def ensure_root_secret(connection: Connection, ring: KeyRing) -> None:
    """Register the secret under which the store is set up, if none is registered; then make the
    ring follow the store. The connection must be in a transaction. Raises SecretMismatch."""
    await lock_root_secrets(connection)
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM hub.root_secret)"):
        row = await connection.fetchrow("SELECT key_id, private_key FROM hub.signing_key LIMIT 1")
        try:
            secret_id = ring.original if row is None else _find_secret(ring, *row)
        except InvalidTag as exc:
            raise SecretMismatch(
                "the database was set up with another root secret: set PENSTOCK_SECRET to it, or "
                "copy the file 'secret' from the data folder of the hub that made the database"
            ) from exc
        await register_secret(connection, secret_id)
    await read_root_secrets(connection, ring)


def _find_secret(ring: KeyRing, key_id: str, sealed: bytes) -> str:
    """The id of the secret under which a signing key is sealed."""
    return Seal(ring.keys(SIGNING)).open_by(sealed, key_id)[0]


async def lock_root_secrets(connection: Connection) -> None:
    """Prevent others from changing the records of secrets until the transaction ends."""
    await connection.execute("LOCK TABLE hub.root_secret IN SHARE ROW EXCLUSIVE MODE")


async def register_secret(connection: Connection, secret_id: str, ahead: float = 0.0) -> None:
    """Let a secret seal in ``ahead`` seconds."""
    await connection.execute(
        "INSERT INTO hub.root_secret (root_secret_id, seal_time)"
        " VALUES ($1, now() + make_interval(secs => $2))",
        secret_id,
        ahead,
    )
