"""The pages of plans: what an administrator sees before a change is saved, and the way back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from harness import RunningHub

from .guests import Guest, administer, inviting
from .visiting import Console


@pytest.fixture
def plan(hub: RunningHub) -> Iterator[str]:
    """A plan of 5 calls a second and 100 calls a day."""
    name = f"p-{uuid.uuid4().hex[:8]}"
    quotas = [{"what": "calls", "per": "day", "limit": "100"}]
    document = {"planId": name, "rates": [{"perSecond": 5, "burst": 9}], "quotas": quotas}
    reply = hub.request("POST", "/v1/plans", consumer="admin", json_body=document)
    assert reply.status == 200, reply.text
    yield name
    hub.request("DELETE", f"/v1/plans/{name}", consumer="admin")


@pytest.fixture
def guest(hub: RunningHub, plan: str) -> Iterator[Guest]:
    """A consumer on the plan, which has made three calls today."""
    with inviting(hub, plan=plan, title="A guest") as made:
        headers = {"authorization": f"Bearer {made.token()}"}
        for _ in range(3):
            assert hub.request("GET", "/v1/datasets", headers=headers).status == 200
        yield made


@pytest.fixture
def admin(console: Console) -> Console:
    console.open("#/plans")
    console.sign_in("admin")
    console.heading("Plans")
    return console


def stored(hub: RunningHub, plan: str) -> Any:
    reply = hub.get(f"/v1/plans/{plan}")
    assert reply.status == 200, reply.text
    return reply.json()


def row(console: Console, text: str) -> Locator:
    return console.page.get_by_role("row").filter(has_text=text)


def test_a_change_is_reviewed_before_it_is_saved(
    admin: Console, hub: RunningHub, plan: str, guest: Guest
) -> None:
    page = admin.page
    page.reload()
    admin.sign_in("admin")
    expect(row(admin, plan)).to_contain_text("calls a day: 100")
    expect(row(admin, plan).get_by_role("cell").last).to_have_text("1")
    page.get_by_role("link", name=plan).click()
    admin.heading(f"Plan {plan}")
    page.get_by_label("The most").fill("2")
    page.get_by_label("Calls a second").fill("7")
    admin.press("Review …")
    admin.heading("Review")
    expect(row(admin, "calls a day")).to_contain_text("1002")  # before and after
    expect(row(admin, "rate")).to_contain_text("7 a second, 9 at once")
    affected = row(admin, guest.name)
    expect(affected).to_contain_text("A guest")
    expect(affected).to_contain_text("calls used this day")
    expect(page.get_by_text("1 consumer is affected")).to_be_visible()
    before = stored(hub, plan)
    assert before["quotas"][0]["limit"] == "100", "a review saves nothing"
    page.get_by_label("Comment for the history").fill("smaller")
    admin.press("Save")
    admin.heading("Plans")
    after = stored(hub, plan)
    assert (after["quotas"][0]["limit"], after["rates"][0]["perSecond"]) == ("2", 7)
    expect(row(admin, plan)).to_contain_text("calls a day: 2")
    newest = hub.get("/v1/plans:history").json()["revisions"][0]
    assert newest["comment"] == "smaller"


def test_faults_are_shown_at_their_fields(admin: Console, hub: RunningHub) -> None:
    page, name = admin.page, f"p-{uuid.uuid4().hex[:8]}"
    page.get_by_role("link", name="New plan").click()
    page.get_by_label("Id").fill(name)
    page.get_by_label("Time zone").fill("Europe/Nowhere")
    admin.press("Add a rate")
    page.get_by_label("Calls a second").fill("many")
    page.get_by_label("At once after a pause").fill("10")
    admin.press("Add a quota")
    page.get_by_label("The most").fill("1.5")
    page.get_by_label("Only of").last.fill("unicorns")
    admin.press("Review …")
    expect(page.get_by_role("alert")).to_contain_text("Correct the marked fields.")
    expect(page.get_by_label("Time zone")).to_be_focused()
    expect(page.get_by_text("is not a time zone")).to_be_visible()
    expect(page.get_by_text("must be 0.001 to 1,000,000")).to_be_visible()
    expect(page.get_by_text("must be 0 to 9,007,199,254,740,991")).to_be_visible()
    expect(page.get_by_text("there is no dataset 'unicorns'")).to_be_visible()
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_label("Calls a second").fill("0.5")
    page.get_by_label("The most").fill("1500")
    page.get_by_label("Only of").last.fill("customers")
    admin.press("Review …")
    admin.heading("Review")
    admin.press("Save")
    admin.heading("Plans")
    made = stored(hub, name)
    assert made["rates"] == [{"perSecond": 0.5, "burst": 10}]
    quota = {"what": "calls", "per": "day", "limit": "1500", "dataset": "customers"}
    assert made["quotas"] == [quota]
    # It is deleted again.
    page.get_by_role("link", name=name).click()
    admin.press("Delete …")
    admin.press("Delete")
    admin.heading("Plans")
    expect(page.get_by_role("link", name=name)).to_have_count(0)
    assert hub.get(f"/v1/plans/{name}").status == 404


def test_a_plan_that_changed_meanwhile_is_not_overwritten(
    admin: Console, hub: RunningHub, plan: str
) -> None:
    admin.page.evaluate(f"location.hash = '#/plans/plan/{plan}'")
    admin.heading(f"Plan {plan}")
    admin.page.get_by_label("Description").fill("mine")
    path = f"/v1/plans/{plan}?update_mask=description"
    theirs = hub.request("PATCH", path, consumer="admin", json_body={"description": "theirs"})
    assert theirs.status == 200
    admin.press("Review …")
    expect(admin.page.get_by_role("alert")).to_contain_text("POLICY_CHANGED")
    assert stored(hub, plan)["description"] == "theirs"


def test_a_consumer_gets_limits_of_its_own(
    admin: Console, hub: RunningHub, plan: str, guest: Guest
) -> None:
    page = admin.page
    page.get_by_role("link", name="Consumers").click()
    page.get_by_role("link", name=guest.name).click()
    admin.heading(f"Plan of {guest.name}")
    expect(page.get_by_role("meter", name="calls per day")).to_be_visible()
    page.get_by_label("Calls at one time").fill("4")
    admin.press("Add a quota")
    page.get_by_label("Lift this limit of the plan").check()
    admin.press("Review …")
    expect(row(admin, "calls a day")).to_contain_text("no limit")
    expect(row(admin, "calls at one time")).to_contain_text("4")
    admin.press("Save")
    expect(row(admin, guest.name)).to_contain_text("calls a day: no limit")
    found = administer(hub, "GET", f"consumers/{guest.name}")
    assert found["plan"] == plan
    assert found["limits"]["concurrent"] == {"calls": 4}
    assert found["limits"]["quotas"] == [{"what": "calls", "per": "day", "unlimited": True}]


def test_the_way_back_is_shown_before_it_is_taken(
    admin: Console, hub: RunningHub, plan: str
) -> None:
    page = admin.page
    earlier = stored(hub, plan)["policyRevision"]
    path = f"/v1/plans/{plan}?update_mask=description"
    changed = hub.request("PATCH", path, consumer="admin", json_body={"description": "worse"})
    later = changed.json()["policyRevision"]
    page.get_by_role("link", name="History").click()
    admin.press(f"What revision {later} changed")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"plan {plan}: description")
    expect(dialog).to_contain_text("worse")
    admin.press("Close")
    admin.press(f"Roll back to revision {earlier}")
    expect(dialog).to_contain_text(f"plan {plan}: description")
    assert stored(hub, plan)["description"] == "worse", "a preview changes nothing"
    page.get_by_label("Comment for the history").fill("back again")
    dialog.get_by_role("button", name="Roll back", exact=True).click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("row").nth(1)).to_contain_text("back again")
    assert "description" not in stored(hub, plan)


def test_the_way_back_is_the_one_that_was_shown(admin: Console, hub: RunningHub, plan: str) -> None:
    page, dialog = admin.page, admin.page.get_by_role("dialog")
    earlier = stored(hub, plan)["policyRevision"]

    def describe(text: str) -> None:
        path = f"/v1/plans/{plan}?update_mask=description"
        reply = hub.request("PATCH", path, consumer="admin", json_body={"description": text})
        assert reply.status == 200, reply.text

    describe("worse")
    page.get_by_role("link", name="History").click()
    admin.press(f"Roll back to revision {earlier}")
    expect(dialog).to_contain_text("worse")
    describe("better")
    back = dialog.get_by_role("button", name="Roll back", exact=True)
    back.click()
    expect(dialog.get_by_role("alert")).to_contain_text("POLICY_CHANGED")
    assert stored(hub, plan)["description"] == "better"
    # What it would change now is shown instead.
    expect(dialog).to_contain_text("better")
    back.click()
    expect(dialog).to_have_count(0)
    assert "description" not in stored(hub, plan)


def test_a_plan_that_changed_meanwhile_is_not_deleted(
    admin: Console, hub: RunningHub, plan: str
) -> None:
    admin.page.evaluate(f"location.hash = '#/plans/plan/{plan}'")
    admin.press("Delete …")
    path = f"/v1/plans/{plan}?update_mask=description"
    theirs = hub.request("PATCH", path, consumer="admin", json_body={"description": "theirs"})
    assert theirs.status == 200
    admin.press("Delete")
    expect(admin.page.get_by_role("dialog").get_by_role("alert")).to_contain_text("POLICY_CHANGED")
    assert stored(hub, plan)["description"] == "theirs"


def test_who_may_only_look_saves_nothing(console: Console, hub: RunningHub, plan: str) -> None:
    console.open("#/plans")
    with inviting(hub, ["plans.read"]) as reader:
        console.sign_in(reader.name, reader.secret)
        console.heading("Plans")
        expect(console.page.get_by_role("link", name="New plan")).to_have_count(0)
        console.page.get_by_role("link", name=plan).click()
        expect(console.page.get_by_text("You may look, and save nothing")).to_be_visible()
        expect(console.page.get_by_role("button", name="Review …")).to_have_count(0)


def test_a_consumer_without_the_permission_has_no_such_page(console: Console) -> None:
    console.open("#/plans")
    console.sign_in("crm")
    console.heading("You may not see this page")
    expect(console.page.get_by_role("alert")).to_contain_text("plans.read")
    expect(console.page.get_by_role("link", name="Plans", exact=True)).to_have_count(0)
