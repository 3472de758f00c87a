"""Stream tickets: what a browser shows in the URL of one feed, since it cannot send a header.

A ticket is sealed under a key of the root secret and bound to its feed, so every node can read it
and nothing is stored. It contains no rights: with each use the credential that it was made with is
judged again, by its id or, if that was a token, by the token itself. So it ends with them.

A ticket is short-lived in the URL, where it may be seen: after ``OPEN_SECONDS`` it only continues a
stream that has begun. The client shows that by the last id that it received: the ids of the stream
end with a proof that nobody has who only knows the URL.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstockd.keyring import Keys
from penstockd.policy.model import Principal

#: The seconds within which a stream must begin, and the most for which it may be continued.
OPEN_SECONDS, MOST_SECONDS = 60, 3600
#: The most characters of a ticket: it may hold a token.
MAX_TEXT = 16 * 1024
_NONCE = 12
_PROOF = 16


@dataclass(frozen=True, slots=True, repr=False)
class ShownTicket:
    """A ticket as a call shows it, unverified: for which feed, and with which proof ("" for none)
    that the caller continues a stream."""

    text: str
    feed: str
    proof: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Ticket:
    """The contents of a ticket: the credential with which it was made, by id, and the ``token``, ""
    if there was none. Times are in seconds since 1970."""

    consumer_id: str
    credential_id: str
    token: str
    opens_until: float
    expires: float


class Tickets:
    """Issues and opens tickets."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._clock = keys, clock

    def issue(self, principal: Principal, feed: str, token: str) -> tuple[str, Ticket]:
        """A ticket for a feed; ``token`` is the one that the principal showed, if any."""
        now = self._clock()
        expires = min(now + MOST_SECONDS, principal.expires)
        opens = min(now + OPEN_SECONDS, expires)
        ticket = Ticket(principal.consumer_id, principal.credential_id, token, opens, expires)
        content = orjson.dumps([ticket.consumer_id, ticket.credential_id, token, opens, expires])
        nonce = secrets.token_bytes(_NONCE)
        sealed = AESGCM(self._keys.sealing().key).encrypt(nonce, content, feed.encode())
        return _encode_text(nonce + sealed), ticket

    def open(self, shown: ShownTicket) -> Ticket | None:
        """The contents of a ticket; None, whatever the fault, if it is not valid for the call."""
        content = self._unseal(shown)
        if content is None:
            return None
        ticket, now = Ticket(*orjson.loads(content)), self._clock()
        begins = now < ticket.opens_until
        return ticket if now < ticket.expires and (begins or self._proves(shown)) else None

    def prove(self, text: str) -> str:
        """The proof that a caller continues a stream which began with a ticket."""
        return _encode_text(_make_proof(self._keys.sealing().key, text))

    def _proves(self, shown: ShownTicket) -> bool:
        given = _decode_text(shown.proof)
        proofs = [_make_proof(each.key, shown.text) for each in self._keys.opening()]
        return any([hmac.compare_digest(given, proof) for proof in proofs])

    def _unseal(self, shown: ShownTicket) -> bytes | None:
        data = _decode_text(shown.text)
        for each in self._keys.opening():
            try:
                cipher = AESGCM(each.key)
                return cipher.decrypt(data[:_NONCE], data[_NONCE:], shown.feed.encode())
            except (InvalidTag, ValueError):
                continue
        return None


def _make_proof(key: bytes, text: str) -> bytes:
    return hmac.digest(key, b"continues " + text.encode(), hashlib.sha256)[:_PROOF]


def _encode_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode_text(text: str) -> bytes:
    """The bytes of a text in its one spelling; b"" for others."""
    if len(text) > MAX_TEXT or not text.isascii():
        return b""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _encode_text(data) == text else b""
