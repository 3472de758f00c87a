"""Signing in and out; where credentials are kept, and where they are not."""

from __future__ import annotations

import json

from playwright.sync_api import Request, Route, expect

from .visiting import Console

#: Chromium's message for each reply that is an error.
FAILED = "Failed to load resource"


def test_who_signs_in_sees_the_first_page_and_signs_out_again(console: Console) -> None:
    console.page.goto(console.hub.url)
    console.heading("Sign in")
    assert console.page.url == f"{console.hub.url}/portal/"
    console.sign_in("crm")
    console.heading("Usage")
    expect(console.page.get_by_text("Signed in as crm")).to_be_visible()
    console.press("Sign out")
    console.heading("Sign in")
    expect(console.page.get_by_text("You are signed out.")).to_be_visible()
    expect(console.page.get_by_label("Client secret")).to_have_value("")


def test_a_wrong_secret_is_told(console: Console) -> None:
    console.expected = (FAILED,)
    console.sign_in("crm", "wrong")
    alert = console.page.get_by_role("alert")
    expect(alert).to_have_text("Not signed in: the client is unknown or its secret is wrong.")
    console.sign_in("crm")
    console.heading("Webhooks")


def test_credentials_are_kept_in_memory_alone(console: Console) -> None:
    asked: list[Request] = []
    console.page.on("request", lambda request: asked.append(request))
    console.sign_in("crm")
    console.heading("Webhooks")
    secret = console.hub.consumers["crm"]["client_secret"]
    kept = console.page.evaluate(
        """async () => JSON.stringify([
          { ...localStorage }, { ...sessionStorage }, document.cookie, location.href,
          history.state, await indexedDB.databases(), await caches.keys(),
        ])"""
    )
    assert json.loads(kept) == [{}, {}, "", f"{console.hub.url}/portal/#/webhooks", None, [], []]
    assert asked, "the listener heard nothing"
    assert not [r.url for r in asked if secret in r.url or "token=" in r.url]
    sent = {name for r in asked for name in r.all_headers()}
    assert "authorization" in sent and not sent & {"cookie", "referer"}
    console.page.reload()
    console.heading("Sign in")


def test_a_token_that_has_expired_is_renewed_and_a_refused_one_ends_the_session(
    console: Console,
) -> None:
    console.expected = (FAILED,)
    token, tokens, refused = console.hub.token("crm"), 0, False

    def answer(route: Route) -> None:
        nonlocal tokens
        if refused:
            route.fulfill(status=401, json={"error": "invalid_client"})
            return
        tokens += 1
        route.fulfill(json={"access_token": token, "expires_in": 0})

    console.page.route("**/oauth2/token", answer)
    console.sign_in("crm")
    console.heading("Webhooks")
    console.page.get_by_role("link", name="Notices").click()
    console.heading("Notices")
    expect(console.page.get_by_role("status")).to_have_count(0)  # the page has loaded
    assert tokens > 1
    refused = True
    console.page.get_by_role("link", name="Dead letters").click()
    console.heading("Sign in")
    expect(console.page.get_by_text("The session has ended.")).to_be_visible()
    # A new sign-in returns to the page where the session ended.
    refused = False
    console.sign_in("crm")
    console.heading("Dead letters")
    expect(console.page.get_by_role("status")).to_have_count(0)


def test_a_token_that_was_revoked_is_replaced(console: Console) -> None:
    def spoil(route: Route) -> None:
        route.fulfill(json={"access_token": "none.of.ours", "expires_in": 900})

    console.page.route("**/oauth2/token", spoil, times=1)
    console.sign_in("crm")
    console.heading("Webhooks")
    expect(console.page.get_by_role("link", name="New webhook")).to_be_visible()
    expect(console.page.get_by_role("status")).to_have_count(0)
    expect(console.page.get_by_role("alert")).to_have_count(0)


def test_a_hub_that_is_away_is_told(console: Console) -> None:
    console.expected = (FAILED,)
    console.sign_in("crm")
    console.heading("Webhooks")
    expect(console.page.get_by_role("status")).to_have_count(0)
    console.page.context.set_offline(True)
    console.page.get_by_role("link", name="Notices").click()
    expect(console.page.get_by_role("alert")).to_contain_text("The hub cannot be reached.")
    console.page.context.set_offline(False)
    console.press("Refresh")
    expect(console.page.get_by_role("alert")).to_have_count(0)
