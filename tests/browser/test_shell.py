"""The shell around all pages: navigation by permission, states, themes; at a desk, on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from harness import RunningHub

from .guests import Guest, inviting
from .visiting import Console


@pytest.fixture
def guest(hub: RunningHub) -> Iterator[Guest]:
    with inviting(hub) as made:
        yield made


def links(console: Console) -> Locator:
    return console.page.get_by_role("navigation", name="Main").get_by_role("link")


def test_the_navigation_is_what_the_user_may_see(console: Console, guest: Guest) -> None:
    console.sign_in(guest.name, guest.secret)
    expect(links(console).filter(has_text="Account")).to_be_visible()
    expect(links(console).filter(has_text="Webhooks")).to_have_count(0)
    console.press("Sign out")
    console.sign_in("crm")
    expect(links(console).filter(has_text="Webhooks")).to_be_visible()


def test_who_may_not_see_a_page_is_told_what_it_takes(console: Console, guest: Guest) -> None:
    console.open("#/webhooks")
    console.sign_in(guest.name, guest.secret)
    console.heading("You may not see this page")
    told = console.page.get_by_role("alert")
    expect(told).to_contain_text("webhooks.read")
    expect(told).to_contain_text(f"the role {guest.name}")
    console.press("Check again")
    console.heading("You may not see this page")
    guest.permit("webhooks.read")
    console.press("Check again")
    expect(console.page.get_by_text("There are no webhooks yet.")).to_be_visible()
    expect(links(console).filter(has_text="Webhooks")).to_be_visible()
    # It may see them, and make none.
    expect(console.page.get_by_role("link", name="New webhook")).to_have_count(0)


def test_permissions_that_are_taken_meanwhile_are_the_hubs_to_refuse(
    console: Console, guest: Guest
) -> None:
    guest.permit("webhooks.read")
    console.open("#/account")
    console.sign_in(guest.name, guest.secret)
    console.heading("Account")
    guest.permit()
    links(console).filter(has_text="Webhooks").click()
    alert = console.page.get_by_role("alert")
    expect(alert).to_contain_text("Not permitted.")
    expect(alert).to_contain_text("webhooks.read")
    expect(alert).to_contain_text("PERMISSION_DENIED")
    expect(alert.locator("code")).to_have_text(re.compile("^[0-9a-f-]{36}$"))  # the request's id


def test_the_account_is_what_the_hub_says(console: Console, hub: RunningHub) -> None:
    console.open("#/account")
    console.sign_in("crm")
    console.heading("Account")
    said = hub.get("/v1/caller", "crm").json()
    assert said["roles"] == ["crm"] and "webhooks.write" in said["permissions"]
    facts = console.page.locator(".facts")
    for text in (said["consumerId"], said["plan"], ", ".join(said["permissions"])):
        expect(facts).to_contain_text(text)
    for dataset in hub.get("/v1/datasets", "crm").json()["datasets"]:
        row = console.page.get_by_role("row").filter(has_text=dataset["name"])
        expect(row).to_contain_text(str(len(dataset["fields"])))


def test_a_telephone_has_a_menu(console: Console) -> None:
    page = console.page
    page.set_viewport_size({"width": 390, "height": 844})
    console.sign_in("crm")
    menu = page.get_by_role("button", name="Menu")
    expect(menu).to_have_attribute("aria-expanded", "false")
    notices = page.get_by_role("link", name="Notices")
    expect(notices).to_be_hidden()
    menu.click()
    expect(notices).to_be_visible()
    page.keyboard.press("Escape")
    expect(notices).to_be_hidden()
    expect(menu).to_be_focused()
    menu.click()
    notices.click()
    console.heading("Notices")
    expect(notices).to_be_hidden()
    expect(page.get_by_role("main")).to_be_focused()


def test_each_page_names_the_tab_and_takes_the_focus(console: Console) -> None:
    console.sign_in("crm")
    links(console).filter(has_text="Dead letters").click()
    console.heading("Dead letters")
    expect(console.page).to_have_title("Dead letters - Penstock")
    expect(console.page.get_by_role("main")).to_be_focused()
    expect(console.page.locator("nav [aria-current=page]")).to_have_text("Dead letters")


def test_a_theme_needs_no_storage(console: Console) -> None:
    page = console.page
    blocked = """Object.defineProperty(window, "localStorage", {
        get() { throw new DOMException("blocked", "SecurityError"); }
    })"""
    page.add_init_script(blocked)
    page.reload()
    console.sign_in("crm")
    links(console).filter(has_text="Account").click()
    page.get_by_label("Colours").select_option("dark")
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    assert page.evaluate(scheme) == "dark"


@pytest.mark.parametrize("chosen", ["light", "dark"])
def test_a_chosen_theme_outlasts_the_system(console: Console, chosen: str) -> None:
    page = console.page
    page.emulate_media(color_scheme="dark" if chosen == "light" else "light")
    console.open("#/account")
    console.sign_in("crm")
    page.get_by_label("Colours").select_option(chosen)
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    assert page.evaluate(scheme) == chosen
    page.reload()
    console.heading("Sign in")
    assert page.evaluate(scheme) == chosen
    console.sign_in("crm")
    page.get_by_label("Colours").select_option("as the system")
    assert page.evaluate(scheme) == "light dark"
    assert page.evaluate("localStorage.length") == 0


def test_the_components_are_shown_each_with_its_purpose(console: Console) -> None:
    console.open("#/components")
    console.sign_in("crm")
    console.heading("Components")
    names = console.page.locator("section.card h2").all_inner_texts()
    shown = {name for text in names for name in text.split(", ")}
    assert {
        "Button",
        "Badge",
        "Dialog",
        "Table",
        "Facts",
        "Tiles",
        "Meter",
        "Tabs",
        "Chart",
    } <= shown
    assert len(shown) >= 12
    console.press("Open a dialog …")
    expect(console.page.get_by_role("dialog")).to_be_visible()
    console.page.keyboard.press("Escape")
    expect(console.page.get_by_role("dialog")).to_have_count(0)
