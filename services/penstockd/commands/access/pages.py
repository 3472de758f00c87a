"""Pages of what the hub keeps about access, by the position where each starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from penstockd.calls import Call
from penstockd.commands.list_records import page_size
from penstockd.hub import Hub
from penstockd.query import query_digest

T = TypeVar("T")


class Paging:
    """One page of a list: how many, and after which position."""

    def __init__(self, hub: Hub, call: Call, what: str, size: int, token: str) -> None:
        """Raise ValueInvalid for a negative size, PageTokenError for a token of another list."""
        self._call, self._tokens = call, hub.page_tokens
        self._bound = query_digest(
            dataset=f"access/{what}",
            filter="",
            order_by="",
            fields="",
            scope=str(call.entry.consumer_id),
        )
        self._size = page_size(size)
        self.position = hub.page_tokens.read(token, self._bound) if token else None
        #: How many to fetch: one more than the page holds tells whether there is another.
        self.limit = self._size + 1

    def cut(self, found: Sequence[T], position: Callable[[T], Any]) -> tuple[list[T], str]:
        """What of ``found`` is on the page, and the token of the next, "" on the last."""
        page = list(found[: self._size])
        self._call.entry.row_count = len(page)
        if len(found) <= self._size:
            return page, ""
        where = position(page[-1])
        return page, self._tokens.issue(
            self._bound, where if isinstance(where, tuple) else (where,)
        )
