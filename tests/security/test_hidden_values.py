"""No hidden value leaves, by any path, in any format, for any role; names reveal nothing either."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from harness import Reply, RunningHub

from .marked import HIDDEN, HIDDEN_NAMES, RECORDS, everything, key_field

pytestmark = pytest.mark.lane("security/marked")

Answers = dict[str, list[tuple[str, bytes]]]


@pytest.fixture(scope="module")
def answers(marked_hub: RunningHub) -> Answers:
    """Everything that each consumer can read."""
    return {name: list(everything(marked_hub, name)) for name in ("admin", "crm", "bi")}


@pytest.mark.parametrize("consumer", ["crm", "bi"])
def test_no_hidden_value_in_anything_a_role_can_get(answers: Answers, consumer: str) -> None:
    for asked, answer in answers[consumer]:
        leaked = [marker for marker in HIDDEN[consumer] if marker.encode() in answer]
        assert not leaked, f"{consumer} {asked}: {leaked}"
    assert len(answers[consumer]) > 300


def test_the_search_would_find_them(answers: Answers) -> None:
    """Negative control: by the same paths the administrator gets every marker."""
    for marker in HIDDEN["crm"] | HIDDEN["bi"]:
        found = {asked.split(" ")[0] for asked, got in answers["admin"] if marker.encode() in got}
        assert len(found) >= 5, (marker, found)


def test_roles_do_see_what_is_theirs(answers: Answers) -> None:
    by_crm = b"".join(answer for _, answer in answers["crm"])
    for marker in ("zqphoneseen", "zqmailgone@example.com", "zqbodygone", "1911-01-13"):
        assert marker.encode() in by_crm
    by_bi = b"".join(answer for _, answer in answers["bi"])
    for marker in ("z***@example.com", "Plainseen", "Plainsubjectseen", "zqproductname"):
        assert marker.encode() in by_bi


def test_a_null_mask_shows_the_field_and_no_value(marked_hub: RunningHub) -> None:
    plain = {"format": "NDJSON"}
    exported = marked_hub.get("/v1/customers:export", "bi", **plain).text.splitlines()
    records = [json.loads(line) for line in exported]
    assert all("creditLimit" in r and r["creditLimit"] is None for r in records)
    assert not any({"phone", "taxId", "birthDate"} & r.keys() for r in records)
    addresses = [r["billingAddress"] for r in records if r["billingAddress"]]
    assert addresses and not any({"line1", "line2", "postalCode"} & a.keys() for a in addresses)
    for text in ("credit_limit > 0", "credit_limit:*", "credit_limit = 73137.7313"):
        assert marked_hub.get("/v1/customers", "bi", filter=text).json() == {"customers": []}
    keys = [r["customerId"] for r in records]
    by_limit = marked_hub.get("/v1/customers", "bi", order_by="credit_limit", page_size=1000).json()
    assert [r["customerId"] for r in by_limit["customers"]] == keys, "the order tells nothing"


def test_filters_and_orders_act_on_the_mask(marked_hub: RunningHub) -> None:
    def found(text: str) -> list[str]:
        reply = marked_hub.get("/v1/customers", "bi", filter=text, fields="customer_id")
        assert reply.status == 200, reply.text
        return [r["customerId"] for r in reply.json().get("customers", [])]

    for text in (
        'email = "zqmailseen@example.com"',
        'email = "zqmail*"',
        'email = "*seen@example.com"',
        'email > "zq" AND email < "zr"',
    ):
        assert found(text) == [], text
    assert "mk-seen" in found('email = "z***@example.com"')
    by_mail = marked_hub.get("/v1/customers", "bi", order_by="email", page_size=1000).json()
    shown = [(r["email"] or "\U0010ffff", r["customerId"]) for r in by_mail["customers"]]
    assert shown == sorted(shown), "among equal masks the key decides, not the address"


def shape(reply: Reply, name: str) -> tuple[Any, ...]:
    """The whole error, without the parts that differ from call to call and the requested name."""
    text = reply.text.replace(reply.request_id, "<id>").replace(name, "<name>")
    headers = {k: v for k, v in reply.headers.items() if k not in ("date", "x-request-id")}
    return reply.status, headers, text


NAMES = [
    (consumer, dataset, hidden, unknown)
    for consumer, datasets in HIDDEN_NAMES.items()
    for dataset, names in datasets.items()
    for hidden, unknown in names
]


@pytest.mark.parametrize(("consumer", "dataset", "hidden", "unknown"), NAMES)
def test_a_hidden_name_is_an_unknown_name(
    marked_hub: RunningHub, consumer: str, dataset: str, hidden: str, unknown: str
) -> None:
    key = RECORDS[dataset][0][key_field(dataset)]
    ways: list[tuple[str, dict[str, str]]] = []
    for path in ("", ":export", ":exportPage"):
        ways += [(path, {"filter": "{0}:*"}), (path, {"filter": 'source = "x" AND -{0} = "y"'})]
        ways += [(path, {"order_by": "source, {0} desc"}), (path, {"fields": "source,{0}"})]
    ways.append((f"/{key}", {"fields": "{0}"}))
    for path, query in ways:
        replies = [
            marked_hub.get(
                f"/v1/{dataset}{path}", consumer, **{k: v.format(name) for k, v in query.items()}
            )
            for name in (hidden, unknown)
        ]
        if "." in hidden and replies[0].status == 400 and "customer." in hidden:
            # Filters cannot use the rule's path through the reference either.
            assert marked_hub.get(f"/v1/{dataset}", "admin", filter=f"{hidden}:*").status == 400
        assert replies[0].status == 400
        assert shape(replies[0], hidden) == shape(replies[1], unknown), query
        assert replies[0].reason == "FIELD_UNKNOWN"


@pytest.mark.parametrize(
    ("hidden", "unknown"), [("tax_id", "tax_iz"), ("credit_limit", "credit_limiz")]
)
def test_a_hidden_name_is_unknown_to_writers_too(
    marked_hub: RunningHub, hidden: str, unknown: str
) -> None:
    def json_name(name: str) -> str:
        return re.sub("_(.)", lambda m: m[1].upper(), name)

    path = "/v1/customers/mk-seen"
    head = marked_hub.head()
    by_mask = [
        marked_hub.request(
            "PATCH", path, consumer="crm", json_body={}, query={"update_mask": f"name,{name}"}
        )
        for name in (hidden, unknown)
    ]
    assert by_mask[0].reason == "FIELD_UNKNOWN"
    assert shape(by_mask[0], hidden) == shape(by_mask[1], unknown)
    by_header = [
        upload(marked_hub, "CSV", f"customer_id,{name}\nmk-seen,1\n") for name in (hidden, unknown)
    ]
    assert by_header[0].status == 400
    assert shape(by_header[0], hidden) == shape(by_header[1], unknown)
    by_line = [
        upload(marked_hub, "NDJSON", json.dumps({"customerId": "mk-seen", json_name(name): "1"}))
        for name in (hidden, unknown)
    ]
    assert by_line[0].reason == "IMPORT_ROW_INVALID"
    assert shape(by_line[0], json_name(hidden)) == shape(by_line[1], json_name(unknown))
    create = {"customerId": "mk-new", "name": "New"}
    change = {"customerId": "mk-seen", "name": "Changed"}
    for verb, at, body in (
        ("PATCH", path, {"name": "Changed"}),
        ("POST", "/v1/customers", create),
        ("POST", "/v1/customers:batchUpsert", {"customers": [change]}),
    ):
        told = []
        for name in map(json_name, (hidden, unknown)):
            named = {**body, name: "1"}
            if "customers" in body:
                named = {"customers": [{**change, name: "1"}]}
            told.append(marked_hub.request(verb, at, consumer="crm", json_body=named))
        assert (told[0].status, told[0].reason) == (400, "FIELD_UNKNOWN")
        assert shape(told[0], json_name(hidden)) == shape(told[1], json_name(unknown))
    assert marked_hub.head() == head, "nothing was written"


def upload(hub: RunningHub, name: str, text: str, consumer: str = "crm") -> Reply:
    path = f"/v1/customers:import?format={name}"
    return hub.request("POST", path, consumer=consumer, body=text.encode())
