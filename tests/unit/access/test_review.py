"""Reviews of access: what is unused, and how a review is written."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from typing import Any
from xml.etree import ElementTree

import pytest

from fake_organs import NOBODY, FakeHub, administrator, fake_hub
from penstockd.access.review import (
    ReviewQuestion,
    ReviewTerms,
    covers_class,
    is_denial,
    list_classes,
    list_unused,
)
from penstockd.access.review_files import CSV_COLUMNS, REVIEWS
from penstockd.catalog import Catalog, FieldClass
from penstockd.metering.access_uses import AccessUse
from penstockd.policy.history import PolicyDocument
from penstockd.policy.model import Action, Consumer, Grant, Mask, Principal, Role
from penstockd.store.tables import Tables

NOW = dt.datetime(2026, 3, 31, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ALL = ReviewQuestion()
EVIL = '<script>alert("x")</script>&amp;'


def grant(role: str, dataset: str, *actions: Action, **masks: Mask) -> Grant:
    classes = {FieldClass[name]: mask for name, mask in masks.items()}
    return Grant(role, dataset, frozenset(actions), classes, {})


def use(dataset: str, method: str, days: int, **values: Any) -> AccessUse:
    time = NOW - days * DAY
    known = {"credential_id": "k1", "surface": "REST", "classes": "", "received": None, **values}
    return AccessUse(
        "crm",
        method=f"/penstock.api.v1.X/{method}",
        dataset=dataset,
        first=time,
        last=time,
        **known,
    )


@pytest.fixture
def hub(catalog: Catalog) -> FakeHub:
    reads = Role("reads", "", (
        grant("reads", "customers", Action.READ, PUBLIC=Mask.CLEAR, PII=Mask.HASH),
        grant("reads", "orders", Action.READ, Action.CREATE, Action.UPDATE, PUBLIC=Mask.CLEAR),
    ))  # fmt: skip
    crm = Consumer("crm", True, frozenset({"reads"}))
    return fake_hub(catalog, Tables(catalog), administrator(), reads, crm=crm)


def terms_of(hub: FakeHub, before: PolicyDocument) -> ReviewTerms:
    return ReviewTerms(NOW, NOW - 30 * DAY, NOW - 90 * DAY, NOW, hub.policy.current, before)


def test_grants_that_nobody_uses(hub: FakeHub) -> None:
    then = Role("reads", "", (
        grant("reads", "customers", Action.READ),
        grant("reads", "orders", Action.READ, Action.CREATE, Action.UPDATE, Action.DELETE),
    ))  # fmt: skip
    before = PolicyDocument({"reads": then}, {"crm": Consumer("crm", True, frozenset({"reads"}))})
    uses = [use("customers", "ListCustomers", 3), use("orders", "ImportOrders", 100),
            use("orders", "UpdateOrder", 89)]  # fmt: skip

    def unused(document: PolicyDocument, *uses: AccessUse) -> list[tuple[str, str, Any]]:
        found = list_unused(terms_of(hub, document), "crm", ["reads"], uses)
        assert all(each["role"] == "reads" for each in found)
        return [(e["dataset"], e["action"], e["last_use_time"]) for e in found]

    # DELETE is no longer granted. An import creates and updates.
    assert unused(before, *uses) == [
        ("orders", "read", None),
        ("orders", "create", NOW - 100 * DAY),
    ]
    assert unused(before, *uses, use("orders", "BatchUpsertOrders", 1)) == [
        ("orders", "read", None)
    ]
    assert len(unused(before)) == 4
    # What was not granted 90 days ago cannot be unused for 90 days.
    assert unused(PolicyDocument({}, {})) == []
    assert unused(PolicyDocument({"reads": then}, {})) == []
    assert unused(PolicyDocument({}, before.consumers)) == []


def test_classes_that_a_consumer_may_see(hub: FakeHub) -> None:
    policy = hub.policy.current
    principal = Principal("crm", "", frozenset({"reads"}))
    assert list_classes(policy.visible(principal, "customers")) == ["pii:hash", "public"]
    assert list_classes(policy.visible(Principal(NOBODY, "", frozenset()), "customers")) == []
    assert list_classes(None) == []


@pytest.mark.parametrize(
    ("may_see", "received", "covered"),
    [
        (["pii"], "pii", True),
        (["pii"], "pii:partial", True),
        (["pii:hash", "public"], "pii:hash", True),
        (["pii:hash", "public"], "pii", False),
        (["public"], "pii:partial", False),
        ([], "public", False),
    ],
)
def test_what_may_be_seen_no_longer(may_see: list[str], received: str, covered: bool) -> None:
    """A class counts as seen as clearly as its clearest field."""
    assert covers_class(may_see, received) is covered


@pytest.mark.parametrize(
    ("status", "denied"),
    [("PERMISSION_DENIED", True), ("UNAUTHENTICATED", True), ("ACCESS_CHANGED", True),
     ("OK", False), ("RECORD_NOT_FOUND", False), ("QUOTA_EXHAUSTED", False), ("nothing", False)],
)  # fmt: skip
def test_what_counts_as_denied(status: str, denied: bool) -> None:
    assert is_denial(status) is denied


HEAD = {
    "review_time": NOW,
    "start_time": NOW - 90 * DAY,
    "unused_since_time": NOW - 90 * DAY,
    "fresh_time": NOW,
    "policy_revision": "7",
}
CONSUMER: dict[str, Any] = {
    "consumer": "crm",
    "title": f"={EVIL}",
    "state": "ACTIVE",
    "create_time": NOW,
    "last_use_time": None,
    "roles": ["a", "b"],
    "permissions": ["audit.read"],
    "surfaces": [],
    "datasets": [{
        "dataset": "customers", "actions": ["read"], "row_filters": [f"name = '{EVIL}'"],
        "may_see": ["pii:hash", "public"], "received": ["pii"], "no_longer": ["pii"],
        "surfaces": ["REST"], "last_use_time": NOW,
    }],
    "credentials": [{"credential": "k1", "kind": "API_KEY", "state": "ACTIVE", "create_time": NOW,
                     "age_days": 4, "last_use_time": None, "expire_time": None}],
    "unused_grants": [{"role": "a", "dataset": "orders", "action": "read", "last_use_time": None}],
    "denied": [{"dataset": "", "method": "/x", "status": "PERMISSION_DENIED", "calls": "3"}],
    "denied_calls": "3",
}  # fmt: skip


def write(form: str, *consumers: dict[str, Any]) -> str:
    file = REVIEWS[form]()
    return file.begin(HEAD) + "".join(map(file.add, consumers)) + file.end()


def test_a_review_in_json_and_xml() -> None:
    for count in range(3):
        document = json.loads(write("JSON", *[CONSUMER] * count))
        assert document["policyRevision"] == "7" and len(document["consumers"]) == count
        root = ElementTree.fromstring(write("XML", *[CONSUMER] * count))
        assert len(root.findall("consumers/item")) == count
    found = document["consumers"][0]
    assert found["title"] == f"={EVIL}" and "lastUseTime" not in found
    assert found["datasets"][0]["maySee"] == ["pii:hash", "public"]
    assert found["credentials"] == [
        {"credential": "k1", "kind": "API_KEY", "state": "ACTIVE", "ageDays": 4,
         "createTime": "2026-03-31T00:00:00Z"}
    ]  # fmt: skip
    (item, _) = root.findall("consumers/item")
    assert item.findtext("title") == f"={EVIL}"
    assert [e.text for e in item.findall("datasets/item/may_see/item")] == ["pii:hash", "public"]


def test_a_review_in_csv_runs_nothing() -> None:
    rows = list(csv.DictReader(io.StringIO(write("CSV", CONSUMER, CONSUMER))))
    assert tuple(rows[0]) == CSV_COLUMNS and len(rows) == 10
    items = [row["item"] for row in rows[:5]]
    assert items == ["consumer", "dataset", "credential", "unused_grant", "denied"]
    assert {row["consumer"] for row in rows} == {"crm"}
    assert rows[0]["title"] == f"'={EVIL}" and rows[0]["calls"] == "3"
    assert rows[1]["may_see"] == "pii:hash public" and rows[1]["no_longer"] == "pii"
    assert (rows[2]["age_days"], rows[3]["action"], rows[4]["calls"]) == ("4", "read", "3")


def test_a_review_as_a_page_runs_nothing() -> None:
    page = write("HTML", CONSUMER)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;amp;" in page
    assert "default-src &#x27;none&#x27;" in page and "@media print" in page
    for text in (
        "pii:hash public",
        "Unused grants",
        "PERMISSION_DENIED",
        "crm",
        "policy revision 7",
    ):
        assert text in page
    # What a consumer has none of is left out.
    bare = {**CONSUMER, "unused_grants": [], "denied": [], "title": ""}
    assert "Unused grants</caption>" not in write("HTML", bare)
