"""Calls that write: each with a request id is done once, and answered again for a day (AIP-155).

What a call writes, its audit entry and its stored reply are one transaction, which begins by
claiming the request id. So a call that broke off at any point, even in the middle of its COMMIT,
was either done and is answered again, or was not and is done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from penstockd.calls import Call
from penstockd.errors import RequestIdReused, RequestInFlight, ValueInvalid, Violation
from penstockd.store.replies import StoredReply, claim, read_reply, store_reply
from penstockd.store.writer import WriteTransaction

#: Larger replies are not kept whole: a replay reads the record again.
MAX_REPLY_BYTES = 64 * 1024
#: Rises when replies come to show other things of the same policy: none of before is then given
#: again as it was.
_SIGHT = 2

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:+/=@-]{1,128}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """What a call that writes says beside its records.

    ``digest`` is of all that it says, its request id apart; it is needed only with one.
    """

    request_id: str = ""
    digest: bytes = b""
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How a reply is kept as bytes, and made of them.

    ``again`` makes of a reply that was kept what the caller may see now; ``brief`` makes of one
    that is too large to be kept what ``again`` needs of it.
    """

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    again: Callable[[WriteTransaction, T], Awaitable[T]] | None = None
    brief: Callable[[T], T] | None = None


def chosen_request_id(field: str, header: str | None) -> str:
    """The request id of a call, by its field or the header ``Idempotency-Key``; "" if it has none.

    The header's value may stand in quotes, as the IETF draft has it. Raises ValueInvalid if the two
    differ, or if the id is longer than 128 characters or not plain.
    """
    given = header.strip() if header is not None else ""
    if len(given) > 1 and given[0] == given[-1] == '"':
        given = given[1:-1]
    problem = ""
    if header is not None and field and field != given:
        problem = "differs from the header Idempotency-Key"
    elif (field or header is not None) and not _REQUEST_ID.fullmatch(field or given):
        problem = "must be 1 to 128 letters, digits and . _ ~ : + / = @ -"
    if problem:
        message = f"request_id: {problem}"
        raise ValueInvalid(message, violations=[Violation("request_id", problem)])
    return field or given


class Once:
    """The request id of one call: claimed before it writes, kept with the reply after."""

    def __init__(self, call: Call, request_id: str) -> None:
        self._call, self._request_id = call, request_id
        self._consumer = call.principal.consumer_id
        principal = call.principal
        sight = (
            _SIGHT,
            call.policy.revision,
            sorted(principal.roles),
            sorted((name, tuple(values)) for name, values in principal.claims.items()),
            None if principal.scopes is None else sorted(principal.scopes),
        )
        self._sight = hashlib.sha256(repr(sight).encode()).digest()

    async def claim(self, transaction: WriteTransaction) -> StoredReply | None:
        """Claim the id until the transaction ends; the reply that is kept for it, if any.

        Raises RequestInFlight.
        """
        if not self._request_id:
            return None
        self._call.asked(request_id=self._request_id)
        if not await claim(transaction.connection, self._consumer, self._request_id):
            raise RequestInFlight("a call with this request id is under way; repeat it")
        return await read_reply(transaction.connection, self._consumer, self._request_id)

    async def replay(
        self, transaction: WriteTransaction, stored: StoredReply, digest: bytes, form: Form[T]
    ) -> T:
        """The stored reply of the same call, as far as the caller may see it now.

        Raises RequestIdReused if it was another call, and what ``Form.again`` raises.
        """
        if stored.method != self._call.entry.method or stored.digest != digest:
            raise RequestIdReused(
                "the request id was used for another call",
                violations=[Violation("request_id", "was used for another call")],
            )
        self._call.replayed = True
        self._call.asked(replayed=True)
        reply = form.decode(stored.reply or b"")
        if form.again is not None and (stored.reply is None or stored.sight != self._sight):
            reply = await form.again(transaction, reply)
        await self._call.audit_within(transaction.connection, stored.row_count)
        return reply

    async def keep(
        self, transaction: WriteTransaction, form: Form[T], reply: T, digest: bytes, rows: int
    ) -> None:
        """Keep the reply in the transaction of what it tells of."""
        if not self._request_id:
            return
        encoded, sight = form.encode(reply), self._sight
        if form.brief is not None and len(encoded) > MAX_REPLY_BYTES:
            encoded, sight = form.encode(form.brief(reply)), b""
        stored = StoredReply(
            method=self._call.entry.method,
            digest=digest,
            sight=sight,
            reply=encoded,
            row_count=rows,
        )
        await store_reply(transaction.connection, self._consumer, self._request_id, stored)


async def write_once(
    call: Call,
    request: Request,
    form: Form[T],
    work: Callable[[WriteTransaction], Awaitable[tuple[T, int]]],
) -> T:
    """Do ``work``, which returns reply and rows, unless it was done; run it to its end.

    With ``validate_only`` nothing of it stays, and no request id is looked at. Raises what ``work``
    raises, RequestInFlight and RequestIdReused.
    """
    once = Once(call, "" if request.validate_only else request.request_id)
    call.asked(validate_only=request.validate_only)

    async def write() -> T:
        async with call.transaction(dry=request.validate_only) as transaction:
            stored = await once.claim(transaction)
            if stored is not None:
                return await once.replay(transaction, stored, request.digest, form)
            reply, rows = await work(transaction)
            if isinstance(reply, Message):
                call.entry.byte_count = reply.ByteSize()
            if request.validate_only:
                call.entry.row_count = rows
                return reply
            await once.keep(transaction, form, reply, request.digest, rows)
            await call.audit_within(transaction.connection, rows)
        return reply

    return await call.finish(write())
