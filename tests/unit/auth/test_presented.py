"""The credential in the headers of a call, and the challenges for callers without a valid one."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from penstockd.answers.edge import CREDENTIAL_HEADERS
from penstockd.auth.presented import (
    BAD_TOKEN,
    BASIC,
    BEARER,
    Presented,
    SignInWay,
    list_challenges,
    read_presented,
)

KEY = "psk_0123456789abcdef_x_y"
HERE = {"x-envoy-external-address": "127.0.0.1", "x-forwarded-proto": "http"}
FAR = {"x-envoy-external-address": "192.0.2.7", "x-forwarded-proto": "http"}
TLS = {"x-envoy-external-address": "192.0.2.7", "x-forwarded-proto": "https"}


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"authorization": "Bearer a.b.c"}, Presented(SignInWay.TOKEN, "a.b.c")),
        ({"authorization": "bEARER    a.b.c  "}, Presented(SignInWay.TOKEN, "a.b.c")),
        ({"authorization": f"Bearer {KEY}"}, Presented(SignInWay.API_KEY, KEY)),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer  "}, None),
        ({"authorization": "Digest a"}, None),
        ({"x-api-key": KEY}, Presented(SignInWay.API_KEY, KEY)),
        ({"x-api-key": KEY, "authorization": "Bearer a.b.c"}, None),
        (basic("crm:secret:with:colons"), Presented(SignInWay.CLIENT, "secret:with:colons", "crm")),
        (basic(f"anybody:{KEY}"), Presented(SignInWay.API_KEY, KEY)),
        (basic("crm"), None),
        (basic("crm:"), None),
        ({"authorization": "Basic ??"}, None),
        ({"authorization": "Basic //79"}, None),  # not UTF-8
    ],
)
def test_one_credential_is_read(headers: dict[str, str], found: Presented | None) -> None:
    assert read_presented({**HERE, **headers}) == found


def test_basic_needs_tls_or_this_machine() -> None:
    sent = basic("crm:secret")
    assert read_presented({**FAR, **sent}) is None
    assert read_presented({**TLS, **sent}) is not None
    assert read_presented(sent) is None  # nothing is known about the connection
    # Bearer tokens are not affected.
    assert read_presented({**FAR, "authorization": "Bearer a.b.c"}) is not None


@pytest.mark.parametrize(
    ("site", "accepted"),
    [("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False)],
)
def test_no_foreign_page_uses_basic(site: str, accepted: bool) -> None:
    sent = {**TLS, **basic("crm:secret"), "sec-fetch-site": site}
    assert (read_presented(sent) is not None) == accepted


class Watched(dict[str, str]):
    """Headers that note which of them are read."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(headers)
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return super().__getitem__(name)


def test_the_sidecar_sends_every_header_that_decides() -> None:
    """Otherwise it would take a known caller for an unknown one."""
    read: set[str] = set()
    for place in ({}, HERE, FAR, TLS):
        for headers in ({}, basic("a:b"), {"x-api-key": KEY}, {"authorization": "Bearer a.b.c"}):
            watched = Watched({**place, **headers})
            read_presented(watched)
            read |= watched.read
    assert read == set(CREDENTIAL_HEADERS)


def test_challenges() -> None:
    assert list_challenges(HERE) == [BASIC, BEARER]
    assert list_challenges(FAR) == [BEARER]
    assert list_challenges({**HERE, "authorization": "Bearer a.b.c"}) == [BASIC, BAD_TOKEN]
    assert list_challenges({**HERE, "x-api-key": KEY}) == [BASIC, BEARER]
    assert list_challenges({**HERE, "sec-fetch-mode": "navigate"}) == [BASIC, BEARER]
    for mode in ("cors", "no-cors", "same-origin", "websocket"):
        assert list_challenges({**HERE, "sec-fetch-mode": mode}) == [BEARER]
