"""Turns any error of a call into the status that the client gets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import structlog
from google.rpc import status_pb2

from penstockd.answers.problem import HEADER, http_status, pack_problem, wants_problem
from penstockd.answers.reasons import REASONS
from penstockd.answers.status import reason_of, retry_seconds, status_of
from penstockd.auth.presented import list_challenges
from penstockd.observe import RareLine
from penstockd.rpc.exchange import Exchange, Proceed

#: ``google.rpc.Code`` -> the grpc library's member for it.
_CODES = {code.value[0]: code for code in grpc.StatusCode}

#: The sidecar replaces the status of a reply by the value of this header.
_STATUS = "x-http-status"

_log = structlog.get_logger(__name__)
_unavailable = RareLine(_log, "database_unavailable")


async def answer_errors(exchange: Exchange, proceed: Proceed) -> Any:
    """Abort with the error's status. Cancellation is not an error and passes through.

    A REST caller that asks for problem details gets them ready-made: the sidecar sends them in
    place of the status.
    """
    try:
        return await proceed(exchange)
    except Exception as exc:
        entry = exchange.arriving.entry
        if reason_of(exc) == "INTERNAL":
            _log.exception("call_failed", method=exchange.method.path)
        elif reason_of(exc) == "DATABASE_UNAVAILABLE":
            _unavailable.warn(method=exchange.method.path, cause=repr(exc.__cause__))
        status = status_of(exc, entry.request_id, exchange.hub.public_url, exchange.hub.places.seal)
        code = _CODES[status.code]
        trailers: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", status.SerializeToString()),
            *exchange.trailers.items(),
        ]
        if code is grpc.StatusCode.UNAUTHENTICATED:
            ways = list_challenges(exchange.metadata)
            trailers += [("www-authenticate", way) for way in ways]
        if seconds := retry_seconds(exc):
            trailers.append(("retry-after", str(seconds)))
        if "x-envoy-original-path" in exchange.metadata:
            trailers += _rest_headers(status, reason_of(exc), exchange.metadata.get("accept"))
            trailers += exchange.mark_brief(http_status(REASONS[reason_of(exc)])).items()
        await exchange.break_off()
        await exchange.context.abort(code, status.message, tuple(trailers))


def _rest_headers(
    status: status_pb2.Status, reason: str, accept: str | None
) -> Iterator[tuple[str, str]]:
    """What the sidecar needs for the answer to a REST call."""
    if REASONS[reason].http_status:
        yield _STATUS, str(REASONS[reason].http_status)
    if wants_problem(accept):
        yield HEADER, pack_problem(status)
