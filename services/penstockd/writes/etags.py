"""Etags that callers send back: those of the records they were shown, not always the stored
ones."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import EtagMismatch, Violation
from penstockd.policy.model import Action
from penstockd.policy.read import Get
from penstockd.store.writer import WriteTransaction
from penstockd.writes.outgoing import ReplyView


class ExpectedEtag:
    """An etag that a write expects of a record, as the caller was shown it.

    It comes from get or list, or from the reply to a write, which may show less.
    """

    def __init__(self, call: Call, reply: ReplyView, etag: str) -> None:
        shown = [reply.view] if reply.readable is None else [reply.readable]
        if reply.readable is not None:
            shown.append(call.view(reply.view.dataset, Action.READ))
        self._etag, self._view = etag, reply.view
        self._derived = [v for v in dict.fromkeys(shown) if v.derives_etag]
        self._stored = not all(v.derives_etag for v in shown)

    async def left(self, transaction: WriteTransaction, key: str) -> str:
        """What the store must still compare: the etag, or "" if it was compared here.

        The record is locked from then on. Raises EtagMismatch.
        """
        if not self._etag or not self._derived:
            return self._etag
        dataset = self._view.dataset
        if not await transaction.lock(self._view.guard, key):
            return ""  # the write will find that it does not exist
        for view in self._derived:
            read = view.prepared(Get, "etag")
            statement = read.statement
            row = await transaction.connection.fetchrow(
                statement.text, *statement.arguments(key=key)
            )
            if row is not None and getattr(read.codec.message(tuple(row)), "etag") == self._etag:  # noqa: B009  # a message of any dataset
                return ""
        if self._stored:
            return self._etag
        raise EtagMismatch(
            f"{dataset.singular} '{key}' changed since it was read",
            violations=[Violation("etag", "is another now")],
        )
