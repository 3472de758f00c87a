"""The hub's access tokens (RFC 9068): issued for client credentials, verified on every call."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jwt

from penstockd.auth.compact import MAX_TOKEN_BYTES, Malformed, open_token, whole_times
from penstockd.auth.keys import ALGORITHM, SigningKeys

__all__ = ["MAX_TOKEN_BYTES", "Claims", "Tokens"]

#: How many verified tokens are cached.
CACHE_SIZE = 10_000
#: Seconds that the clock of the issuing node may be ahead.
LEEWAY = 5

_TYPE = "at+jwt"
_HEADERS = {"alg", "kid", "typ"}
_CLAIMS = ["exp", "iat", "sub", "iss", "aud", "cid"]


@dataclass(frozen=True, slots=True)
class Claims:
    """The contents of a verified token: the consumer, the credential it was issued for, its expiry.

    ``scopes`` are the scopes that it is narrowed to, None if it is not.
    """

    subject: str
    credential_id: str
    expires: float
    scopes: frozenset[str] | None = None


class Tokens:
    """Issues tokens, and verifies them with a bounded cache of verified ones.

    ``own_issuers`` are the names under which this hub has issued tokens: ``issuer``, the name of
    new ones, and earlier ones, whose tokens are valid until they expire.
    """

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
        self.own_issuers = frozenset({issuer})
        self._audience, self._clock = audience, clock
        self._verified: OrderedDict[str, Claims] = OrderedDict()

    def replace(self, keys: SigningKeys, own_issuers: Iterable[str] = ()) -> None:
        """Replace the keys and the names other than ``issuer``, and forget all verified tokens."""
        self.keys, self.own_issuers = keys, frozenset({self.issuer, *own_issuers})
        self._verified.clear()

    def issue(self, subject: str, credential_id: str, scopes: frozenset[str] | None = None) -> str:
        """A signed token that lives ``lifetime`` seconds."""
        now = int(self._clock())
        claims = {
            "iss": self.issuer,
            "aud": self._audience,
            "sub": subject,
            "client_id": subject,
            "cid": credential_id,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": secrets.token_urlsafe(12),
        }
        if scopes is not None:
            claims["scope"] = " ".join(sorted(scopes))
        key = self.keys.signer(now)
        headers = {"kid": key.key_id, "typ": _TYPE}
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers=headers)

    def verify(self, token: str) -> Claims | None:
        """The token's claims; None, whatever the fault, if it is not to be trusted."""
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
        try:
            header, _ = open_token(token)
            # A closed set of headers: jku, jwk, x5u and crit are refused.
            if set(header) != _HEADERS or header["typ"] != _TYPE or header["alg"] != ALGORITHM:
                return None
            key_id = header["kid"]
            key = self.keys.verifier(key_id, self._clock()) if isinstance(key_id, str) else None
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=list(self.own_issuers),
                audience=self._audience,
                options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, Malformed, ValueError, TypeError):
            return None
        return _parse_claims(claims, self._clock())


def _parse_claims(claims: dict[str, Any], now: float) -> Claims | None:
    """The parsed claims; None if any is not in the form that the hub itself writes."""
    expires, scope = claims["exp"], claims.get("scope")
    if not whole_times(claims) or not isinstance(claims["aud"], str):
        return None
    if claims["iat"] > now + LEEWAY:
        return None
    if scope is not None and not isinstance(scope, str):
        return None
    scopes = None if scope is None else frozenset(scope.split())
    return Claims(claims["sub"], str(claims["cid"]), float(expires), scopes)
