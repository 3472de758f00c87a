"""Decides who calls. Envoy has checked tokens before; this is the check that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstockd.auth.credentials import API_KEY, principal_of
from penstockd.errors import Unauthenticated
from penstockd.policy.model import Principal
from penstockd.rpc.exchange import Exchange

_BEARER = "bearer "


@asynccontextmanager
async def auth(exchange: Exchange) -> AsyncIterator[None]:
    """Set the principal, or refuse. A method is open only if it is declared public."""
    if not exchange.method.public:
        principal = _principal(exchange)
        if principal is None:
            raise Unauthenticated()
        exchange.call.principal = principal
        exchange.call.entry.consumer_id = principal.consumer_id
        exchange.call.entry.credential_id = principal.credential_id
    yield


def _principal(exchange: Exchange) -> Principal | None:
    """The principal of the one credential given: a bearer token or an API key, not both."""
    hub, policy = exchange.hub, exchange.call.policy
    authorization = exchange.metadata.get("authorization")
    api_key = exchange.metadata.get("x-api-key")
    if authorization is not None and api_key is not None:
        return None
    if api_key is not None:
        return hub.credentials.principal(policy, API_KEY, api_key)
    if authorization is None or authorization[: len(_BEARER)].lower() != _BEARER:
        return None
    claims = hub.tokens.verify(authorization[len(_BEARER) :])
    if claims is None:
        return None
    # The token says who; whether its credential is still good is the policy's to say.
    credential = policy.credentials.get(claims.credential_id)
    if credential is None or credential.consumer_id != claims.subject:
        return None
    return principal_of(policy, credential)
