"""ReviewAccess: what consumers may see and received, as a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from penstockd.access.review import ReviewQuestion, ReviewReader, set_terms
from penstockd.access.review_files import REVIEWS
from penstockd.calls import Call
from penstockd.exports.documents import sending_document
from penstockd.hub import Hub
from penstockd.policy.model import Permission

#: What a client must take within the time for which it may stall.
PIECE_BYTES = 256 * 1024


async def review_access(
    hub: Hub,
    call: Call,
    question: ReviewQuestion,
    form: str,
    send: Callable[[bytes], Awaitable[None]],
) -> None:
    """Send the file of a review in a format, some consumers at a time. It shows the policy and what
    the audit knows, so that it needs both permissions.

    Raises PermissionDenied, ValueInvalid and RecordNotFound before anything is sent; ClientStalled
    and DatabaseUnavailable also after that. Without its end a file is incomplete.
    """
    call.require(Permission.ACCESS_READ)
    call.require(Permission.AUDIT_READ)
    call.asked(**asdict(question), format=form)
    question.check()
    async with hub.database.connection() as connection:
        terms = await set_terms(connection, call.policy, question)
        reader = ReviewReader(terms, question.consumer)
        documents = await reader.read(connection)
    if call.headers_only:
        return
    file = REVIEWS[form]()
    async with sending_document(call, hub.exports.stall_seconds, send) as send_piece:
        text = file.begin(terms.head)
        while documents:
            text += "".join(map(file.add, documents))
            data, text = text.encode(), ""
            for at in range(0, len(data), PIECE_BYTES):
                await send_piece(data[at : at + PIECE_BYTES], 0 if at else len(documents))
            async with hub.database.connection() as connection:
                documents = await reader.read(connection)
        await send_piece((text + file.end()).encode(), 0)
