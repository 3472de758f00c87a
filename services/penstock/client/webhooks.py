"""Deliveries of webhooks, verified in one call::

    from penstock.client.webhooks import verify

    event = verify(request.headers, request.body, "whsec_…")

It needs nothing beside the standard library for HMAC secrets (``whsec_…``); for Ed25519 public keys
(``whpk_…``) it needs the package ``cryptography``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

#: How far the clocks of sender and receiver may differ, in seconds.
TOLERANCE = 300
#: The most digits of a timestamp: longer ones are not times, and far longer ones fail to parse.
_TIME_DIGITS = 15
#: Bytes of an Ed25519 public key.
_PUBLIC_BYTES = 32


class VerificationFailed(Exception):
    """A delivery did not come from the hub, or is not recent; the message says which."""


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> Any:
    """The event of a delivery, parsed if it is JSON and otherwise unchanged.

    ``headers`` are those of the request, in any case, and ``body`` its body, byte for byte.
    ``secret`` is the ``whsec_…`` or ``whpk_…`` that the hub issued. ``now`` is in seconds since
    1970, by default the current time. Raises VerificationFailed if no signature matches, or the
    timestamp is more than ``tolerance`` seconds off, and ValueError if the secret is malformed.
    Headers and body may hold anything: they raise nothing else.
    """
    key = _Key(secret)
    data = _encode_text(body) if isinstance(body, str) else body
    found = {name.lower(): value for name, value in headers.items() if isinstance(name, str)}
    message_id = _find_header(found, "webhook-id")
    timestamp = _find_header(found, "webhook-timestamp")
    signatures = _find_header(found, "webhook-signature")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _TIME_DIGITS):
        raise VerificationFailed("the timestamp is not a number")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        raise VerificationFailed("the timestamp is too far from now")
    if not key.signed(_encode_text(f"{message_id}.{timestamp}.") + data, signatures):
        raise VerificationFailed("no signature matches")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data


def _find_header(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise VerificationFailed(f"there is no {name}")
    return value


def _encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise VerificationFailed("half of a surrogate pair was not sent by the hub") from exc


def _decode_base64(text: str) -> bytes:
    """The bytes of base64 text; empty if it is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # also for non-ASCII text
        return b""


class _Key:
    """A secret or a public key that checks signatures. Raises ValueError if it is neither."""

    def __init__(self, secret: str) -> None:
        kind, _, text = secret.partition("_")
        self._key = _decode_base64(text)
        self._version = {"whsec": "v1", "whpk": "v1a"}.get(kind)
        usable = len(self._key) == _PUBLIC_BYTES if kind == "whpk" else bool(self._key)
        if self._version is None or not usable:
            raise ValueError("the secret is not whsec_… or whpk_… and base64")

    def signed(self, content: bytes, signatures: str) -> bool:
        """Whether one of the space-separated signatures matches."""
        given = [s.partition(",") for s in signatures.split(" ")]
        fits = self._by_secret if self._version == "v1" else self._by_key
        # Compare each one, whether one before it matches or not.
        return any([fits(content, _decode_base64(s)) for v, _, s in given if v == self._version])

    def _by_secret(self, content: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(self._key, content, hashlib.sha256), signature)

    def _by_key(self, content: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self._key).verify(signature, content)
        except InvalidSignature:
            return False
        return True
