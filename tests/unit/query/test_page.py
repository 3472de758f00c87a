"""Page tokens: exact round trips, and no bit that can be changed."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstockd.keyring import FixedKey
from penstockd.query import PageTokenError, PageTokens, query_digest

TOKENS = PageTokens(FixedKey(b"a secret of thirty-two bytes...."))
BROKEN = "the page token is not one that was issued here"
FOREIGN = "the page token belongs to another query"

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64),
    st.floats(),
    st.text(st.characters(codec="utf-8"), max_size=50),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.dates(),
    st.datetimes(timezones=st.just(dt.UTC)),
)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal to the last digit and of the same type."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and a == b and str(a) == str(b)


@given(st.lists(VALUES, max_size=9))
def test_positions_come_back_exactly(position: list[Any]) -> None:
    back = TOKENS.read(TOKENS.issue("q", position), "q")
    assert len(back) == len(position) and all(map(same, position, back))


def test_every_changed_bit_is_found() -> None:
    token = TOKENS.issue("q", ["a", 1])
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for i, kept in enumerate(token):
        for other in alphabet:
            if other != kept:
                with pytest.raises(PageTokenError) as caught:
                    TOKENS.read(token[:i] + other + token[i + 1 :], "q")
                assert caught.value.message == BROKEN


@given(st.one_of(st.text(), st.text("ABCabc012-_=", max_size=80)))
def test_garbage_is_refused_in_one_way(token: str) -> None:
    with pytest.raises(PageTokenError, match=BROKEN):
        TOKENS.read(token, "q")


@pytest.mark.parametrize("suffix", ["=", "==", "A", " ", "\n", "é"])
def test_a_token_has_one_spelling(suffix: str) -> None:
    with pytest.raises(PageTokenError, match=BROKEN):
        TOKENS.read(TOKENS.issue("q", ["a"]) + suffix, "q")


def test_tokens_of_another_secret_and_query() -> None:
    token = TOKENS.issue("q", ["a"])
    with pytest.raises(PageTokenError, match=BROKEN):
        PageTokens(FixedKey(b"b" * 32)).read(token, "q")
    with pytest.raises(PageTokenError, match=FOREIGN):
        TOKENS.read(token, "r")
    with pytest.raises(ValueError, match="32 bytes"):
        PageTokens(FixedKey(b"short"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PageTokenError, match="too long for a page token"):
        TOKENS.issue("q", ["x" * 5000])
    with pytest.raises(PageTokenError, match=BROKEN):
        TOKENS.read("A" * 5000, "q")
    for value in (b"x", ["x"], dt.datetime(2024, 1, 1)):
        with pytest.raises(TypeError):
            TOKENS.issue("q", [value])


def test_the_digest_tells_every_part_apart() -> None:
    parts = dict.fromkeys(("dataset", "filter", "order_by", "fields", "scope"), "x")
    plain = query_digest(**parts)
    assert len(plain) == 16 and plain == query_digest(**parts)
    seen = {plain} | {query_digest(**(parts | {p: "y"})) for p in parts}
    seen.add(query_digest(**(parts | {"dataset": "x:", "filter": ""})))
    seen.add(query_digest(**(parts | {"dataset": "", "filter": "x:"})))
    assert len(seen) == 8
    token = TOKENS.issue(plain, [Decimal("12.50")])
    assert str(TOKENS.read(token, plain)[0]) == "12.50"
