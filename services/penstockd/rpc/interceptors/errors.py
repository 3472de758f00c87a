"""Turns any error of a call into the status that the client gets."""

from __future__ import annotations

from typing import Any

import grpc
import structlog

from penstockd.answers.status import reason_of, retry_seconds, status_of
from penstockd.auth.presented import list_challenges
from penstockd.observe import RareLine
from penstockd.rpc.exchange import Exchange, Proceed, Refusal
from penstockd.rpc.http_errors import MethodNotAllowed

#: ``google.rpc.Code`` -> the grpc library's member for it.
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_log = structlog.get_logger(__name__)
_unavailable = RareLine(_log, "database_unavailable")


async def answer_errors(exchange: Exchange, proceed: Proceed) -> Any:
    """Answer with the error's status. Cancellation is not an error and passes through."""
    try:
        return await proceed(exchange)
    except Exception as exc:
        if reason_of(exc) == "INTERNAL":
            _log.exception("call_failed", method=exchange.method.path)
        elif reason_of(exc) == "DATABASE_UNAVAILABLE":
            _unavailable.warn(method=exchange.method.path, cause=repr(exc.__cause__))
        await exchange.wire.refuse(exchange, _make_refusal(exchange, exc))


def _make_refusal(exchange: Exchange, error: Exception) -> Refusal:
    hub, reason = exchange.hub, reason_of(error)
    status = status_of(error, exchange.arriving.entry.request_id, hub.public_url, hub.places.seal)
    code = _CODES[status.code]
    headers: list[tuple[str, str]] = []
    if code is grpc.StatusCode.UNAUTHENTICATED:
        headers += [("www-authenticate", way) for way in list_challenges(exchange.metadata)]
    if isinstance(error, MethodNotAllowed):
        headers.append(("allow", ", ".join(error.verbs)))
    if seconds := retry_seconds(error):
        headers.append(("retry-after", str(seconds)))
    if not exchange.begun:
        headers += exchange.limit_headers.items()
    trailers: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", status.SerializeToString()),
        *exchange.trailers.items(),
        *headers,
    ]
    return Refusal(code, reason, status, headers, trailers)
