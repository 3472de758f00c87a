"""Identifies the caller. Envoy has checked tokens before; this is the check that decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstockd.auth.credentials import API_KEY, CLIENT_SECRET, principal_of
from penstockd.auth.presented import Presented, SignInWay, read_presented
from penstockd.auth.tickets import Ticket
from penstockd.errors import AccessRevoked, RateLimited, Refused, Unauthenticated
from penstockd.hub import Hub
from penstockd.policy.model import Principal
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.rpc.exchange import Exchange, Proceed
from penstockd.shares import Payer, payer_var

#: The message for callers without valid credentials that were refused often.
TOO_MANY_REFUSED = (
    "too many calls without valid credentials from this address or for this consumer; "
    "valid credentials are always accepted"
)


async def authenticate_call(exchange: Exchange, proceed: Proceed) -> Any:
    """Make the exchange's Call, or refuse. A method is open only if it is declared public.

    Public, unaudited methods are served even when the policy is stale; nothing else is. A caller
    without valid credentials gets a short answer if others like it have been refused a lot recently
    (see ``audit.refusals``); valid credentials are recognised first and never wait for that.
    """
    method, arriving = exchange.method, exchange.arriving
    if not method.public or method.audited:
        arriving.policy = exchange.hub.policy.current
        arriving.entry.policy_revision = arriving.policy.revision
    if not method.public:
        principal, ended = await _find_caller(exchange)
        if principal is None:
            _note_presented(exchange)
            if not exchange.enters_refusal():
                raise RateLimited(TOO_MANY_REFUSED)
            raise ended or Unauthenticated()
        exchange.admit(arriving.policy, principal)
        exchange.hub.uses.note(principal.credential_id)
        # From here on the consumer pays for the call's work; the task ends with the call.
        payer_var.set(Payer(principal.consumer_id, method.dataset))
    return await proceed(exchange)


async def _find_caller(exchange: Exchange) -> tuple[Principal | None, Refused | None]:
    """The principal of a call; None if there is none, and why if the call may know."""
    hub, policy, shown = exchange.hub, exchange.arriving.policy, exchange.wire.ticket
    if shown is None:
        return await find_principal(hub, policy, exchange.metadata), None
    # One call shows one credential.
    both = "authorization" in exchange.metadata or "x-api-key" in exchange.metadata
    ticket = None if both else hub.tickets.open(shown)
    if ticket is None:
        return None, None
    principal = await _ticket_principal(hub, policy, ticket)
    if principal is None:
        # No consumer is claimed: a page that reconnects is no attempt to sign in.
        exchange.arriving.note_claim("ticket_of", ticket.consumer_id, None)
        return None, AccessRevoked("the access with which the ticket was made was revoked")
    return replace(principal, expires=min(principal.expires, ticket.expires)), None


async def _ticket_principal(hub: Hub, policy: PolicySnapshot, ticket: Ticket) -> Principal | None:
    """The principal of the credential with which a ticket was made."""
    if ticket.token:
        return await _bearer_principal(hub, policy, ticket.token)
    credential = policy.credentials.get(ticket.credential_id)
    if credential is None or credential.consumer_id != ticket.consumer_id:
        return None
    return principal_of(policy, credential)


async def find_principal(
    hub: Hub, policy: PolicySnapshot, metadata: Mapping[str, str]
) -> Principal | None:
    """The principal of the one credential sent (see ``auth.presented``)."""
    presented = read_presented(metadata)
    if presented is None:
        return None
    match presented.way:
        case SignInWay.TOKEN:
            return await _bearer_principal(hub, policy, presented.secret)
        case SignInWay.API_KEY:
            return hub.credentials.principal(policy, API_KEY, presented.secret)
        case SignInWay.CLIENT:
            return _client_principal(hub, policy, presented)


def _client_principal(hub: Hub, policy: PolicySnapshot, presented: Presented) -> Principal | None:
    principal = hub.credentials.principal(policy, CLIENT_SECRET, presented.secret)
    named = principal is not None and principal.consumer_id == presented.client_id
    return principal if named else None


def _note_presented(exchange: Exchange) -> None:
    """Note which client or credential a bad secret claims to be; a secret is never stored."""
    presented, arriving = read_presented(exchange.metadata), exchange.arriving
    if presented is None:
        return
    if presented.way is SignInWay.CLIENT:
        known = presented.client_id in arriving.policy.consumers
        # The caller may have swapped id and secret.
        named = exchange.hub.credentials.redacted(presented.client_id)
        arriving.note_claim("client_id", named, presented.client_id if known else None)
        return
    credential_id = exchange.hub.credentials.claimed(API_KEY, presented.secret)
    if credential_id is not None:
        credential = exchange.arriving.policy.credentials.get(credential_id)
        owner = credential.consumer_id if credential is not None else None
        exchange.arriving.note_claim("credential", credential_id, owner)


async def _bearer_principal(hub: Hub, policy: PolicySnapshot, token: str) -> Principal | None:
    """The principal of a token, the hub's own or another issuer's.

    The token identifies the caller; the policy decides whether that is still valid.
    """
    identity = hub.issuers.known(token)
    if identity is not None:
        return identity.principal(policy)
    claims = hub.tokens.verify(token)
    if claims is None:
        identity = await hub.issuers.verify(token)
        # Time may have passed: the current policy decides.
        return identity.principal(hub.policy.current) if identity is not None else None
    credential = policy.credentials.get(claims.credential_id)
    if credential is None or credential.consumer_id != claims.subject:
        return None
    principal = principal_of(policy, credential)
    if principal is None:
        return None
    return replace(principal, scopes=claims.scopes, expires=claims.expires)
