"""The token endpoint: client credentials for an access token (RFC 6749 section 4.4)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus

from penstockd.auth.credentials import CLIENT_SECRET
from penstockd.calls import ArrivingCall
from penstockd.hub import Hub
from penstockd.policy.model import Principal
from penstockd.policy.snapshot import PolicySnapshot

MAX_FORM_BYTES = 8192
#: A token carries its scopes, and must stay well below the length that is read.
MAX_SCOPE_BYTES = 2048


class TokenRefused(Exception):
    """The request is refused; ``code`` is one of RFC 6749 section 5.2."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An access token, how long it lives in seconds, and what it is narrowed to if it is."""

    access_token: str
    expires_in: int
    scope: str | None = None


def issue_token(
    hub: Hub, call: ArrivingCall, form: bytes, authorization: str | None
) -> IssuedToken:
    """A token for the consumer whose credentials the form or Basic authorization holds.

    Raises TokenRefused. Which part of a credential is wrong is not said.
    """
    try:
        pairs = parse_qsl(
            form[: MAX_FORM_BYTES + 1].decode(), keep_blank_values=True, max_num_fields=16
        )
    except ValueError as exc:
        raise TokenRefused("invalid_request", "the body is not a form") from exc
    values = dict(pairs)
    if len(form) > MAX_FORM_BYTES or len(values) != len(pairs):
        raise TokenRefused("invalid_request", "the form is too long or repeats a parameter")
    if "grant_type" not in values:
        raise TokenRefused("invalid_request", "grant_type is missing")
    if values["grant_type"] != "client_credentials":
        raise TokenRefused("unsupported_grant_type", "only client_credentials is supported")
    client_id, secret = _client(values, authorization)
    principal = hub.credentials.principal(call.policy, CLIENT_SECRET, secret)
    if principal is None or principal.consumer_id != client_id:
        raise TokenRefused("invalid_client", "the client is unknown or its secret is wrong")
    call.entry.consumer_id = principal.consumer_id
    call.entry.credential_id = principal.credential_id
    hub.uses.note(principal.credential_id)
    scopes = _scopes(call.policy, principal, values.get("scope", ""))
    token = hub.tokens.issue(principal.consumer_id, principal.credential_id, scopes)
    scope = None if scopes is None else " ".join(sorted(scopes))
    return IssuedToken(token, hub.tokens.lifetime, scope)


def _scopes(policy: PolicySnapshot, principal: Principal, asked: str) -> frozenset[str] | None:
    """The scopes that were asked for; None if none were, or an empty text (RFC 6749 section 3.2).

    Whether a scope that is refused is unknown, or merely out of the consumer's reach, is not said.
    """
    if not asked:
        return None
    scopes = frozenset(asked.split(" "))
    if len(asked) > MAX_SCOPE_BYTES or not all(policy.grantable(principal, s) for s in scopes):
        raise TokenRefused("invalid_scope", "a scope is unknown, or more than the consumer may")
    return scopes


def _client(values: dict[str, str], authorization: str | None) -> tuple[str, str]:
    """Client id and secret, from the form or from Basic authorization, not from both."""
    in_form = "client_id" in values or "client_secret" in values
    if authorization is None:
        if not in_form:
            raise TokenRefused("invalid_client", "client_id and client_secret are missing")
        return values.get("client_id", ""), values.get("client_secret", "")
    if "client_secret" in values:
        raise TokenRefused("invalid_request", "credentials were given in two ways")
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError("not Basic")
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (ValueError, binascii.Error) as exc:
        raise TokenRefused("invalid_client", "the authorization header is not Basic") from exc
    return unquote_plus(name), unquote_plus(secret)
