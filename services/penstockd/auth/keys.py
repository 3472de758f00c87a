"""Signing keys: ES256, kept in the store, the private half sealed under the root secret."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstockd.store.database import Connection

ALGORITHM = "ES256"


class SecretMismatch(Exception):
    """The database was set up under another root secret; the message says what to set."""


@dataclass(frozen=True)
class SigningKeys:
    """The keys in force: the newest signs, all of them verify."""

    newest: str
    private: ec.EllipticCurvePrivateKey
    public: Mapping[str, ec.EllipticCurvePublicKey]
    jwks: bytes


async def ensure_signing_key(connection: Connection, sealing_key: bytes) -> None:
    """Make the first signing key if there is none. Safe to call from several processes."""
    await connection.execute("LOCK TABLE hub.signing_key IN SHARE ROW EXCLUSIVE MODE")
    if await connection.fetchval("SELECT count(*) FROM hub.signing_key"):
        return
    key_id, private = secrets.token_hex(8), ec.generate_private_key(ec.SECP256R1())
    der = private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    nonce = secrets.token_bytes(12)
    sealed = nonce + AESGCM(sealing_key).encrypt(nonce, der, key_id.encode())
    await connection.execute(
        "INSERT INTO hub.signing_key (key_id, private_key, public_jwk) VALUES ($1, $2, $3)",
        key_id,
        sealed,
        orjson.dumps(_jwk(key_id, private.public_key())).decode(),
    )


async def load_signing_keys(connection: Connection, sealing_key: bytes) -> SigningKeys:
    """All signing keys. Raises SecretMismatch if they were sealed under another root secret."""
    rows = await connection.fetch(
        "SELECT key_id, private_key, public_jwk FROM hub.signing_key ORDER BY create_time DESC"
    )
    keys = {}
    for key_id, sealed, _ in rows:
        try:
            der = AESGCM(sealing_key).decrypt(sealed[:12], sealed[12:], key_id.encode())
        except InvalidTag as exc:
            raise SecretMismatch(
                "the database was set up under another root secret: set PENSTOCK_SECRET to it, or "
                "copy the file 'secret' from the data folder of the hub that made the database"
            ) from exc
        key = serialization.load_der_private_key(der, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        keys[key_id] = key
    newest = rows[0][0]
    return SigningKeys(
        newest=newest,
        private=keys[newest],
        public={key_id: key.public_key() for key_id, key in keys.items()},
        jwks=orjson.dumps({"keys": [orjson.loads(jwk) for _, _, jwk in rows]}),
    )


def _jwk(key_id: str, key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """The public key as RFC 7517 has it."""
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
