"""What all methods that write share on the wire: how they are asked, and how they answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from penstockd.commands.once import Request, chosen_request_id
from penstockd.commands.report import Report
from penstockd.rpc.exchange import Exchange

IDEMPOTENCY_KEY = "idempotency-key"
REPLAYED = "penstock-replayed"

#: How long after the end of an upload its cancellation may become known, in seconds.
CANCELLATION_GRACE = 0.05


def write_request(request: Any, exchange: Exchange) -> Request:
    """The request id, by field or header, with a digest of all else that is asked.

    Takes the request id out of ``request``: the two ways to give it ask for the same. Raises
    ValueInvalid.
    """
    request_id = chosen_request_id(request.request_id, exchange.metadata.get(IDEMPOTENCY_KEY))
    digest = b""
    if request_id:
        request.ClearField("request_id")
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return Request(request_id, digest, request.validate_only)


async def replied(exchange: Exchange, reply: Any) -> Any:
    """The reply, with a header if it is one that was given before."""
    if exchange.call.replayed:
        await exchange.send_headers({REPLAYED: "true"})
    return reply


def reported(reply: Any, report: Report, **more: int) -> Any:
    """A reply of the class ``reply`` that tells of a report."""
    return reply(
        created_count=report.counts.created,
        updated_count=report.counts.updated,
        unchanged_count=report.counts.unchanged,
        refused_count=report.refused,
        row_errors=[
            {"row": p.row, "key": p.key, "field": p.field, "description": p.description}
            for p in report.problems
        ],
        **more,
    )


class Upload:
    """The requests of an import, of which the first says all but the file."""

    def __init__(self, requests: Any, exchange: Exchange) -> None:
        self._requests, self._exchange = aiter(requests), exchange
        self._first: Any = None

    async def begun(self) -> tuple[Request, bool]:
        """How the import is asked for, and whether it is partial. Raises ValueInvalid."""
        self._first = await anext(self._requests, None)
        if self._first is None:
            return Request(), False
        said = type(self._first)()
        said.CopyFrom(self._first)
        said.file.ClearField("data")
        return write_request(said, self._exchange), self._first.partial

    async def pieces(self) -> AsyncIterator[tuple[str, str, str, bytes]]:
        """Format, compression, content type and bytes; of the first three, the first count."""
        if self._first is not None:
            yield _piece(self._first)
            async for request in self._requests:
                yield _piece(request)
        # gRPC's iterator ends in the same way when the call was cancelled, and the cancellation
        # follows within a few milliseconds: an upload that broke off must not pass for one that is
        # whole.
        await asyncio.sleep(CANCELLATION_GRACE)


def _piece(request: Any) -> tuple[str, str, str, bytes]:
    return request.format, request.compression, request.file.content_type, request.file.data
