"""The token endpoint: client credentials for an access token (RFC 6749 section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass

from penstockd.auth.credentials import CLIENT_SECRET
from penstockd.auth.token_requests import TokenRefused, parse_token_request, pick_scopes
from penstockd.calls import ArrivingCall
from penstockd.hub import Hub


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An access token, its lifetime in seconds, and the scopes that narrow it, if any."""

    access_token: str
    expires_in: int
    scope: str | None = None


def issue_token(
    hub: Hub, call: ArrivingCall, form: bytes, authorization: str | None
) -> IssuedToken:
    """A token for the consumer whose credentials the form or Basic authorization holds.

    Raises TokenRefused, which does not say which part of a credential is wrong.
    """
    request = parse_token_request(form, authorization)
    known = request.client_id in call.policy.consumers
    # Somebody may have swapped the two.
    named = hub.credentials.redacted(request.client_id)
    call.note_claim("client_id", named, request.client_id if known else None)
    principal = hub.credentials.principal(call.policy, CLIENT_SECRET, request.secret)
    if principal is None or principal.consumer_id != request.client_id:
        raise TokenRefused("invalid_client", "the client is unknown or its secret is wrong")
    call.entry.consumer_id = principal.consumer_id
    call.entry.credential_id = principal.credential_id
    hub.uses.note(principal.credential_id)
    scopes = pick_scopes(call.policy, principal, request.scope)
    token = hub.tokens.issue(principal.consumer_id, principal.credential_id, scopes)
    scope = None if scopes is None else " ".join(sorted(scopes))
    return IssuedToken(token, hub.tokens.lifetime, scope)
