"""Which URLs lead to the same receiver."""

from __future__ import annotations

import pytest

from penstockd.webhooks.owners import parse_origin


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.example/x", "https://a.example/y?z", True),
        ("https://a.example/x", "HTTPS://A.Example:443/x", True),
        ("http://a.example:80", "http://a.example/", True),
        ("https://a.example/", "http://a.example/", False),
        ("https://a.example/", "https://a.example:444/", False),
        ("https://a.example/", "https://b.a.example/", False),
        ("https://a.example/", "https://a.example./", False),
        ("https://a.example/", "", False),
        ("", "", True),
    ],
)
def test_origin(one: str, other: str, same: bool) -> None:
    assert (parse_origin(one) == parse_origin(other)) is same
