"""Signing keys: ES256, kept in the store, the private half sealed under the root secret.

A key is published before it signs, so that caches of the key set have it by then, and verifies
until the last token that it can have signed has expired. Then it is deleted.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstockd.keyring import Seal, SecretMismatch
from penstockd.store.database import Connection
from penstockd.store.fences import Transactions
from penstockd.store.places import rotate_cursor_key

ALGORITHM = "ES256"
#: How often the keeper checks whether a key is too old, in seconds.
INTERVAL = 60.0

#: How long a key is published before it signs. Envoy fetches the key set every 5 s, clients that
#: heed the reply's cache-control every 30 s.
PUBLISH_AHEAD = timedelta(seconds=60)
#: How long a key verifies after it last signed: tokens live 15 minutes at most, and a process
#: without news keeps signing for one more.
RETIRE_AFTER = timedelta(minutes=17)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key. It signs from ``sign_time`` until the next key does, and then only verifies."""

    key_id: str
    private: ec.EllipticCurvePrivateKey = field(repr=False)
    create_time: datetime
    sign_time: datetime
    retire_time: datetime | None

    @property
    def place(self) -> tuple[float, str]:
        """Where it stands in the order of time."""
        return self.sign_time.timestamp(), self.key_id


class SigningKeys:
    """The keys in force: one signs, all verify."""

    def __init__(self, keys: Sequence[SigningKey], jwks: bytes = b'{"keys":[]}') -> None:
        self.all = tuple(sorted(keys, key=lambda k: k.sign_time))
        self.public: Mapping[str, ec.EllipticCurvePublicKey] = {
            k.key_id: k.private.public_key() for k in self.all
        }
        self.jwks = jwks
        self._ends = {
            k.key_id: k.retire_time.timestamp() for k in self.all if k.retire_time is not None
        }

    def newest(self, before: tuple[Any, ...] | None = None) -> list[SigningKey]:
        """The keys before a place in the order of time, the newest first; all by default."""
        every = sorted(self.all, key=lambda key: key.place, reverse=True)
        return [key for key in every if before is None or key.place < before]

    def signer(self, now: float) -> SigningKey:
        """The key that signs at ``now``, in seconds since 1970."""
        begun = [k for k in self.all if k.sign_time.timestamp() <= now]
        return begun[-1] if begun else self.all[0]

    def verifier(self, key_id: str, now: float) -> ec.EllipticCurvePublicKey | None:
        """The key with an id; None if there is none or it has retired."""
        if self._ends.get(key_id, now + 1) <= now:
            return None
        return self.public.get(key_id)


async def ensure_signing_key(connection: Connection, seal: Seal) -> None:
    """Create the first signing key if there is none. Safe to call from several processes."""
    await _lock_keys(connection)
    if not await connection.fetchval("SELECT count(*) FROM hub.signing_key"):
        await _insert_key(connection, seal, timedelta())


async def rotate_key(connection: Connection, seal: Seal, *, now: bool) -> str:
    """Create a key to sign next, and return its id. The connection must be in a transaction.

    The new key signs after PUBLISH_AHEAD; a rotation already under way is left as it is. ``now`` is
    for a leaked key: the old ones are deleted, and their tokens become invalid as soon as the other
    processes have read the change.
    """
    await _lock_keys(connection)
    if now:
        await connection.execute("DELETE FROM hub.signing_key")
        return await _insert_key(connection, seal, timedelta())
    waiting = await connection.fetchval(
        "SELECT key_id FROM hub.signing_key WHERE sign_time > now()"
    )
    if waiting is not None:
        return str(waiting)
    await connection.execute(
        "UPDATE hub.signing_key SET retire_time = now() + $1 WHERE retire_time IS NULL",
        PUBLISH_AHEAD + RETIRE_AFTER,
    )
    return await _insert_key(connection, seal, PUBLISH_AHEAD)


async def rotate_by_age(connection: Connection, seal: Seal, age: timedelta) -> str | None:
    """Delete retired keys, and rotate if the newest is older than ``age``.

    Returns the id of the new key if there is one. The connection must be in a transaction.
    """
    await connection.execute("DELETE FROM hub.signing_key WHERE retire_time <= now()")
    old = await connection.fetchval(
        "SELECT max(create_time) <= now() - $1::interval FROM hub.signing_key", age
    )
    return await rotate_key(connection, seal, now=False) if old else None


async def rotate_keys(database: Transactions, seal: Seal, age: timedelta) -> None:
    """Replace keys that are too old, both for signing tokens and for sealing cursors.

    Runs every INTERVAL until cancelled. Raises DatabaseUnavailable.
    """
    while True:
        async with database.transaction() as connection:
            new = await rotate_by_age(connection, seal, age)
            sealing = await rotate_cursor_key(connection, age=age)
        if new is not None:
            _log.info("signing_key_rotated", key_id=new)
        if sealing is not None:
            _log.info("cursor_key_rotated", number=sealing)
        await asyncio.sleep(INTERVAL)


async def load_signing_keys(connection: Connection, seal: Seal) -> SigningKeys:
    """All signing keys. Raises SecretMismatch if they were sealed under another root secret."""
    rows = await connection.fetch(
        "SELECT key_id, private_key, public_jwk, create_time, sign_time, retire_time"
        " FROM hub.signing_key ORDER BY sign_time DESC"
    )
    keys = []
    for key_id, sealed, _, *times in rows:
        try:
            der = seal.open(sealed, key_id)
        except InvalidTag as exc:
            raise SecretMismatch(
                "the database was set up with another root secret: set PENSTOCK_SECRET to it, or "
                "copy the file 'secret' from the data folder of the hub that made the database"
            ) from exc
        key = serialization.load_der_private_key(der, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        keys.append(SigningKey(key_id, key, *times))
    return SigningKeys(keys, orjson.dumps({"keys": [orjson.loads(row[2]) for row in rows]}))


async def _lock_keys(connection: Connection) -> None:
    await connection.execute("LOCK TABLE hub.signing_key IN SHARE ROW EXCLUSIVE MODE")


async def _insert_key(connection: Connection, seal: Seal, ahead: timedelta) -> str:
    key_id, private = secrets.token_hex(8), ec.generate_private_key(ec.SECP256R1())
    der = private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    await connection.execute(
        "INSERT INTO hub.signing_key (key_id, private_key, public_jwk, sign_time)"
        " VALUES ($1, $2, $3, now() + $4)",
        key_id,
        seal.close(der, key_id),
        orjson.dumps(_make_jwk(key_id, private.public_key())).decode(),
        ahead,
    )
    return key_id


def _make_jwk(key_id: str, key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """The public key in the form of RFC 7517."""
    numbers = key.public_numbers()

    def coordinate(value: int) -> str:
        return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()

    return {
        "kty": "EC",
        "crv": "P-256",
        "alg": ALGORITHM,
        "use": "sig",
        "kid": key_id,
        "x": coordinate(numbers.x),
        "y": coordinate(numbers.y),
    }
