"""Standard Webhooks: how a message is signed, and the secrets it is signed with.

    signature = "v1,"  + base64(HMAC-SHA256(secret, id "." timestamp "." body))
              | "v1a," + base64(Ed25519(private key, the same))

A secret is written ``whsec_`` and base64, a public key ``whpk_`` and base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from penstockd.webhooks.model import Scheme

_SECRET_BYTES = 32
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@dataclass(frozen=True, slots=True)
class Secret:
    """A key that signs an endpoint's deliveries, until ``expire_time`` if that is set."""

    secret_id: str
    scheme: Scheme
    key: bytes = field(repr=False)
    create_time: datetime
    expire_time: datetime | None = None

    @property
    def text(self) -> str:
        """The text with which the receiver verifies: the secret itself, or the public key."""
        if self.scheme is Scheme.HMAC:
            return "whsec_" + base64.b64encode(self.key).decode()
        public = Ed25519PrivateKey.from_private_bytes(self.key).public_key()
        return "whpk_" + base64.b64encode(public.public_bytes(*_RAW)).decode()


def new_secret(scheme: Scheme, at: datetime) -> Secret:
    """A new, random secret."""
    return Secret(secrets.token_hex(8), scheme, secrets.token_bytes(_SECRET_BYTES), at)


class Signer:
    """Signs with all of an endpoint's secrets; during a rotation there are several."""

    def __init__(self, found: Sequence[Secret]) -> None:
        self._secrets = tuple(found)
        self._private = {
            s.secret_id: Ed25519PrivateKey.from_private_bytes(s.key)
            for s in found
            if s.scheme is Scheme.ED25519
        }

    def sign(self, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
        """The three headers of a message."""
        timestamp = str(int(at.timestamp()))
        content = f"{message_id}.{timestamp}.".encode() + body
        signatures = [
            self._signature(s, content)
            for s in self._secrets
            if s.expire_time is None or at < s.expire_time
        ]
        return {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signatures),
        }

    def _signature(self, secret: Secret, content: bytes) -> str:
        if secret.scheme is Scheme.HMAC:
            digest = hmac.digest(secret.key, content, hashlib.sha256)
            return "v1," + base64.b64encode(digest).decode()
        signed = self._private[secret.secret_id].sign(content)
        return "v1a," + base64.b64encode(signed).decode()
