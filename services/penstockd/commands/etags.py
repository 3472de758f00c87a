"""Etags that callers give back: those of what they were shown, not always the stored ones."""

from __future__ import annotations

from penstockd.catalog import Dataset
from penstockd.commands.context import Call
from penstockd.errors import EtagMismatch, PermissionDenied, Violation
from penstockd.policy.model import Action
from penstockd.policy.read import Get
from penstockd.policy.view import View
from penstockd.store.writer import WriteTransaction


class ExpectedEtag:
    """An etag that a write expects of a record, as the caller's View to read shows it."""

    def __init__(self, call: Call, view: View, etag: str) -> None:
        """``view`` is that of the write: what shows its reply to a caller that may not read."""
        shown = [_reading(call, view.dataset) or view]
        if view.derives_etag and view not in shown:
            shown.append(view)
        self._etag, self._view = etag, view
        self._derived = [v for v in shown if v.derives_etag]
        self._stored = len(shown) > len(self._derived)

    async def left(self, transaction: WriteTransaction, key: str) -> str:
        """What the store is to compare: the etag, or "" where it has been compared here.

        The record is locked from then on. Raises EtagMismatch.
        """
        if not self._etag or not self._derived:
            return self._etag
        dataset = self._view.dataset
        if not await transaction.lock(self._view.guard, key):
            return ""  # the write will find that it is not there
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


def _reading(call: Call, dataset: Dataset) -> View | None:
    try:
        return call.view(dataset, Action.READ)
    except PermissionDenied:
        return None
