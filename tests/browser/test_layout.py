"""Every page is usable by keyboard, by screen reader, on a telephone and in the dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from harness import RunningHub
from posted import Posts

from .visiting import Console

#: Inputs without a label, and buttons and links without a name.
NAMELESS = """() => [...document.querySelectorAll("input, select, textarea, button, a")]
  .filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel))
  .map(e => e.outerHTML)"""
#: The pixels by which the page is wider than the window.
EXCESS = "() => document.scrollingElement.scrollWidth - innerWidth"


@pytest.fixture
def pages(hub: RunningHub, posts: Posts) -> Iterator[dict[str, str]]:
    """Place -> heading of every page, with a webhook and a delivery to show."""
    document = {"url": f"{posts.url}/{'long' * 40}", "selections": [{"dataset": "customers"}]}
    reply = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=document)
    name = reply.json()["webhook"]["webhookId"]
    sent = hub.request("POST", f"/v1/webhooks/{name}:test", consumer="crm", json_body={})
    delivery = sent.json()["deliveryId"]
    yield {
        "#/webhooks": "Webhooks",
        "#/webhooks/new": "New webhook",
        f"#/webhooks/{name}": "Deliveries",
        f"#/webhooks/{name}/settings": "Secrets",
        f"#/webhooks/{name}/edit": "Edit",
        f"#/webhooks/{name}/deliveries/{delivery}": "Attempts",
        "#/dead-letters": "Dead letters",
        "#/notices": "Notices",
        "#/account": "Account",
        "#/usage": "Usage",
        "#/nowhere": "This page does not exist",
    }
    hub.request("DELETE", f"/v1/webhooks/{name}", consumer="crm")


def check_pages(console: Console, pages: dict[str, str]) -> None:
    """Each place has its heading, fits the window and gives every control a name."""
    page = console.page
    for place, heading in pages.items():
        page.evaluate("place => { location.hash = place }", place)
        console.heading(heading)
        expect(page.get_by_role("status")).to_have_count(0)
        assert page.evaluate(EXCESS) <= 0, place
        assert page.evaluate(NAMELESS) == [], place
        expect(page.get_by_role("heading", level=1)).to_have_count(1)


def test_every_page_fits_a_telephone_and_has_names(console: Console, pages: dict[str, str]) -> None:
    page = console.page
    page.set_viewport_size({"width": 390, "height": 844})
    console.sign_in("crm")
    console.heading("Webhooks")
    check_pages(console, pages)
    # The checks do measure something.
    page.evaluate("""() => {
      const wide = document.createElement("input");
      wide.style.width = "2000px";
      document.querySelector("main").append(wide);
    }""")
    assert page.evaluate(EXCESS) > 0
    assert len(page.evaluate(NAMELESS)) == 1


#: Place -> heading of the pages for administrators.
MANAGEMENT = {
    "#/usage": "Usage",
    "#/plans": "Plans",
    "#/plans/plan/partner": "Plan partner",
    "#/plans/new": "New plan",
    "#/plans/consumers": "Plans",
    "#/plans/consumers/crm": "Limits of crm",
    "#/plans/history": "Plans",
    "#/monitoring": "Monitoring",
}


@pytest.mark.parametrize("width", [390, 1280])
def test_the_pages_of_administrators_fit(console: Console, width: int) -> None:
    console.page.set_viewport_size({"width": width, "height": 844})
    console.sign_in("admin")
    console.heading("Webhooks")
    check_pages(console, MANAGEMENT)


def test_the_keyboard_is_enough(console: Console) -> None:
    page = console.page
    expect(page.get_by_label("Client id")).to_be_focused()
    page.keyboard.type("crm")
    page.keyboard.press("Tab")
    page.keyboard.type(console.hub.consumers["crm"]["client_secret"])
    page.keyboard.press("Enter")
    console.heading("Webhooks")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    new = page.get_by_role("link", name="New webhook")
    expect(new).to_be_visible()
    # The number of stops before it depends on what the page has loaded.
    for _ in range(10):
        page.keyboard.press("Tab")
        if new.evaluate("element => element === document.activeElement"):
            break
    expect(new).to_be_focused()
    page.keyboard.press("Enter")
    console.heading("New webhook")


@pytest.mark.parametrize("dark", [False, True])
def test_it_is_as_dark_as_the_system(console: Console, dark: bool) -> None:
    console.page.emulate_media(color_scheme="dark" if dark else "light")
    console.heading("Sign in")
    colour = console.page.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    assert (max(shades) < 64) is dark and (min(shades) > 192) is not dark, colour
