"""Lists in pages, as one iteration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from penstock.client.pages import walk_pages


def test_all_pages_are_read_when_they_are_needed() -> None:
    """A page may be empty although more follow."""
    pages: dict[str, tuple[list[int], str]] = {"": ([1, 2], "a"), "a": ([], "b"), "b": ([3], "")}
    asked: list[str] = []

    def ask(request: Any) -> Any:
        asked.append(request.page_token)
        items, token = pages[request.page_token]
        return SimpleNamespace(items=items, next_page_token=token)

    found = walk_pages(ask, SimpleNamespace(page_token=""), "items")
    assert asked == []
    assert [next(found), next(found)] == [1, 2] and asked == [""]
    assert [*found] == [3] and asked == ["", "a", "b"]
