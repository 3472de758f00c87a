"""Deliveries of webhooks, verified in one call::

    from penstock.client.webhooks import verify

    event = verify(request.headers, request.body, "whsec_…")

It needs nothing beside the standard library for HMAC secrets (``whsec_…``); for Ed25519 public keys
(``whpk_…``) it needs the package ``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

#: How far the clocks of sender and receiver may be apart, in seconds.
TOLERANCE = 300


class VerificationFailed(Exception):
    """A delivery is not what the hub sent, or not now; the message says which."""


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str,
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> Any:
    """The event of a delivery, parsed if it is JSON and else as it came.

    ``headers`` are those of the request, in any case, and ``body`` its body, byte for byte.
    ``secret`` is the ``whsec_…`` or ``whpk_…`` that the hub gave out. ``now`` is in seconds since
    1970, by default the time. Raises VerificationFailed if no signature fits, or the timestamp is
    more than ``tolerance`` seconds off, and ValueError if the secret is none.
    """
    data = body.encode() if isinstance(body, str) else body
    found = {name.lower(): value for name, value in headers.items()}
    message_id = _header(found, "webhook-id")
    timestamp = _header(found, "webhook-timestamp")
    signatures = _header(found, "webhook-signature")
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise VerificationFailed("the timestamp is no number")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        raise VerificationFailed("the timestamp is too far from now")
    content = f"{message_id}.{timestamp}.".encode() + data
    if not _signed(content, signatures, secret):
        raise VerificationFailed("no signature fits")
    try:
        return json.loads(data)
    except ValueError:
        return data


def _header(found: Mapping[str, str], name: str) -> str:
    if name not in found:
        raise VerificationFailed(f"there is no {name}")
    return found[name]


def _signed(content: bytes, signatures: str, secret: str) -> bool:
    kind, _, text = secret.partition("_")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if kind not in ("whsec", "whpk") or not key:
        raise ValueError("the secret is not whsec_… or whpk_… and base64")
    given = [s.partition(",") for s in signatures.split(" ")]
    if kind == "whsec":
        expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256))
        # Each is compared, whether one before it fits or not.
        fits = [hmac.compare_digest(expected, s.encode()) for v, _, s in given if v == "v1"]
        return any(fits)
    return any(_by_key(key, content, s) for v, _, s in given if v == "v1a")


def _by_key(key: bytes, content: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(
            base64.b64decode(signature, validate=True), content
        )
    except (InvalidSignature, binascii.Error):
        return False
    return True
