"""Credentials: what a call carries in its metadata, and how tokens are obtained and renewed."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Protocol

import grpc
from google.protobuf import json_format
from google.rpc import status_pb2

from penstock.client.errors import PenstockError, from_status
from penstock.client.hosts import is_loopback
from penstock.client.retry import BACKOFF
from penstock.client.tls import Tls

#: How many seconds before its end a token is renewed, at most a fifth of its life.
RENEW_BEFORE = 60.0
_MAX_REPLY = 1 << 20


class Credentials(Protocol):
    """What identifies the caller."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of one call. May block for a new token; raises PenstockError."""
        ...

    def refused(self) -> bool:
        """Called when the hub refused them; returns whether new ones are available for a retry."""
        ...


class Anonymous:
    """No credentials."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """No metadata."""
        return ()

    def refused(self) -> bool:
        """No other credentials are available."""
        return False


class ApiKey(Anonymous):
    """A key in ``x-api-key``."""

    def __init__(self, key: str) -> None:
        self._metadata = (("x-api-key", key),)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The key."""
        return self._metadata


class BearerToken(Anonymous):
    """A token obtained elsewhere; it is not renewed."""

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The token."""
        return self._metadata


class ClientCredentials:
    """Tokens of the OAuth 2 client credentials grant, kept and renewed before they expire.

    ``scope`` narrows the tokens, for example "customers:read orders:*". Many threads may use it;
    one of them fetches while the others wait.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        *,
        timeout: float,
        scope: str = "",
        tls: Tls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not url.startswith("http"):
            raise ValueError(f"only HTTP hubs issue tokens: use an API key at {url}")
        self._endpoint = f"{url}/oauth2/token"
        self._form = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
        }
        if scope:
            self._form["scope"] = scope
        self._timeout = timeout
        self._context = (tls or Tls()).context() if url.startswith("https:") else None
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The current token. Raises PenstockError if none can be obtained."""
        return (("authorization", f"Bearer {self.token()}"),)

    def refused(self) -> bool:
        """Drops the token: the hub may have new signing keys."""
        with self._lock:
            self._token = ""
        return True

    def token(self) -> str:
        """The access token; fetches one if there is none or it is about to expire."""
        with self._lock:
            if not self._token or self._clock() >= self._renew_at:
                asked = self._clock()
                self._token, life = self._fetch()
                self._renew_at = asked + life - min(RENEW_BEFORE, life / 5)
            return self._token

    def _fetch(self) -> tuple[str, float]:
        reply = post_form(self._endpoint, self._form, timeout=self._timeout, context=self._context)
        token, life = reply.get("access_token"), reply.get("expires_in", 60)
        if not isinstance(token, str) or not isinstance(life, int | float):
            raise PenstockError("INTERNAL", f"{self._endpoint} answered without a token")
        return token, float(life)


def post_form(
    url: str, form: dict[str, str], *, timeout: float, context: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """POSTs a form and returns the JSON object of the reply.

    Asking for a token changes nothing, so the request is repeated with growing pauses if the hub
    cannot be reached or is not ready. Raises PenstockError.
    """
    request = urllib.request.Request(
        url,
        data=urllib.parse.urlencode(form).encode(),
        headers={
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
            "user-agent": "penstock-python",
        },
    )
    for pause in BACKOFF.pauses():
        try:
            return _post_form(request, timeout, context)
        except PenstockError as error:
            if error.code != "UNAVAILABLE" or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("the last pause is None")


def _post_form(
    request: urllib.request.Request, timeout: float, context: ssl.SSLContext | None
) -> dict[str, Any]:
    try:
        with make_opener(request.host, context).open(request, timeout=timeout) as reply:
            body = reply.read(_MAX_REPLY)
    except urllib.error.HTTPError as error:
        with error:
            raise _read_refusal(error) from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        where = f"{request.type}://{request.host}"
        raise PenstockError("UNAVAILABLE", f"cannot reach the hub at {where}: {cause}") from error
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise PenstockError("UNKNOWN", f"{request.full_url} did not answer with a JSON object")
    return parsed


def make_opener(host: str, context: ssl.SSLContext | None) -> urllib.request.OpenerDirector:
    """An opener that bypasses the environment's proxies for the loopback."""
    handlers: list[urllib.request.BaseHandler] = []
    if is_loopback(host):
        handlers.append(urllib.request.ProxyHandler({}))
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def _read_refusal(error: urllib.error.HTTPError) -> PenstockError:
    """The error for a token endpoint's answer of 400 or above: RFC 6749, or a gRPC status."""
    request_id = error.headers.get("x-request-id", "")
    codes = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "UNIMPLEMENTED"}
    code = codes.get(error.code, "UNAVAILABLE" if error.code >= 500 else "INVALID_ARGUMENT")
    try:
        body = json.loads(error.read(_MAX_REPLY))
    except (ValueError, OSError):
        body = None
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        message = body.get("error_description") or body["error"]
        return PenstockError(
            code, str(message), reason=body["error"].upper(), request_id=request_id
        )
    if isinstance(body, dict) and isinstance(body.get("code"), int):
        try:
            status = json_format.ParseDict(body, status_pb2.Status(), ignore_unknown_fields=True)
            return from_status(status, request_id)
        except json_format.ParseError:
            pass  # details of a type unknown here; the message is still useful
        return PenstockError(code, str(body.get("message", "")), request_id=request_id)
    message = f"{error.url} answered {error.code} {error.reason}"
    return PenstockError(code, message, request_id=request_id)


class AuthInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the credentials to every call of a channel, whichever stub makes it."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """See grpc.UnaryUnaryClientInterceptor."""
        return continuation(self._signed(details), request)

    def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        """See grpc.UnaryStreamClientInterceptor."""
        return continuation(self._signed(details), request)

    def intercept_stream_unary(self, continuation: Any, details: Any, requests: Any) -> Any:
        """See grpc.StreamUnaryClientInterceptor."""
        return continuation(self._signed(details), requests)

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        """See grpc.StreamStreamClientInterceptor."""
        return continuation(self._signed(details), requests)

    def _signed(self, details: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._credentials.metadata())
        return _CallDetails(details, metadata)


class _CallDetails(grpc.ClientCallDetails):
    """The details of a call with other metadata."""

    def __init__(self, details: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression
