"""Webhooks in the console: everything a user does with them, with a real receiver."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from harness import RunningHub, eventually, new_customer
from penstock.client.webhooks import verify
from posted import Posts, receiving

from .visiting import Console

#: Long enough that no attempt happens by itself while a test runs.
NEVER = "259200"
MARKUP = "<img src=x onerror=alert(1)>"


@dataclass
class Made:
    """A webhook of crm that receives customers whose keys begin with ``key``."""

    id: str
    secret: str
    key: str
    hub: RunningHub

    def place(self, *steps: str) -> str:
        return "#/" + "/".join(["webhooks", self.id, *steps])

    def write(self, **values: Any) -> None:
        """Cause an event."""
        record = new_customer(customerId=f"{self.key}{uuid.uuid4().hex[:6]}", **values)
        reply = self.hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        assert reply.status == 200, reply.text

    def deliveries(self, state: str) -> list[Any]:
        """The deliveries in a state, once there are some."""

        def some() -> list[Any]:
            path = f"/v1/webhooks/{self.id}/deliveries"
            found = self.hub.get(path, "crm", state=state).json().get("deliveries", [])
            return list(found)

        return list(eventually(some))


@pytest.fixture
def webhook(hub: RunningHub, posts: Posts, path: str) -> Iterator[Made]:
    key = f"b-{uuid.uuid4().hex[:8]}"
    document = {
        "url": posts.url + path,
        "title": f"Shop {key}",
        "selections": [{"dataset": "customers", "filter": f'customer_id = "{key}*"'}],
        "options": {"retrySeconds": [int(NEVER)]},
        "headers": {"x-team": "blue"},
    }
    reply = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=document)
    assert reply.status == 200, reply.text
    made = Made(reply.json()["webhook"]["webhookId"], reply.json()["secret"], key, hub)
    yield made
    hub.request("DELETE", f"/v1/webhooks/{made.id}", consumer="crm")


@pytest.fixture
def crm(console: Console) -> Console:
    console.sign_in("crm")
    console.heading("Webhooks")
    return console


def at(console: Console, place: str) -> None:
    """Go there without reloading the page, which would sign the user out."""
    console.page.evaluate("place => { location.hash = place }", place)


def attempt(console: Console, number: int) -> Locator:
    return console.page.get_by_role("listitem", name=f"Attempt {number}", exact=True)


def test_one_is_made_and_its_secret_shown_once(crm: Console, posts: Posts, path: str) -> None:
    page, title = crm.page, f"New {uuid.uuid4().hex[:8]}"
    page.get_by_role("link", name="New webhook").click()
    page.get_by_label("URL", exact=True).fill(posts.url + path)
    page.get_by_label("Title").fill(title)
    page.get_by_label("customers", exact=True).check()
    page.get_by_label("created", exact=True).check()
    page.get_by_label("Filter of customers").fill("status = ACTIVE")
    page.get_by_label("Body", exact=True).select_option("JSON")
    crm.press("Add a header")
    page.get_by_label("Name", exact=True).fill("x-team")
    page.get_by_label("Value", exact=True).fill("blue")
    crm.press("Create")
    secret = page.get_by_label("Secret", exact=True).input_value()
    assert secret.startswith("whsec_")
    crm.press("I saved it")
    crm.heading(title)
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert secret not in page.content()

    crm.press("Send test")
    crm.heading("webhook.test")
    (post,) = posts.wait(path, 1)
    assert verify(post.headers, post.body, secret)["type"] == "webhook.test"
    assert post.headers["x-team"] == "blue"
    crm.badge("delivered")
    taken = attempt(crm, 1)
    expect(taken).to_contain_text(f"POST {posts.url}{path}")
    expect(taken).to_contain_text(post.headers["webhook-signature"])
    expect(taken).to_contain_text("HTTP/1.1 200 OK")
    expect(page.locator("body")).not_to_contain_text(secret)

    page.get_by_role("link", name="Webhooks").first.click()
    row = page.get_by_role("row").filter(has_text=title)
    expect(row).to_contain_text("active")
    expect(row).to_contain_text("customers created")
    expect(row).to_contain_text("100 %")
    row.get_by_role("link", name=title).click()
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_text("status = ACTIVE")).to_be_visible()
    crm.press("Delete …")
    crm.press("Delete")
    crm.heading("Webhooks")
    expect(page.get_by_role("link", name=title)).to_have_count(0)


def test_a_shape_is_chosen_and_stays_when_the_webhook_is_changed(
    crm: Console, hub: RunningHub, webhook: Made
) -> None:
    page, name = crm.page, f"shape-{uuid.uuid4().hex[:8]}"
    columns = [{"name": "Key", "field": "customer_id"}]
    shape = {"shapeId": name, "dataset": "customers", "columns": columns}
    assert hub.request("POST", "/v1/shapes", consumer="crm", json_body=shape).status == 200
    at(crm, webhook.place("edit"))
    page.get_by_label("Shape of customers").fill("nothing")
    crm.press("Save")
    expect(page.get_by_text("'nothing'")).to_be_visible()
    page.get_by_label("Shape of customers").fill(f" {name}@1 ")
    crm.press("Save")
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_text(f"{name}@1")).to_be_visible()
    at(crm, webhook.place("edit"))
    expect(page.get_by_label("Shape of customers")).to_have_value(f"{name}@1")
    page.get_by_label("Title").fill("changed")
    crm.press("Save")
    crm.heading("changed")
    found = hub.get(f"/v1/webhooks/{webhook.id}", "crm").json()
    assert [s["shape"] for s in found["selections"]] == [f"{name}@1"]
    hub.request("DELETE", f"/v1/webhooks/{webhook.id}", consumer="crm")
    assert hub.request("DELETE", f"/v1/shapes/{name}", consumer="crm").status == 200


def test_a_failure_is_seen_and_sent_again(
    crm: Console, posts: Posts, path: str, webhook: Made
) -> None:
    posts.statuses[path] = 500
    webhook.write(name="Ada")
    (post,) = posts.wait(path, 1)
    at(crm, webhook.place())
    page = crm.page
    page.get_by_label("State", exact=True).select_option("pending")
    page.get_by_label("Reason").fill("STATUS")
    crm.press("Refresh")
    row = page.get_by_role("row").filter(has_text=post.headers["webhook-id"])
    expect(row).to_contain_text("customer.created")
    expect(row).to_contain_text("STATUS")
    page.get_by_label("State", exact=True).select_option("delivered")
    expect(page.get_by_text("No delivery matches.")).to_be_visible()
    page.get_by_label("State", exact=True).select_option("any")
    row.get_by_role("link").click()
    crm.badge("pending")
    first = attempt(crm, 1)
    expect(first).to_contain_text("500 STATUS")
    expect(first.locator("dd time")).to_have_count(1)  # the next try
    expect(page.locator("pre").last).to_contain_text('"name": "Ada"')
    posts.statuses[path] = 200
    crm.press("Resend")
    expect(attempt(crm, 2)).to_contain_text("200")
    crm.badge("delivered")
    assert len(posts.wait(path, 2)) == 2


def test_pausing_keeps_what_comes(crm: Console, posts: Posts, path: str, webhook: Made) -> None:
    at(crm, webhook.place())
    crm.press("Pause")
    crm.badge("paused")
    webhook.write()
    webhook.deliveries("PENDING")
    crm.press("Refresh")
    row = crm.page.get_by_role("row").filter(has_text="customer.created")
    expect(row).to_contain_text("pending")
    assert not [p for p in posts.taken if p.path == path]
    crm.press("Resume")
    crm.badge("active")
    posts.wait(path, 1)
    expect(row).to_contain_text("delivered")


def test_both_secrets_sign_after_a_rotation(
    crm: Console, posts: Posts, path: str, webhook: Made
) -> None:
    at(crm, webhook.place("settings"))
    crm.press("Rotate secret …")
    crm.page.get_by_label("The old secret signs for").select_option("7 days")
    crm.press("Rotate")
    secret = crm.page.get_by_label("Secret", exact=True).input_value()
    assert secret.startswith("whsec_") and secret != webhook.secret
    crm.press("I saved it")
    expect(crm.page.get_by_role("row").filter(has_text="HMAC-SHA256")).to_have_count(2)
    crm.press("Send test")
    (post,) = posts.wait(path, 1)
    for known in (secret, webhook.secret):
        assert verify(post.headers, post.body, known)["type"] == "webhook.test"


def test_what_was_given_up_is_recovered(
    crm: Console, posts: Posts, path: str, webhook: Made
) -> None:
    posts.statuses[path] = 410
    webhook.write()
    (dead,) = webhook.deliveries("DEAD")
    crm.page.get_by_role("link", name="Dead letters").click()
    row = crm.page.get_by_role("row").filter(has_text=dead["deliveryId"])
    expect(row).to_contain_text("GONE")
    row.get_by_role("link", name=webhook.id).click()
    crm.badge("disabled")
    expect(crm.page.get_by_text("the receiver answered 410 Gone")).to_be_visible()
    posts.statuses[path] = 200
    crm.press("Resume")
    crm.badge("active")
    crm.press("Recover …")
    crm.press("Recover")
    expect(crm.page.get_by_role("dialog")).to_contain_text("1 delivery is sent again.")
    crm.press("Close")
    again = posts.wait(path, 2)
    assert {p.headers["webhook-id"] for p in again} == {dead["deliveryId"]}
    expect(crm.page.get_by_role("row").filter(has_text="delivered")).to_have_count(1)
    crm.page.get_by_role("link", name="Notices").click()
    notice = crm.page.get_by_role("row").filter(has_text=webhook.id)
    expect(notice).to_contain_text("webhook.disabled")


def test_a_range_is_replayed(crm: Console, posts: Posts, path: str, webhook: Made) -> None:
    webhook.write(name="first")
    posts.wait(path, 1)
    (delivery,) = webhook.deliveries("DELIVERED")
    webhook.write(name="second")
    posts.wait(path, 2)
    at(crm, webhook.place("deliveries", delivery["deliveryId"]))
    crm.press("Replay later changes …")
    crm.press("Replay")
    expect(crm.page.get_by_role("dialog")).to_have_count(0)
    (_, second, again) = posts.wait(path, 3)
    assert again.headers["webhook-id"] != second.headers["webhook-id"]
    at(crm, webhook.place())
    row = crm.page.get_by_role("row").filter(has_text="replay")
    expect(row).to_contain_text("delivered")
    # The error of a bad cursor appears at its field.
    crm.press("Replay …")
    crm.page.get_by_label("After cursor").fill("nonsense")
    crm.press("Replay")
    expect(crm.page.get_by_role("dialog").get_by_role("alert")).to_contain_text("CURSOR_INVALID")
    crm.page.keyboard.press("Escape")
    expect(crm.page.get_by_role("dialog")).to_have_count(0)


def test_an_edit_changes_what_it_shows(
    crm: Console, posts: Posts, path: str, webhook: Made
) -> None:
    at(crm, webhook.place("edit"))
    page = crm.page
    expect(page.get_by_label("Filter of customers")).to_have_value(
        f'customer_id = "{webhook.key}*"'
    )
    page.get_by_label("Title").fill("Edited")
    page.get_by_label("Envelope").select_option("CloudEvents 1.0, one document")
    page.get_by_label("Rate").fill("7")
    crm.press("Save")
    crm.heading("Edited")
    expect(page.get_by_text("7 a second")).to_be_visible()
    crm.press("Send test")
    (post,) = posts.wait(path, 1)
    assert post.headers["content-type"].startswith("application/cloudevents+json")
    assert post.headers["x-team"] == "blue"  # the console did not show it, and did not lose it


def test_an_edit_to_another_origin_shows_its_new_secret(
    crm: Console, path: str, webhook: Made
) -> None:
    with receiving() as other:
        at(crm, webhook.place("edit"))
        page = crm.page
        page.get_by_label("URL", exact=True).fill(other.url + path)
        crm.press("Save")
        secret = page.get_by_label("Secret", exact=True).input_value()
        assert secret not in ("", webhook.secret)
        crm.press("I saved it")
        expect(page.get_by_role("dialog")).to_have_count(0)
        crm.press("Send test")
        (post,) = other.wait(path, 1)
        verify(post.headers, post.body, secret)
        assert "x-team" not in post.headers


def test_what_is_wrong_is_told_at_its_field(crm: Console) -> None:
    at(crm, "#/webhooks/new")
    page = crm.page
    page.get_by_label("URL", exact=True).fill("https://10.0.0.1/")
    crm.press("Create")
    expect(page.get_by_role("group", name="Which events")).to_contain_text("must be 1 to 50")
    page.get_by_label("customers", exact=True).check()
    page.get_by_label("Batch size").fill("some")
    crm.press("Create")
    expect(page.get_by_label("Batch size")).to_have_accessible_description(
        re.compile("must be 1 to 100")
    )
    expect(page.get_by_label("Batch size")).to_be_focused()
    page.get_by_label("Batch size").fill("1")
    crm.press("Create")
    expect(page.get_by_label("URL", exact=True)).to_be_focused()
    expect(page.get_by_label("URL", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("URL", exact=True).fill("https://example.com/")
    page.get_by_label("Filter of customers").fill("name =")
    crm.press("Create")
    expect(page.get_by_label("Filter of customers")).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("FILTER_INVALID")
    expect(page.get_by_role("alert").locator("code")).to_have_text(re.compile("[0-9a-f-]{36}"))


def test_text_of_others_stays_text(
    crm: Console, posts: Posts, path: str, webhook: Made, hub: RunningHub
) -> None:
    target = f"{posts.url}{path}?{MARKUP.replace(' ', '%20')}"
    url = f"/v1/webhooks/{webhook.id}"
    changed = {"title": MARKUP, "url": target}
    reply = hub.request("PATCH", url, consumer="crm", json_body=changed)
    assert reply.status == 200, reply.text
    posts.headers[f"{path}?{MARKUP.replace(' ', '%20')}"] = {"x-note": MARKUP}
    webhook.write(name=MARKUP)
    (delivery,) = webhook.deliveries("DELIVERED")
    at(crm, webhook.place())
    crm.heading(MARKUP)
    at(crm, webhook.place("deliveries", delivery["deliveryId"]))
    expect(attempt(crm, 1)).to_contain_text(f"x-note: {MARKUP}")
    expect(crm.page.locator("pre").last).to_contain_text(f'"name": "{MARKUP}"')
    expect(crm.page.locator("img")).to_have_count(0)
