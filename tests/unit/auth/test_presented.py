"""The credential in the headers of a call, and the challenges for callers without a valid one."""

from __future__ import annotations

import base64

import pytest

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


def test_challenges() -> None:
    assert list_challenges(HERE) == [BASIC, BEARER]
    assert list_challenges(FAR) == [BEARER]
    assert list_challenges({**HERE, "authorization": "Bearer a.b.c"}) == [BASIC, BAD_TOKEN]
    assert list_challenges({**HERE, "x-api-key": KEY}) == [BASIC, BEARER]
    assert list_challenges({**HERE, "sec-fetch-mode": "navigate"}) == [BASIC, BEARER]
    for mode in ("cors", "no-cors", "same-origin", "websocket"):
        assert list_challenges({**HERE, "sec-fetch-mode": mode}) == [BEARER]
