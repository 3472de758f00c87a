"""Credentials: random secrets, shown once, of which only a keyed digest is kept.

A secret carries its credential's identifier (``psk_<id>_<random>``), so that finding it needs no
search; its 256 random bits need no slow
hash, which is for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime

from penstockd.policy.model import Credential, Principal
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.store.database import Connection

CLIENT_SECRET = "client_secret"
API_KEY = "api_key"

_PREFIXES = {CLIENT_SECRET: "pcs", API_KEY: "psk"}
_MAX_LENGTH = 256


class Credentials:
    """Issues credentials and finds the principal that a secret belongs to."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    async def issue(self, connection: Connection, consumer_id: str, kind: str) -> str:
        """A new credential of a consumer; returns its secret, which cannot be had again."""
        credential_id = secrets.token_hex(8)
        secret = f"{_PREFIXES[kind]}_{credential_id}_{secrets.token_urlsafe(32)}"
        await connection.execute(
            "INSERT INTO hub.credential (credential_id, consumer_id, kind, digest)"
            " VALUES ($1, $2, $3, $4)",
            credential_id,
            consumer_id,
            kind,
            self._digest(secret),
        )
        return secret

    def principal(self, policy: PolicySnapshot, kind: str, secret: str) -> Principal | None:
        """Whose secret this is; None if it is nobody's, revoked, expired or of another kind."""
        parts = secret.split("_", 2)
        if len(secret) > _MAX_LENGTH or len(parts) != 3 or parts[0] != _PREFIXES[kind]:
            return None
        credential = policy.credentials.get(parts[1])
        digest = self._digest(secret)
        # The digest is compared even when there is none to compare with: time tells nothing.
        expected = credential.digest if credential is not None else bytes(32)
        if not hmac.compare_digest(digest, expected) or credential is None:
            return None
        return principal_of(policy, credential) if credential.kind == kind else None

    def _digest(self, secret: str) -> bytes:
        return hmac.digest(self._pepper, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)


def principal_of(policy: PolicySnapshot, credential: Credential) -> Principal | None:
    """The principal of a credential as the policy stands; None if either is no longer good."""
    consumer = policy.consumers.get(credential.consumer_id)
    expired = credential.expire_time is not None and credential.expire_time <= datetime.now(UTC)
    if consumer is None or not consumer.active or credential.revoked or expired:
        return None
    return Principal(
        consumer.consumer_id, credential.credential_id, consumer.roles, consumer.claims
    )
