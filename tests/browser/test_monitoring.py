"""The page of monitoring: figures of the API, refreshed by itself, and what needs a look."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from harness import RunningHub, eventually, new_customer
from posted import Posts

from .guests import inviting
from .visiting import Console


def tile(page: Page, part: str, name: str) -> Locator:
    found = page.get_by_role("list", name=part, exact=True).get_by_role("listitem")
    return found.filter(has=page.get_by_text(name, exact=True)).locator("strong")


@pytest.fixture
def page(console: Console) -> Page:
    console.open("#/monitoring")
    console.sign_in("admin")
    console.heading("Monitoring")
    return console.page


def readings(hub: RunningHub) -> Any:
    return hub.get("/v1/monitoring").json()


def test_the_figures_are_those_of_the_api(page: Page, hub: RunningHub) -> None:
    found = readings(hub)
    expect(tile(page, "Database", "Answers")).to_have_text("yes")
    usable = str(int(found["database"]["connectionsUsable"]))
    expect(page.get_by_role("list", name="Database")).to_contain_text(f"of {usable}")
    for process in found["processes"]:
        row = page.get_by_role("row").filter(has_text=process["name"])
        expect(row).to_contain_text("works")
    tasks = page.locator(".facts div")
    for task in found["tasks"]:
        named = tasks.filter(has=page.get_by_text(task["name"], exact=True))
        expect(named).to_have_text(re.compile("held$"))


def test_errors_by_reason_are_those_of_the_usage_report(page: Page, hub: RunningHub) -> None:
    for _ in range(4):
        assert hub.get("/v1/customers/no-such-customer").status == 404

    def reported() -> int:
        query = "group_by=status&status=RECORD_NOT_FOUND"
        rows = hub.get(f"/v1/usage:report?{query}").json().get("rows", [])
        return int(rows[0].get("errors", 0)) if rows else 0

    eventually(lambda: reported() >= 4)
    page.get_by_role("button", name="Refresh").click()
    row = page.get_by_role("row").filter(has_text="RECORD_NOT_FOUND")
    expect(row.get_by_role("cell").nth(2)).to_have_text("404")

    def shown() -> int:
        return int(row.get_by_role("cell").nth(1).inner_text().replace(",", ""))

    # The page shows the last hour, the report a day.
    eventually(lambda: shown() >= 4)
    assert shown() <= reported()
    expect(tile(page, "Calls", "Availability")).to_have_text(re.compile(r"^[\d.<> ]+ %$"))
    chart = page.get_by_role("figure", name="Calls and errors of the last hour")
    chart.get_by_role("button", name="Table").click()
    assert chart.locator("tbody tr").count() in (60, 61)


def test_what_cannot_be_read_is_not_said_to_work(console: Console, page: Page) -> None:
    state = page.get_by_role("region", name="State")
    expect(state).to_be_visible()
    console.expected = ("Failed to load resource",)
    page.route("**/penstock.hub.v1.Monitoring/*", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("The hub cannot be reached.")
    expect(state).to_have_count(0)
    page.unroute("**/penstock.hub.v1.Monitoring/*")
    expect(state).to_be_visible()


def test_it_refreshes_by_itself_until_it_is_paused(page: Page) -> None:
    time = page.locator(".page-head time")
    first = time.get_attribute("datetime")
    assert first is not None
    expect(time).not_to_have_attribute("datetime", first)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("it is not read again")).to_be_visible()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("again every 10 seconds")).to_be_visible()


@pytest.fixture
def disabled(hub: RunningHub, posts: Posts, path: str) -> Iterator[str]:
    """A webhook that is disabled, because its receiver answered 410."""
    posts.statuses[path] = 410
    key = f"m-{uuid.uuid4().hex[:8]}"
    chosen = {"dataset": "customers", "filter": f'customer_id = "{key}*"'}
    document = {"url": posts.url + path, "selections": [chosen]}
    made = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=document).json()
    name = made["webhook"]["webhookId"]
    record = new_customer(customerId=f"{key}1")
    assert hub.request("POST", "/v1/customers", consumer="admin", json_body=record).status == 200
    at = f"/v1/webhooks/{name}"
    eventually(lambda: hub.get(at, "crm").json()["state"] == "DISABLED")
    yield name
    hub.request("DELETE", at, consumer="crm")


def test_what_needs_a_look_is_said_on_top(disabled: str, page: Page, hub: RunningHub) -> None:
    eventually(lambda: readings(hub)["webhooks"]["states"]["DISABLED"] >= 1)
    page.get_by_role("button", name="Refresh").click()
    state = page.get_by_role("region", name="State")
    expect(state).to_contain_text("Disabled webhooks: ")
    assert int(tile(page, "Webhooks", "Disabled").inner_text()) >= 1


def test_calls_of_others_take_another_permission(console: Console, hub: RunningHub) -> None:
    console.open("#/monitoring")
    with inviting(hub, ["monitoring.read"]) as operator:
        console.sign_in(operator.name, operator.secret)
        expect(console.page.get_by_text("shown with the permission")).to_contain_text("usage.read")
        expect(tile(console.page, "Database", "Answers")).to_have_text("yes")


def test_a_consumer_has_no_such_page(console: Console) -> None:
    console.open("#/monitoring")
    console.sign_in("crm")
    console.heading("You may not see this page")
    expect(console.page.get_by_role("alert")).to_contain_text("monitoring.read")
    expect(console.page.get_by_role("link", name="Monitoring")).to_have_count(0)
