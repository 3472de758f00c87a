"""Turns whatever a call raises into the status that the client gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import structlog

from penstockd.rpc.exchange import Exchange
from penstockd.rpc.status import reason_of, status_of

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def errors(exchange: Exchange) -> AsyncIterator[None]:
    """Abort with the error's status. Cancellation is not an error and passes through."""
    try:
        yield
    except Exception as exc:
        entry = exchange.call.entry
        if reason_of(exc) == "INTERNAL":
            _log.exception("call_failed", method=exchange.method.path)
        elif reason_of(exc) == "DATABASE_UNAVAILABLE":
            _log.warning(
                "database_unavailable", method=exchange.method.path, cause=repr(exc.__cause__)
            )
        code, status = status_of(exc, entry.request_id)
        trailers: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", status.SerializeToString())
        ]
        if code is grpc.StatusCode.UNAUTHENTICATED:
            trailers.append(("www-authenticate", 'Bearer realm="penstock"'))  # RFC 9110 15.5.2
        await exchange.context.abort(code, status.message, tuple(trailers))
