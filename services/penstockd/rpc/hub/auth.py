"""The token endpoint, and the documents that OAuth clients look for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody

from penstock.hub.v1 import auth_pb2
from penstock.hub.v1.auth_pb2 import GetJwksRequest, GetMetadataRequest
from penstockd.answers.reasons import REASONS
from penstockd.auth.token_requests import TokenRefused
from penstockd.commands.issue_token import issue_token
from penstockd.errors import RateLimited
from penstockd.policy.model import Action, Permission
from penstockd.policy.scopes import ANY
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import PublicCall
from penstockd.rpc.frames import http_body
from penstockd.rpc.interceptors.auth import TOO_MANY_REFUSED
from penstockd.rpc.routes import public_routes_of

_SERVICE = auth_pb2.DESCRIPTOR.services_by_name["Auth"]
_JSON = "application/json"
#: RFC 6749 section 5.1.
_UNSTORED = {"cache-control": "no-store"}
#: Seconds after which a caller that was refused often may try again.
_RETRY = str(REASONS[RateLimited.reason].retry_seconds)


def list_routes() -> Iterator[Route]:
    """All are public; static documents are not audited."""
    yield from public_routes_of(
        _SERVICE,
        {
            "IssueToken": _issue_token,
            "GetJwks": _get_jwks,
            "GetMetadata": _get_metadata,
        },
        audited={"IssueToken"},
        documents={"IssueToken", "GetJwks", "GetMetadata"},
    )


async def _issue_token(request: HttpBody, call: PublicCall) -> bytes:
    """POST /oauth2/token. Errors are those of RFC 6749; Envoy takes their status from a header."""
    authorization = call.exchange.metadata.get("authorization")
    try:
        token = issue_token(call.hub, call, request.data, authorization)
    except TokenRefused as exc:
        call.entry.outcome = exc.code.upper()
        status, headers = 400, dict(_UNSTORED)
        code, text = exc.code, str(exc)
        if code == "invalid_client":
            status, headers["www-authenticate"] = 401, 'Basic realm="penstock"'
        if call.entry.consumer_id is None and not call.exchange.enters_refusal():
            status, headers["retry-after"] = 429, _RETRY
            code, text = "slow_down", TOO_MANY_REFUSED  # as RFC 8628 names it
        headers |= call.exchange.tell_status(status) | call.exchange.mark_brief(status)
        await call.exchange.send_headers(headers)
        return http_body(orjson.dumps({"error": code, "error_description": text}), _JSON)
    await call.exchange.send_headers(_UNSTORED)
    reply: dict[str, Any] = {
        "access_token": token.access_token,
        "token_type": "Bearer",
        "expires_in": token.expires_in,
    }
    if token.scope is not None:
        reply["scope"] = token.scope
    return http_body(orjson.dumps(reply), _JSON)


async def _get_jwks(request: GetJwksRequest, call: PublicCall) -> bytes:
    # A new key is published for longer than this before it signs.
    await call.exchange.send_headers({"cache-control": "public, max-age=30"})
    return http_body(call.hub.tokens.keys.jwks, _JSON)


async def _get_metadata(request: GetMetadataRequest, call: PublicCall) -> bytes:
    """RFC 8414."""
    url = call.hub.public_url
    document = {
        "issuer": call.hub.tokens.issuer,
        "token_endpoint": f"{url}/oauth2/token",
        "jwks_uri": f"{url}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "scopes_supported": _list_scopes(),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
    }
    return http_body(orjson.dumps(document), _JSON)


def _list_scopes() -> list[str]:
    """The scopes that do not reveal which datasets exist."""
    actions = [f"{ANY}:{action}" for action in (ANY, *Action)]
    return [*actions, *Permission]
