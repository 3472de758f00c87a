"""Lists in pages (AIP-158), as one iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def walk_pages(ask: Callable[[Any], Any], request: Any, field: str) -> Iterator[Any]:
    """The items of all pages, each read when it is needed. A page may be empty although more
    follow. ``ask`` gives the reply to a request, and ``field`` holds the items of a reply."""
    while True:
        page = ask(request)
        yield from getattr(page, field)
        request.page_token = page.next_page_token
        if not request.page_token:
            return
