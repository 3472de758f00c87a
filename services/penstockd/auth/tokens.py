"""The hub's access tokens (RFC 9068): issued for client credentials, verified on every call."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from penstockd.auth.keys import ALGORITHM, SigningKeys

#: A longer token is refused before a byte of it is parsed.
MAX_TOKEN_BYTES = 8192
#: How many verified tokens are remembered.
CACHE_SIZE = 10_000

_TYPE = "at+jwt"
_HEADERS = {"alg", "kid", "typ"}
_CLAIMS = ["exp", "iat", "sub", "iss", "aud", "cid"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says: the consumer, the credential it was issued for, its end."""

    subject: str
    credential_id: str
    expires: float


class Tokens:
    """Issues tokens, and verifies them with a bounded memory of those verified before."""

    def __init__(
        self,
        keys: SigningKeys,
        *,
        issuer: str,
        audience: str,
        lifetime: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys
        self.lifetime = lifetime
        self.issuer = issuer
        self._audience, self._clock = audience, clock
        self._verified: OrderedDict[str, Claims] = OrderedDict()

    def issue(self, subject: str, credential_id: str) -> str:
        """A signed token that lives ``lifetime`` seconds."""
        now = int(self._clock())
        claims = {
            "iss": self.issuer,
            "aud": self._audience,
            "sub": subject,
            "cid": credential_id,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": secrets.token_urlsafe(12),
        }
        headers = {"kid": self.keys.newest, "typ": _TYPE}
        return jwt.encode(claims, self.keys.private, algorithm=ALGORITHM, headers=headers)

    def verify(self, token: str) -> Claims | None:
        """The token's claims; None, whatever is wrong with it, if it is not to be trusted."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._decode(token)
            if claims is None:
                return None
            self._verified[token] = claims
            if len(self._verified) > CACHE_SIZE:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(token)
        return claims if claims.expires > self._clock() else None

    def _decode(self, token: str) -> Claims | None:
        if len(token) > MAX_TOKEN_BYTES:
            return None
        try:
            header = _header(token)
            # A closed set of headers: no jku, jwk, x5u or crit can ask for anything.
            if set(header) != _HEADERS or header["typ"] != _TYPE or header["alg"] != ALGORITHM:
                return None
            key = self.keys.public.get(header["kid"]) if isinstance(header["kid"], str) else None
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self._audience,
                options={"require": _CLAIMS, "verify_exp": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, binascii.Error):
            return None
        expires = claims["exp"]
        if type(expires) is not int or not isinstance(claims["aud"], str):
            return None
        return Claims(claims["sub"], str(claims["cid"]), float(expires))


def _header(token: str) -> dict[str, Any]:
    """The JOSE header of a compact token. Raises ValueError if there is none."""
    encoded, _, _ = token.partition(".")
    header = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    return header
