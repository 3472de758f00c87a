"""Does each write that has a request id once, and repeats its reply for a day (AIP-155).

What a call writes, its audit entry and its stored reply are one transaction, which begins by
claiming the request id. So a call that broke off at any point, even in the middle of its COMMIT,
either was done, and its reply is repeated, or was not, and is done now.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from penstockd.calls import Call
from penstockd.catalog.merging import MergePatch
from penstockd.errors import RequestIdReused, RequestInFlight, ValueInvalid, Violation
from penstockd.store.replies import StoredReply, claim_request, read_reply, store_reply
from penstockd.store.writer import WriteTransaction

#: Larger replies are not stored whole: a replay reads the record again.
MAX_REPLY_BYTES = 64 * 1024
#: Raise this when replies begin to show other things under the same policy: replies stored before
#: are then not repeated unchanged.
_SIGHT = 2

_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:+/=@-]{1,128}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """The content of a write besides its records.

    ``digest`` covers everything except the request id, and is needed only with one. ``merges`` are
    the maps and Structs of which the write changes what it names only, by their paths.
    """

    request_id: str = ""
    digest: bytes = b""
    validate_only: bool = False
    merges: Mapping[str, MergePatch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How a reply is stored as bytes, and restored.

    ``again`` turns a stored reply into what the caller may see now; ``brief`` reduces a reply that
    is too large to be stored to what ``again`` needs.
    """

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]
    again: Callable[[WriteTransaction, T], Awaitable[T]] | None = None
    brief: Callable[[T], T] | None = None


def chosen_request_id(field: str, header: str | None) -> str:
    """The request id of a call, from its field or the header ``Idempotency-Key``; "" without one.

    The header's value may be in quotes, as in the IETF draft. Raises ValueInvalid if the two
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
    """The request id of one call: claimed before it writes, then stored with the reply."""

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
        """Claim the id until the transaction ends; returns the reply stored for it, if any.

        Raises RequestInFlight.
        """
        if not self._request_id:
            return None
        self._call.asked(request_id=self._request_id)
        if not await claim_request(transaction.connection, self._consumer, self._request_id):
            raise RequestInFlight("a call with this request id is under way; repeat it")
        return await read_reply(transaction.connection, self._consumer, self._request_id)

    async def replay(
        self, transaction: WriteTransaction, stored: StoredReply, digest: bytes, form: Form[T]
    ) -> T:
        """Return the stored reply of the same call, as far as the caller may see it now.

        Raises RequestIdReused if that was another call, and what ``Form.again`` raises.
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
        _note_size(self._call, reply)
        await self._call.audit_within(transaction.connection, stored.row_count)
        return reply

    async def keep(
        self, transaction: WriteTransaction, form: Form[T], reply: T, digest: bytes, rows: int
    ) -> None:
        """Store the reply, in the transaction that it reports."""
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
    """Do ``work``, which returns reply and rows, to its end, unless it was done before.

    With ``validate_only`` nothing is kept, and the request id is ignored. Raises what ``work``
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
            _note_size(call, reply)
            if request.validate_only:
                call.entry.row_count = rows
                return reply
            await once.keep(transaction, form, reply, request.digest, rows)
            await call.audit_within(transaction.connection, rows)
        return reply

    return await call.finish(write())


def _note_size(call: Call, reply: object) -> None:
    """Note the bytes of a reply that is a message already; what is still a report has none here."""
    if isinstance(reply, Message):
        call.entry.byte_count = reply.ByteSize()
