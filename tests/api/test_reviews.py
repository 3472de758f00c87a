"""Access reviews and the scorecard through the door, compared with what was caused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from feeds import Made, consumer_with, grant, watch
from harness import Reply, RunningHub, eventually, folder, new_customer
from posted import receiving

pytestmark = pytest.mark.lane("api/reviews", priority=2)

METHOD = "/penstock.api.v1.Orders/ListOrders"
DENIED = {"dataset": "orders", "method": METHOD, "status": "PERMISSION_DENIED"}
#: What any caller is told who may not review, whatever it asks for.
ANYBODY = ("admin", "crm", "nobody-ever")


@pytest.fixture(scope="module")
def reviewed() -> Iterator[RunningHub]:
    """A hub that nothing else calls."""
    with folder() as data:
        hub = RunningHub(data / "hub", customers=60)
        hub.start()
        try:
            yield hub
        finally:
            hub.stop()


def call(hub: RunningHub, made: Made, path: str, **headers: str) -> Reply:
    """GET by the API key of a test's consumer."""
    key = made.key.removeprefix("key:")
    return hub.request("GET", path, headers={"x-api-key": key, **headers})


def review(hub: RunningHub, **query: object) -> dict[str, dict[str, Any]]:
    """The consumers of a review that counts every call answered before this one."""
    now = datetime.now(UTC)

    def read() -> dict[str, dict[str, Any]] | None:
        reply = hub.request("GET", "/v1/access:review", consumer="admin", query=query)
        assert reply.status == 200, reply.text
        found = reply.json()
        if datetime.fromisoformat(found["freshTime"]) < now:
            return None
        return {each["consumer"]: each for each in found["consumers"]}

    return dict(eventually(read))


def scorecard(hub: RunningHub) -> dict[str, dict[str, Any]]:
    """The metrics, as fresh as a review."""
    review(hub)
    reply = hub.get("/v1/scorecard", days=2)
    assert reply.status == 200, reply.text
    return {metric["metric"]: metric for metric in reply.json()["metrics"]}


def dataset(consumer: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in consumer["datasets"] if each["dataset"] == name)


def test_what_a_consumer_may_see_and_received(reviewed: RunningHub) -> None:
    masked = grant("customers", classes={"PUBLIC": "clear", "PII": "hash", "INTERNAL": "null"})
    with consumer_with(reviewed, masked, grant("products")) as made:
        before = review(reviewed, consumer=made.name)[made.name]
        assert before["state"] == "ACTIVE" and "lastUseTime" not in before
        assert dataset(before, "customers")["maySee"] == ["pii:hash", "public"]
        assert dataset(before, "customers")["received"] == []
        for path, status in (
            ("/v1/customers?page_size=3", 200),
            ("/v1/orders", 403),
            ("/v1/orders", 403),
            ("/v1/customers/nobody", 404),
        ):
            assert call(reviewed, made, path).status == status
        # A stream about all datasets that it may read.
        with watch(reviewed, made.key, snapshot=True) as stream:
            stream.until(lambda: {e.dataset for e in stream.events} == {"customers", "products"})
        found = review(reviewed, consumer=made.name)[made.name]
        customers, products = dataset(found, "customers"), dataset(found, "products")
        assert customers["received"] == ["pii:hash", "public"] and customers["noLonger"] == []
        assert customers["surfaces"] == ["GRPC", "REST"] and products["surfaces"] == ["GRPC"]
        assert set(products["received"]) <= set(products["maySee"]) != set()
        assert found["surfaces"] == ["GRPC", "REST"] and found["lastUseTime"]
        assert found["denied"] == [{**DENIED, "calls": "2"}] and found["deniedCalls"] == "2"
        (credential,) = found["credentials"]
        assert credential["credential"] == made.credential and credential["ageDays"] == 0
        assert credential["state"] == "ACTIVE" and credential["lastUseTime"]
        assert found["roles"] == [made.name] and found["unusedGrants"] == []
        # Narrowed: what it received before is beyond what it may see now.
        made.regrant(grant("customers", classes={"PUBLIC": "clear"}))
        reviewed.settle()
        customers = dataset(review(reviewed, consumer=made.name)[made.name], "customers")
        assert customers["maySee"] == ["public"] and customers["noLonger"] == ["pii:hash"]
    gone = review(reviewed)[made.name]
    assert gone["state"] == "DELETED" and gone["roles"] == [] and gone["deniedCalls"] == "2"
    assert dataset(gone, "customers")["noLonger"] == ["pii:hash", "public"]
    assert [c["kind"] for c in gone["credentials"]] == ["GONE"]


def test_grants_that_nobody_used_for_a_time(reviewed: RunningHub) -> None:
    with consumer_with(reviewed, grant("customers"), grant("products")) as made:
        assert call(reviewed, made, "/v1/customers?page_size=1").status == 200
        assert review(reviewed, consumer=made.name)[made.name]["unusedGrants"] == []
        reviewed.sql(
            "UPDATE hub.policy_revision SET create_time = create_time - interval '91 days'"
        )
        try:
            found = review(reviewed, consumer=made.name)[made.name]["unusedGrants"]
            assert found == [{"role": made.name, "dataset": "products", "action": "read"}]
            longer = review(reviewed, consumer=made.name, unused_days=120)
            assert longer[made.name]["unusedGrants"] == []
        finally:
            reviewed.sql(
                "UPDATE hub.policy_revision SET create_time = create_time + interval '91 days'"
            )


def test_who_may_review(reviewed: RunningHub) -> None:
    """Both permissions; nobody else learns which consumers there are."""
    with consumer_with(reviewed, grant("customers")) as made:
        answers = {call(reviewed, made, f"/v1/access:review?consumer={n}").text for n in ANYBODY}
        assert len({json.loads(text)["message"] for text in answers}) == 1

        def may(*permissions: str) -> tuple[int, int]:
            made.administer(
                "PATCH", f"/roles/{made.name}", {"permissions": list(permissions)},
                update_mask="permissions",
            )  # fmt: skip
            reviewed.settle()
            paths = ("/v1/access:review", "/v1/scorecard", "/v1/scorecard:export")
            review, *cards = (call(reviewed, made, path).status for path in paths)
            assert cards[0] == cards[1]
            return review, cards[0]

        assert may() == (403, 403)
        assert may("access.read") == (403, 403)
        assert may("audit.read") == (403, 200)
        assert may("usage.read") == (403, 200)
        assert may("access.read", "audit.read") == (200, 200)
    assert reviewed.get("/v1/access:review", consumer="crm").reason == "PERMISSION_DENIED"
    reply = reviewed.request("GET", "/v1/access:review?consumer=nobody-ever", consumer="admin")
    assert (reply.status, reply.reason) == (404, "RECORD_NOT_FOUND")
    for query in ("days=-1", "unused_days=3661", "days=x"):
        reply = reviewed.request("GET", f"/v1/access:review?{query}", consumer="admin")
        assert reply.status == 400, query


def get_file(hub: RunningHub, path: str, accept: str = "", **query: object) -> Reply:
    reply = hub.request(
        "GET", path, consumer="admin", query=query, headers={"accept": accept} if accept else {}
    )
    assert reply.status == 200, reply.text
    return reply


EVIL = "=1+1<script>alert('x')</script>"


def test_a_review_is_a_file(reviewed: RunningHub) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    with consumer_with(reviewed, grant("customers")) as made:
        made.administer("PATCH", f"/consumers/{made.name}", {"title": EVIL}, update_mask="title")
        names = set(review(reviewed))
        path = "/v1/access:review"
        rows = list(csv.DictReader(io.StringIO(get_file(reviewed, path, format="csv").text)))
        assert {row["consumer"] for row in rows} == names
        titles = {row["title"] for row in rows if row["item"] == "consumer"}
        assert f"'{EVIL}" in titles
        assert get_file(reviewed, path, "text/csv").headers["content-type"].startswith("text/csv")
        root = ElementTree.fromstring(get_file(reviewed, path, "application/xml").body)
        assert {e.text for e in root.findall("consumers/item/consumer")} == names
        assert EVIL in {e.text for e in root.findall("consumers/item/title")}
        for page in (
            get_file(reviewed, path, format="HTML"),
            get_file(reviewed, path, "text/html"),
            get_file(reviewed, path, browser),
        ):
            assert page.headers["content-type"] == "text/html; charset=utf-8"
            assert page.headers["content-disposition"].startswith("inline")
            assert page.text.rstrip().endswith("</html>") and "<script" not in page.text
            assert "&lt;script&gt;" in page.text
            assert page.text.count("<h2>") == len(names)
        assert get_file(reviewed, path).headers["content-disposition"].startswith("attachment")
        for form in ("PARQUET", "nothing"):
            reply = reviewed.get(path, format=form)
            assert reply.reason == "FORMAT_UNKNOWN"
        reply = reviewed.request("GET", path, consumer="admin", headers={"accept": "image/png"})
        assert reply.status == 406


def test_commands_of_reviews(reviewed: RunningHub, tmp_path: Path) -> None:
    with consumer_with(reviewed, grant("customers")) as made:
        for path in ("/v1/customers?page_size=1", "/v1/orders"):
            call(reviewed, made, path)
        review(reviewed)
        one = ("access", "review", "--consumer", made.name)
        text = reviewed.command(*one, "--format", "csv").stdout.decode()
        rows = {row["item"]: row for row in csv.DictReader(io.StringIO(text))}
        assert set(rows) == {"consumer", "dataset", "credential", "denied"}
        assert rows["dataset"]["dataset"] == "customers" and rows["denied"]["calls"] == "1"
        table = reviewed.command(*one).stdout.decode()
        assert made.name in table and "customers" in table
        page = tmp_path / "review.html"
        reviewed.command(*one, "--file-format", "html", "--output", str(page))
        assert made.name in page.read_text() and page.read_text().count("<h2>") == 1
    document = json.loads(reviewed.command("scorecard", "--format", "json").stdout)
    values = {metric["metric"]: metric for metric in document}
    assert len(values) == 13 and "value" not in values["page_feedback"]
    table = reviewed.command("scorecard", "--days", "3").stdout.decode()
    assert "access_success_rate" in table and "at least 99.00%" in table
    whole = reviewed.command("scorecard", "--file-format", "xml", "--output", "-").stdout
    assert len(ElementTree.fromstring(whole).findall("metrics/item")) == 13
    done = reviewed.command("access", "review", "--consumer", "nobody-ever", check=False)
    assert done.returncode == 1 and b"nobody-ever" in done.stderr


def test_the_scorecard_counts_what_was_caused(reviewed: RunningHub) -> None:
    hub = reviewed
    before = scorecard(hub)
    assert before["data_accuracy"]["absentReason"] == "there were no comparisons in the period"
    with consumer_with(hub, grant("customers")) as made:
        for path, times in (("/v1/customers?page_size=2", 6), ("/v1/orders", 4)):
            for _ in range(times):
                call(hub, made, path)
        # Two exports; two comparisons, of which one finds a difference.
        for _ in range(2):
            assert hub.get("/v1/customers:export", format="CSV").status == 200
        (whole,) = hub.get("/v1/customers:digest", parts=1).json()["ranges"]
        wrong = {**whole, "sha256": "0" * 64}
        for each in (whole, wrong):
            sent = {"ranges": [each]}
            reply = hub.request("POST", "/v1/customers:repair", consumer="admin", json_body=sent)
            assert reply.status == 200, reply.text
        deliver(hub)
        after = scorecard(hub)
        denied = hub.sql(
            "SELECT count(*) FROM hub.audit_entry"
            " WHERE phase = 'CALL' AND outcome IN ('PERMISSION_DENIED', 'UNAUTHENTICATED')"
        )[0][0]
    assert after["data_accuracy"]["value"] == 0.5 and after["data_accuracy"]["samples"] == "2"
    assert after["consistency_rate"]["value"] == 1.0
    assert after["consistency_rate"]["samples"] == str(2 * int(whole["rowCount"]))
    assert after["export_completion"]["value"] == 1.0
    assert int(after["export_completion"]["samples"]) >= 2
    access = after["access_success_rate"]
    assert round((1 - access["value"]) * int(access["samples"])) == denied >= 4
    assert access["met"] is False and "trend" not in access and access["source"] == "usage"
    assert int(access["samples"]) >= int(before["access_success_rate"]["samples"]) + 10
    assert after["usage_compliance"]["value"] == 1.0 and after["usage_compliance"]["met"] is True
    assert (after["sync_success_rate"]["value"], after["sync_success_rate"]["samples"]) == (1, "1")
    assert 0 < after["sync_latency"]["value"] < 3600
    assert 0 < after["time_to_first_call"]["value"] < 3600
    assert 0 < after["new_consumer_error_share"]["value"] < 1
    for name in ("documentation_quality", "page_feedback"):
        assert after[name]["absentReason"].startswith("no source") and "value" not in after[name]
    for metric in after.values():
        assert ("value" in metric) is not ("absentReason" in metric), metric
        assert ("freshTime" in metric) is ("value" in metric) and metric["how"]


def deliver(hub: RunningHub) -> None:
    """Let a webhook receive one change."""
    with receiving() as posts:
        hook = {"url": f"{posts.url}/hook", "selections": [{"dataset": "customers"}]}
        reply = hub.request("POST", "/v1/webhooks", consumer="admin", json_body=hook)
        assert reply.status == 200, reply.text
        body = new_customer(customerId="scored", name="Ada")
        assert hub.request("POST", "/v1/customers", consumer="admin", json_body=body).status == 200
        posts.wait("/hook", 1)
        ended = "SELECT count(*) FROM hub.webhook_delivery WHERE state = 'DELIVERED'"
        eventually(lambda: hub.sql(ended) == [(1,)])


def test_availability_is_what_the_sidecar_answered(reviewed: RunningHub) -> None:
    """Keepers read it every ten seconds."""

    def read() -> dict[str, dict[str, Any]] | None:
        found = scorecard(reviewed)
        return found if found["api_availability"]["source"] == "sidecar" else None

    found = eventually(read)
    assert found["api_availability"]["value"] == 1.0
    assert int(found["api_availability"]["samples"]) > 0
    assert 0 < found["response_time"]["value"] < 60


def test_a_scorecard_is_a_file(reviewed: RunningHub) -> None:
    path = "/v1/scorecard:export"
    names = set(scorecard(reviewed))
    rows = list(csv.DictReader(io.StringIO(get_file(reviewed, path, "text/csv").text)))
    assert {row["metric"] for row in rows} == names
    assert all(bool(row["value"]) is not bool(row["absent_reason"]) for row in rows)
    document = get_file(reviewed, path, format="json").json()
    assert {metric["metric"] for metric in document["metrics"]} == names
    root = ElementTree.fromstring(get_file(reviewed, path, format="xml").body)
    assert {e.text for e in root.findall("metrics/item/metric")} == names
    page = get_file(reviewed, path, "text/html")
    assert page.headers["content-disposition"].startswith("inline")
    assert page.text.count("<tr>") == len(names) + 1 and "no source" in page.text
    assert reviewed.get("/v1/scorecard", days=367).status == 400
