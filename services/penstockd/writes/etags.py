"""Etags that callers send back: those of the records they were shown, not always the stored
ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from penstockd.calls import Call
from penstockd.errors import EtagMismatch, ValueInvalid, Violation
from penstockd.policy.model import Action
from penstockd.policy.read import Get
from penstockd.store.writer import WriteTransaction
from penstockd.writes.outgoing import ReplyView


def read_etags(text: str) -> Sequence[str]:
    """The etags of a request, which are separated by commas. A text without any is one that no
    record has: what names no etag must not count as naming none."""
    found = [etag for part in text.split(",") if (etag := part.strip())]
    return found or ([text] if text else [])


def join_etags(beside: str, inside: str) -> str:
    """The etags sent beside a record, or the one in it. Raises ValueInvalid if they differ."""
    if beside and inside and inside not in read_etags(beside):
        violation = Violation("etag", "differs from the etag in the record")
        raise ValueInvalid("two different etags were given", violations=[violation])
    return inside or beside


class ExpectedEtag:
    """The etags of which a write expects a record to have one, as the caller was shown them.

    They come from get or list, or from the reply to a write, which may show less.
    """

    def __init__(self, call: Call, reply: ReplyView, etags: Collection[str]) -> None:
        shown = [reply.view] if reply.readable is None else [reply.readable]
        if reply.readable is not None:
            shown.append(call.view(reply.view.dataset, Action.READ))
        self._etags, self._view = etags, reply.view
        self._derived = [v for v in dict.fromkeys(shown) if v.derives_etag]
        self._stored = not all(v.derives_etag for v in shown)

    async def left(self, transaction: WriteTransaction, key: str) -> Collection[str]:
        """What the store must still compare: the etags, or none if they were compared here.

        The record is locked from then on. Raises EtagMismatch.
        """
        if not self._etags or not self._derived:
            return self._etags
        dataset = self._view.dataset
        if not await transaction.lock(self._view.guard, key):
            return ()  # the write will find that it does not exist
        for view in self._derived:
            read = view.prepared(Get, "etag")
            statement = read.statement
            row = await transaction.connection.fetchrow(
                statement.text, *statement.arguments(key=key)
            )
            if row is not None and getattr(read.codec.message(tuple(row)), "etag") in self._etags:  # noqa: B009  # a message of any dataset
                return ()
        if self._stored:
            return self._etags
        raise EtagMismatch(
            f"{dataset.singular} '{key}' changed since it was read",
            violations=[Violation("etag", "is another now")],
        )
