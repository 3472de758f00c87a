"""The page of usage: its figures are those of the API, on the screen, in tables and in files."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from harness import RunningHub, eventually

from .guests import Guest, inviting
from .visiting import Console

FOUND, MISSING = 7, 3
LIMITS = {
    "quotas": [
        {"what": "calls", "per": "day", "limit": "40"},
        {"what": "records", "per": "month", "limit": "1000", "soft": True},
    ]
}


@pytest.fixture
def guest(hub: RunningHub) -> Iterator[Guest]:
    """A consumer that has made some calls, all of which are counted."""
    with inviting(hub, ["webhooks.read"], limits=LIMITS) as made:
        headers = {"authorization": f"Bearer {made.token()}"}
        for _ in range(FOUND):
            assert hub.request("GET", "/v1/webhooks", headers=headers).status == 200
        for _ in range(MISSING):
            assert hub.request("GET", "/v1/webhooks/wh_none", headers=headers).status == 404
        eventually(lambda: counted(hub, made.name))
        yield made


def counted(hub: RunningHub, consumer: str) -> bool:
    """Whether the calls to webhooks are in the reports."""
    rows = report(hub, consumer, "method")
    return sum(int(r["calls"]) for r in rows if "Webhook" in r["method"]) == FOUND + MISSING


def report(hub: RunningHub, consumer: str, *groups: str) -> list[dict[str, Any]]:
    """The hub's report of the last day."""
    query = "&".join(f"group_by={group}" for group in groups)
    reply = hub.get(f"/v1/usage:report?consumer={consumer}&order_by=calls&{query}")
    assert reply.status == 200, reply.text
    return list(reply.json().get("rows", []))


def tile(page: Page, name: str) -> Locator:
    found = page.get_by_role("list", name="Totals").get_by_role("listitem")
    return found.filter(has=page.get_by_text(name, exact=True)).locator("strong")


def chart(page: Page, title: str) -> Locator:
    return page.get_by_role("figure", name=title, exact=True)


def open_usage(console: Console, consumer: str) -> Page:
    console.open("#/usage")
    console.sign_in(consumer)
    console.heading("Usage")
    return console.page


def choose(page: Page, consumer: str) -> None:
    field = page.get_by_label("Consumer")
    field.fill(consumer)
    field.press("Enter")


@pytest.fixture
def today(hub: RunningHub) -> Iterator[dt.date]:
    """The first day of which the hub has usage by the minute."""

    def keep(value: str) -> list[tuple[Any, ...]]:
        statement = f"UPDATE hub.usage_level SET oldest_day = {value} WHERE level = 'minute'"
        # In another thread, because the browser's loop runs in this one.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(hub.sql, f"{statement} RETURNING oldest_day").result()

    yield keep("(now() AT TIME ZONE 'UTC')::date")[0][0]
    keep("NULL")


def test_an_administrator_sees_the_figures_of_the_api(
    console: Console, hub: RunningHub, guest: Guest
) -> None:
    page = open_usage(console, "admin")
    choose(page, guest.name)
    page.get_by_label("Group by").select_option("method")
    (total,) = report(hub, guest.name)
    expect(tile(page, "Calls")).to_have_text(str(total["calls"]))
    expect(tile(page, "Errors")).to_have_text(str(MISSING))
    rows = report(hub, guest.name, "method")
    assert len(rows) > 1
    for row in rows:
        shown = page.get_by_role("row").filter(has_text=row["method"])
        expect(shown.get_by_role("cell").nth(1)).to_have_text(str(row["calls"]))
        expect(shown.get_by_role("cell").nth(2)).to_have_text(str(row.get("errors", 0)))


def test_each_chart_has_its_table_and_its_file(
    console: Console, hub: RunningHub, guest: Guest
) -> None:
    page = open_usage(console, "admin")
    choose(page, guest.name)
    page.get_by_label("Group by").select_option("nothing")
    (total,) = report(hub, guest.name)
    expect(tile(page, "Calls")).to_have_text(str(total["calls"]))
    for title, key in (("Calls", "calls"), ("Errors", "errors"), ("Records", "records")):
        found = chart(page, title)
        found.get_by_role("button", name="Table").click()
        cells = found.locator("tbody td:last-child").all_inner_texts()
        assert len(cells) in (24, 25), "an hour a row"
        with page.expect_download() as saved:
            found.get_by_role("button", name="CSV").click()
        lines = list(csv.DictReader(io.StringIO(saved.value.path().read_text())))
        wanted = int(total.get(key, 0))
        assert sum(map(int, cells)) == sum(int(line["total"]) for line in lines) == wanted
        assert saved.value.suggested_filename == f"{key}.csv"


def test_the_report_is_saved_as_the_hub_writes_it(
    console: Console, hub: RunningHub, guest: Guest
) -> None:
    page = open_usage(console, "admin")
    choose(page, guest.name)
    page.get_by_label("Group by").select_option("status")
    expect(page.get_by_role("cell", name="OK", exact=True)).to_be_visible()
    with page.expect_download() as saved:
        console.press("Export CSV")
    lines = list(csv.DictReader(io.StringIO(saved.value.path().read_text())))
    assert set(lines[0]) >= {"status", "time", "calls", "errors", "records", "bytes"}
    told = {row["status"]: int(row["calls"]) for row in report(hub, guest.name, "status")}
    sums = dict.fromkeys(told, 0)
    for line in lines:
        sums[line["status"]] += int(line["calls"])
    assert sums == told


def test_drawing_across_a_chart_looks_closer(console: Console, guest: Guest) -> None:
    page = open_usage(console, "admin")
    choose(page, guest.name)
    page.get_by_label("Group by").select_option("nothing")
    expect(chart(page, "Calls").locator(".legend")).to_contain_text("total")
    expect(page.get_by_text("By hour.")).to_be_visible()
    before = page.get_by_label("From").input_value()
    drawn = chart(page, "Calls").locator(".u-over")
    drawn.scroll_into_view_if_needed()
    # The plot is made anew with its lines, a moment after them.
    box = eventually(drawn.bounding_box)
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.9, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.99, middle, steps=5)
    page.mouse.up()
    expect(page.get_by_text("By minute.")).to_be_visible()
    assert page.get_by_label("From").input_value() > before
    # The same without a pointer.
    page.get_by_label("Time", exact=True).select_option("last 7 days")
    expect(page.get_by_text("By hour.")).to_be_visible()
    page.get_by_label("From").fill("2026-01-01T00:00")
    expect(page.get_by_text("By day.")).to_be_visible()


def test_what_is_kept_no_longer_by_the_minute_is_shown_by_the_hour(
    console: Console, guest: Guest, today: dt.date
) -> None:
    page = open_usage(console, "admin")
    choose(page, guest.name)
    page.get_by_label("Group by").select_option("nothing")
    page.get_by_label("Time", exact=True).select_option("last 90 days")
    expect(page.get_by_text("By day.")).to_be_visible()
    expect(tile(page, "Errors")).to_have_text(str(MISSING))
    yesterday = today - dt.timedelta(days=1)
    page.get_by_label("From").fill(f"{yesterday}T01:30")
    page.get_by_label("Before").fill(f"{yesterday}T03:30")
    expect(page.get_by_text("By hour.")).to_be_visible()
    expect(page.get_by_text("Nothing was used in this time.")).to_be_visible()
    with page.expect_download() as saved:
        console.press("Export CSV")
    assert saved.value.path().read_text().startswith("time,")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_consumer_that_was_deleted_has_usage_and_no_limits(
    console: Console, hub: RunningHub
) -> None:
    with inviting(hub) as gone:
        headers = {"authorization": f"Bearer {gone.token()}"}
        assert hub.request("GET", "/v1/datasets", headers=headers).status == 200
    page = open_usage(console, "admin")
    choose(page, gone.name)
    expect(page.get_by_text("This consumer no longer exists.")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    choose(page, "")
    expect(page.get_by_text("Choose a consumer to see its limits.")).to_be_visible()


def test_limits_are_bars_with_a_forecast(console: Console, hub: RunningHub, guest: Guest) -> None:
    page = open_usage(console, "admin")
    choose(page, guest.name)
    console.heading(f"Limits of {guest.name}")
    limits = hub.get(f"/v1/limits?consumer={guest.name}").json()["limits"]
    assert [limit["name"] for limit in limits] == ["calls-per-day", "records-per-month"]
    bar = page.get_by_role("meter", name="calls per day")
    expect(bar).to_have_attribute("aria-valuemax", "40")
    expect(bar).to_have_attribute("aria-valuenow", str(limits[0]["used"]))
    said = page.locator(".meter").filter(has=bar)
    expect(said).to_contain_text(f"{limits[0]['used']} of 40 used")
    forecast = "is used up" if "exhaustedTime" in limits[0] else "it lasts"
    expect(said).to_contain_text(forecast)
    expect(page.locator(".meter").nth(1)).to_contain_text("it is soft")


def test_a_consumer_sees_its_own_usage_alone(console: Console, guest: Guest) -> None:
    console.open("#/usage")
    console.sign_in(guest.name, guest.secret)
    console.heading("Your limits")
    page = console.page
    expect(page.get_by_label("Consumer")).to_have_count(0)
    choices = page.get_by_label("Group by").locator("option").all_inner_texts()
    assert "method" in choices and "consumer" not in choices
    expect(tile(page, "Errors")).to_have_text(str(MISSING))


def test_no_usage_is_told(console: Console, hub: RunningHub) -> None:
    page = open_usage(console, "crm")
    page.get_by_label("Before").fill("2020-01-02T00:00")  # before the beginning: nothing changes
    expect(page.get_by_label("Time", exact=True)).to_have_value("2")
    page.get_by_label("From").fill("2020-01-01T00:00")
    page.get_by_label("Before").fill("2020-01-02T00:00")
    expect(page.get_by_text("Nothing was used in this time.")).to_be_visible()
    expect(tile(page, "Calls")).to_have_text("0")
