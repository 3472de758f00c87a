"""The etags of requests."""

from __future__ import annotations

import pytest

from penstockd.writes.etags import read_etags


@pytest.mark.parametrize(
    ("text", "etags"),
    [
        ("", []),
        ("1", ["1"]),
        ("1, 2,,3 ", ["1", "2", "3"]),
        # What names no etag is one that no record has: it must not mean that any will do.
        (",", [","]),
        (" ", [" "]),
        (" , ,", [" , ,"]),
    ],
)
def test_a_text_without_etags_is_still_a_precondition(text: str, etags: list[str]) -> None:
    assert list(read_etags(text)) == etags
