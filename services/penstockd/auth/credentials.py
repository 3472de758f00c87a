"""Credentials: random secrets, shown once, of which only a keyed digest is kept.

A secret contains its credential's identifier (``psk_<id>_<random>``), so that no search is needed.
Its 256 random bits need no slow hash, unlike passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from penstockd.keyring import Keys
from penstockd.policy.model import Credential, Principal
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.store.database import Connection

CLIENT_SECRET = "client_secret"
API_KEY = "api_key"

_PREFIXES = {CLIENT_SECRET: "pcs", API_KEY: "psk"}
#: The kinds of credentials.
KINDS = frozenset(_PREFIXES)
_MAX_LENGTH = 256

_STORED = """
SELECT credential_id, consumer_id, kind, create_time, expire_time, revoked, last_use_time
FROM hub.credential LEFT JOIN hub.credential_use USING (credential_id)
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new credential, and its secret, which cannot be retrieved again."""

    credential_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential as stored: everything but the secret. A time of None means never."""

    credential_id: str
    consumer_id: str
    kind: str
    create_time: datetime
    expire_time: datetime | None
    revoked: bool
    last_use_time: datetime | None

    @property
    def prefix(self) -> str:
        """The prefix of its secret."""
        return f"{_PREFIXES[self.kind]}_{self.credential_id}_"

    @property
    def ended(self) -> bool:
        """Whether it is revoked or expired."""
        expired = self.expire_time is not None and self.expire_time <= datetime.now(UTC)
        return self.revoked or expired


@dataclass(frozen=True, slots=True)
class RenewedDigest:
    """The digest of a credential under the root secret that seals now."""

    secret_id: str
    digest: bytes


class Credentials:
    """Issues credentials and finds the principal that a secret belongs to.

    A credential whose digest is under an earlier root secret is digested again when it is used:
    ``renewed`` holds these digests by credential, until they are written.
    """

    def __init__(self, peppers: Keys) -> None:
        self._peppers = peppers
        self.renewed: dict[str, RenewedDigest] = {}

    async def issue(
        self,
        connection: Connection,
        consumer_id: str,
        kind: str,
        expire_time: datetime | None = None,
    ) -> Issued:
        """A new credential of a consumer, valid until ``expire_time`` if that is set."""
        credential_id = secrets.token_hex(8)
        secret = f"{_PREFIXES[kind]}_{credential_id}_{secrets.token_urlsafe(32)}"
        pepper = self._peppers.sealing()
        await connection.execute(
            "INSERT INTO hub.credential"
            " (credential_id, consumer_id, kind, digest, expire_time, root_secret_id)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            credential_id,
            consumer_id,
            kind,
            _digest_secret(pepper.key, secret),
            expire_time,
            pepper.secret_id,
        )
        return Issued(credential_id, secret)

    @staticmethod
    def claimed(kind: str, secret: str) -> str | None:
        """The id of the credential that a secret claims to belong to; None if its form is wrong."""
        parts = secret.split("_", 2)
        fits = len(secret) <= _MAX_LENGTH and len(parts) == 3 and parts[0] == _PREFIXES[kind]
        return parts[1] if fits else None

    @classmethod
    def redacted(cls, text: str) -> str:
        """The text, without its secret part if it is a credential."""
        for kind, prefix in _PREFIXES.items():
            if (credential_id := cls.claimed(kind, text)) is not None:
                return f"{prefix}_{credential_id}_…"
        return text

    def principal(self, policy: PolicySnapshot, kind: str, secret: str) -> Principal | None:
        """The owner of a secret; None if it is unknown, revoked, expired or of another kind."""
        credential_id = self.claimed(kind, secret)
        if credential_id is None:
            return None
        credential = policy.credentials.get(credential_id)
        # Compare even if there is no credential, so that timing reveals nothing.
        expected = credential.digest if credential is not None else bytes(32)
        peppers = self._peppers.opening()
        digests = [_digest_secret(pepper.key, secret) for pepper in peppers]
        fits = [hmac.compare_digest(digest, expected) for digest in digests]
        if not any(fits) or credential is None or credential.kind != kind:
            return None
        principal = principal_of(policy, credential)
        if principal is not None and not fits[0]:
            self.renewed[credential_id] = RenewedDigest(peppers[0].secret_id, digests[0])
        return principal


def _digest_secret(pepper: bytes, secret: str) -> bytes:
    return hmac.digest(pepper, secret.encode("utf-8", "surrogatepass"), hashlib.sha256)


def principal_of(policy: PolicySnapshot, credential: Credential) -> Principal | None:
    """The principal of a credential under the policy; None if the consumer is missing or inactive,
    or the credential is revoked or expired."""
    consumer = policy.consumers.get(credential.consumer_id)
    expired = credential.expire_time is not None and credential.expire_time <= datetime.now(UTC)
    if consumer is None or not consumer.active or credential.revoked or expired:
        return None
    return Principal(
        consumer.consumer_id, credential.credential_id, consumer.roles, consumer.claims
    )


async def read_credential(
    connection: Connection, consumer_id: str, credential_id: str
) -> StoredCredential | None:
    """A consumer's credential; None if it has none with this id."""
    row = await connection.fetchrow(
        _STORED + "WHERE consumer_id = $1 AND credential_id = $2", consumer_id, credential_id
    )
    return StoredCredential(*row) if row is not None else None


async def read_credentials(
    connection: Connection, consumer_id: str, after: tuple[datetime, str] | None, limit: int
) -> list[StoredCredential]:
    """At most ``limit`` credentials of a consumer, newest first, after a time and id."""
    rows = await connection.fetch(
        _STORED + "WHERE consumer_id = $1"
        " AND ($2::timestamptz IS NULL OR (create_time, credential_id) < ($2, $3))"
        " ORDER BY create_time DESC, credential_id DESC LIMIT $4",
        consumer_id,
        *(after or (None, "")),
        limit,
    )
    return [StoredCredential(*row) for row in rows]


async def list_credentials(
    connection: Connection, consumers: Collection[str]
) -> Mapping[str, list[StoredCredential]]:
    """All credentials of some consumers, newest first, by consumer."""
    rows = await connection.fetch(
        _STORED + "WHERE consumer_id = ANY ($1) ORDER BY create_time DESC, credential_id DESC",
        list(consumers),
    )
    found: dict[str, list[StoredCredential]] = {}
    for row in rows:
        credential = StoredCredential(*row)
        found.setdefault(credential.consumer_id, []).append(credential)
    return found


async def end_credential(
    connection: Connection, credential_id: str, at: datetime | None = None
) -> None:
    """End a credential: at a time, if that is before its current end, or at once and for ever."""
    if at is None:
        await connection.execute(
            "UPDATE hub.credential SET revoked = true WHERE credential_id = $1", credential_id
        )
    else:
        await connection.execute(
            "UPDATE hub.credential SET expire_time = least(expire_time, $2)"
            " WHERE credential_id = $1",
            credential_id,
            at,
        )
