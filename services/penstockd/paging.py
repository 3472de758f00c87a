"""Pages of the hub's own lists, by the position where each page starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from penstockd.calls import Call
from penstockd.query import PageTokens, page_size, query_digest
from penstockd.reply_room import count_fitting, room_of, value_size

T = TypeVar("T")


class Paging:
    """One page of a list: its size and the position before it."""

    def __init__(self, tokens: PageTokens, call: Call, what: str, size: int, token: str) -> None:
        """``what`` names the list, including everything that narrows it.

        Raises ValueInvalid for a negative size, PageTokenError for a token of another list.
        """
        self._call, self._tokens = call, tokens
        scope = call.principal.consumer_id
        self._bound = query_digest(dataset=what, filter="", order_by="", fields="", scope=scope)
        #: The items on a page, and how many to fetch: one more shows whether there is another page.
        self.size = page_size(size)
        self.limit = self.size + 1
        self.position = tokens.read(token, self._bound) if token else None

    def after(self, start: T) -> T:
        """The position after which the page begins, if it is a single value; ``start`` on the first
        page."""
        return self.position[0] if self.position else start

    def cut(
        self,
        found: Sequence[T],
        position: Callable[[T], Any],
        shows: Callable[[T], bool] = lambda item: True,
    ) -> tuple[list[T], str]:
        """The items of ``found`` on this page, and the next page's token, "" on the last page.

        The page ends early if more items would be too large for a reply (see ``reply_room``). Those
        that it does not show, if any, leave it shorter, even empty.
        """
        page = self.fit(found[: self.size])
        end = position(page[-1]) if len(found) > len(page) else None
        shown = list(filter(shows, page))
        return shown, self.end(shown, end if end is None or isinstance(end, tuple) else (end,))

    def fit(self, found: Sequence[T]) -> list[T]:
        """As many of the first items of ``found`` as fit into a reply."""
        surface = self._call.entry.surface
        count = count_fitting(found, lambda item: value_size(item, surface), room_of(surface))
        return list(found[:count])

    def end(self, page: Sequence[T], position: Sequence[Any] | None) -> str:
        """Note the page's size in the audit entry; return the token of the next page, which begins
        after ``position``, or "" if that is None."""
        self._call.entry.row_count = len(page)
        return self._tokens.issue(self._bound, position) if position is not None else ""
