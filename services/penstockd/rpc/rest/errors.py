"""How a call ends: with its reply, or with an error as a body: ``google.rpc.Status`` in JSON, or a
problem (RFC 9457)."""

from __future__ import annotations

from typing import Any, NoReturn

import orjson
from google.rpc import error_details_pb2, status_pb2

from penstockd.answers.problem import http_status, make_problem, usual_http_status, wants_problem
from penstockd.answers.reasons import REASONS
from penstockd.formats.record_xml import XML_DECLARATION, xml_of
from penstockd.rpc.exchange import STATUS, Exchange, Refusal
from penstockd.rpc.frames import http_body
from penstockd.rpc.http_errors import NotAcceptable
from penstockd.rpc.rest.media import JSON, PROBLEM, XML, choose_media
from penstockd.rpc.rest.problems import json_path
from penstockd.rpc.rest.replies import ReplyWriter


async def refuse_call(
    exchange: Exchange,
    refusal: Refusal,
    http: int = 0,
    *,
    headers_only: bool = False,
    streams: bool = False,
) -> NoReturn:
    """Answer with the error as a body, then with its status; ``http`` is its HTTP status if that
    does not follow from the reason.

    A file of which a part was sent breaks off. A feed has said in its last message how it ends.
    """
    context, text = exchange.context, refusal.status.message
    status = http or http_status(REASONS[refusal.reason])
    brief = exchange.mark_brief(status)
    if exchange.sent and exchange.method.sends_file:
        await exchange.break_off()
    accept = exchange.metadata.get("accept")
    kind, body = encode_error(refusal.status, status, accept, exchange.hub.catalog.pool)
    if exchange.sent or exchange.begun or brief:
        late = exchange.begun and not exchange.sent and not brief
        if late and not exchange.method.streams:  # the sidecar still holds the headers back
            await context.write(http_body(body, kind))
        trailers = (*refusal.trailers, (STATUS, str(status)), *brief.items())
        await context.abort(refusal.code, text, trailers)
    usual = usual_http_status(refusal.status.code)
    # Where the reply is a stream, the sidecar sends 200 unless it is told otherwise.
    odd = status != usual or exchange.method.streams or streams
    told = [(STATUS, str(status))] if odd else []
    await context.send_initial_metadata((*refusal.headers, *told))
    if not headers_only:
        await context.write(http_body(body, kind))
    await context.abort(refusal.code, text)


async def end_reconnection(exchange: Exchange, refusal: Refusal) -> NoReturn:
    """Answer a refused client of server-sent events with 204, after which it does not try again."""
    await exchange.context.send_initial_metadata(((STATUS, "204"),))
    await exchange.context.abort(refusal.code, refusal.status.message)


async def finish_call(exchange: Exchange, reply: bytes | None, *, headers_only: bool) -> None:
    """Send the headers that wait, and the one reply of a call."""
    await exchange.begin_reply()
    if reply is not None and not headers_only:
        exchange.sent = True
        await exchange.context.write(reply)


def name_in_json(status: status_pb2.Status, body: str) -> None:
    """Name the fields of violations as the JSON of a body does, which is the field ``body`` of the
    request."""
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(bad):
            for violation in bad.field_violations:
                violation.field = json_path(violation.field.removeprefix(f"{body}."))
            detail.Pack(bad)


def encode_error(
    status: status_pb2.Status, http: int, accept: str | None, pool: Any
) -> tuple[str, bytes]:
    """The media type and the body of an error with an HTTP status; ``pool`` knows its details."""
    if wants_problem(accept):
        return PROBLEM, orjson.dumps(make_problem(status, http))
    if _prefers_xml(accept):
        told = xml_of(make_problem(status, http))
        return XML, f"{XML_DECLARATION}\n<problem>{told}</problem>\n".encode()
    data = ReplyWriter({}, pool).data(status)
    return JSON, orjson.dumps({"message": status.message, **data})


def _prefers_xml(accept: str | None) -> bool:
    """Whether a caller takes XML rather than JSON; who takes neither gets JSON."""
    try:
        return choose_media(accept, (JSON, XML)) == XML
    except NotAcceptable:
        return False
