"""Requests for tokens: client credentials in a form or in Basic (RFC 6749 section 4.4)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus

from penstockd.auth.presented import split_authorization
from penstockd.policy.model import Principal
from penstockd.policy.snapshot import PolicySnapshot

MAX_FORM_BYTES = 8192
#: A token carries its scopes, and must stay well below the greatest length that the hub reads.
MAX_SCOPE_BYTES = 2048


class TokenRefused(Exception):
    """The request is refused; ``code`` is an error code of RFC 6749 section 5.2."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The client that asks for a token, its secret, and the scopes to narrow it to ("" for no
    narrowing)."""

    client_id: str
    secret: str
    scope: str


def parse_token_request(form: bytes, authorization: str | None) -> TokenRequest:
    """Parse a request from its form and authorization header. Raises TokenRefused."""
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
    client_id, secret = _client_credentials(values, authorization)
    return TokenRequest(client_id, secret, values.get("scope", ""))


def _client_credentials(values: dict[str, str], authorization: str | None) -> tuple[str, str]:
    """Client id and secret, from the form or from Basic authorization, but not both."""
    in_form = "client_id" in values or "client_secret" in values
    if authorization is None:
        if not in_form:
            raise TokenRefused("invalid_client", "client_id and client_secret are missing")
        return values.get("client_id", ""), values.get("client_secret", "")
    if "client_secret" in values:
        raise TokenRefused("invalid_request", "credentials were given in two ways")
    scheme, encoded = split_authorization(authorization)
    try:
        if scheme != "basic":
            raise ValueError("not Basic")
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (ValueError, binascii.Error) as exc:
        raise TokenRefused("invalid_client", "the authorization header is not Basic") from exc
    return unquote_plus(name), unquote_plus(secret)


def pick_scopes(policy: PolicySnapshot, principal: Principal, asked: str) -> frozenset[str] | None:
    """The scopes requested; None if none were, or an empty text (RFC 6749 section 3.2).

    The error does not say whether a scope is unknown or merely out of the consumer's reach.
    """
    if not asked:
        return None
    scopes = frozenset(asked.split(" "))
    if len(asked) > MAX_SCOPE_BYTES or not all(policy.grantable(principal, s) for s in scopes):
        raise TokenRefused(
            "invalid_scope", "a scope is unknown, or exceeds what the consumer may do"
        )
    return scopes
