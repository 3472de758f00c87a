"""Records through Envoy by plain HTTP: get, create, update, delete, batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from harness import Reply, RunningHub, in_json, new_customer


def path(record: dict[str, Any]) -> str:
    return f"/v1/customers/{record['customerId']}"


def create(hub: RunningHub, record: dict[str, Any]) -> dict[str, Any]:
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    return dict(reply.json())


def update(hub: RunningHub, record: dict[str, Any], change: dict[str, Any], **query: str) -> Reply:
    return hub.request("PATCH", path(record), consumer="admin", json_body=change, query=query)


def batch(hub: RunningHub, *records: dict[str, Any]) -> Reply:
    body = {"customers": records}
    return hub.request("POST", "/v1/customers:batchUpsert", consumer="admin", json_body=body)


def test_a_record_is_created_read_changed_and_deleted(hub: RunningHub) -> None:
    record = new_customer(
        email="a@example.com", creditLimit="12.50", billingAddress={"city": "Köln"}
    )
    created = create(hub, record)
    assert created["creditLimit"] == "12.50"
    assert created["createTime"] == created["updateTime"]
    assert hub.get(path(record)).json() == created
    changed = update(hub, record, {"name": "New", "etag": created["etag"]})
    assert changed.status == 200, changed.text
    assert changed.json()["name"] == "New"
    assert changed.json()["email"] == "a@example.com"
    assert changed.json()["etag"] != created["etag"]
    assert changed.json()["createTime"] == created["createTime"] < changed.json()["updateTime"]
    deleted = hub.request("DELETE", path(record), consumer="admin")
    assert (deleted.status, deleted.json()) == (200, {})
    for gone in (hub.get(path(record)), hub.request("DELETE", path(record), consumer="admin")):
        assert (gone.status, gone.reason) == (404, "RECORD_NOT_FOUND")
    assert update(hub, record, {"name": "Newer"}).reason == "RECORD_NOT_FOUND"


def test_every_value_comes_back_as_it_was_given(hub: RunningHub) -> None:
    record = new_customer(
        name='O\'Neil "&" <Söhne>, 株式会社 👩‍👧',
        kind="COMPANY",
        status="LEAD",
        email="x@example.com",
        phone="",
        taxId="DE 1",
        billingAddress={
            "line1": "1\n2",
            "line2": "",
            "city": "Ōsaka",
            "region": "R",
            "postalCode": "01",
            "countryCode": "JP",
        },
        currencyCode="JPY",
        creditLimit="12.5000",
        lifetimeValue="-0.10",
        marketingOptIn=True,
        tags=["b", "a", "", "b"],
        notes="tab\tand\r\nline",
        birthDate="2000-02-29",
        source="test",
        sourceId="7",
    )
    created = create(hub, record)
    assert record.items() <= created.items()
    assert created.keys() - record.keys() == {"createTime", "updateTime", "etag"}


@pytest.mark.parametrize("name", ["fields", "Fields"])
def test_only_the_fields_asked_for_come(hub: RunningHub, name: str) -> None:
    record = create(
        hub, new_customer(taxId="T", billingAddress={"city": "Bonn", "countryCode": "DE"})
    )
    if name != "fields":  # negative control: an unknown parameter is not ignored
        assert hub.get(path(record), **{name: "name"}).status == 400
        return
    for wanted, found in {
        "name": {"name": "Test"},
        "customer_id,tax_id": {"customerId": record["customerId"], "taxId": "T"},
        "customerId,taxId": {"customerId": record["customerId"], "taxId": "T"},
        "billing_address.city": {"billingAddress": {"city": "Bonn"}},
        "billingAddress.city, name": {"billingAddress": {"city": "Bonn"}, "name": "Test"},
        "billing_address": {"billingAddress": record["billingAddress"]},
        "billingAddress": {"billingAddress": record["billingAddress"]},
        "email": {"email": None},
        "*": record,
    }.items():
        assert hub.get(path(record), fields=wanted).json() == found, wanted


def test_a_mask_says_what_changes_and_nothing_else_does(hub: RunningHub) -> None:
    record = create(
        hub,
        new_customer(
            email="a@b.c", notes="n", tags=["x"], billingAddress={"city": "Bonn", "region": "NW"}
        ),
    )
    reply = update(hub, record, {"name": "N", "email": "new@b.c"}, update_mask="email,notes")
    assert reply.status == 200, reply.text
    assert reply.json()["email"] == "new@b.c"
    assert reply.json()["notes"] is None, "named in the mask but not set: cleared"
    assert reply.json()["name"] == "Test", "set but not named in the mask: kept"
    change = {"billingAddress": {"city": "Ulm", "region": "BW"}}
    reply = update(hub, record, change, updateMask="billingAddress.city")
    assert reply.json()["billingAddress"] == record["billingAddress"] | {"city": "Ulm"}
    reply = update(hub, record, {"billingAddress": {"city": "Kiel"}}, update_mask="billing_address")
    whole = record["billingAddress"] | {"city": "Kiel", "region": None}
    assert reply.json()["billingAddress"] == whole
    reply = update(hub, record, {}, update_mask="tags")
    assert reply.json()["tags"] == []


def test_without_a_mask_what_is_set_changes(hub: RunningHub) -> None:
    record = create(hub, new_customer(notes="n", billingAddress={"city": "Bonn", "region": "NW"}))
    change = {"billingAddress": {"city": "Ulm"}, "status": "LEAD"}
    reply = update(hub, record, change)
    assert reply.json()["billingAddress"] == record["billingAddress"] | {"city": "Ulm"}
    assert (reply.json()["status"], reply.json()["notes"]) == ("LEAD", "n")


def test_an_update_that_changes_nothing_leaves_no_trace(hub: RunningHub) -> None:
    record = create(hub, new_customer(notes="n"))
    head = hub.head()
    assert update(hub, record, {"notes": "n"}).json() == record
    assert hub.head() == head
    assert update(hub, record, {"notes": "m"}).json()["etag"] != record["etag"]
    assert hub.head() == head + 1


def test_an_etag_that_is_not_the_records_changes_nothing(hub: RunningHub) -> None:
    record = create(hub, new_customer())
    stale = record["etag"]
    current = update(hub, record, {"name": "Second"}, etag=stale).json()
    for reply in (
        update(hub, record, {"name": "Third"}, etag=stale),
        update(hub, record, {"name": "Third", "etag": stale}),
        hub.request("DELETE", path(record), consumer="admin", query={"etag": stale}),
    ):
        assert (reply.status, reply.reason) == (409, "ETAG_MISMATCH")
    both = update(hub, record, {"name": "Third", "etag": stale}, etag=current["etag"])
    assert (both.status, both.reason) == (400, "VALUE_INVALID")
    assert hub.get(path(record)).json() == current
    query = {"etag": current["etag"]}
    assert hub.request("DELETE", path(record), consumer="admin", query=query).status == 200


def test_what_the_hub_writes_itself_is_ignored(hub: RunningHub) -> None:
    given = {"createTime": "2000-01-01T00:00:00Z", "updateTime": "2000-01-01T00:00:00Z"}
    created = create(hub, new_customer(**given, etag="7"))
    assert created["createTime"] > "2026" and created["etag"] != "7"
    reply = update(hub, created, {"name": "N", **given})
    assert reply.json()["createTime"] == created["createTime"]


def test_the_path_names_the_record_not_the_body(hub: RunningHub) -> None:
    record, other = create(hub, new_customer()), create(hub, new_customer())
    reply = update(hub, record, {"customerId": other["customerId"], "name": "Changed"})
    assert (reply.status, list(reply.violations())) == (400, ["customerId"])
    assert hub.get(path(record)).json() == record
    assert hub.get(path(other)).json() == other


def test_a_taken_key_is_refused(hub: RunningHub) -> None:
    record = create(hub, new_customer())
    again = hub.request(
        "POST", "/v1/customers", consumer="admin", json_body={**record, "name": "O"}
    )
    assert (again.status, again.reason) == (409, "RECORD_EXISTS")
    assert hub.get(path(record)).json() == record


def test_a_batch_creates_updates_and_leaves_alone(hub: RunningHub) -> None:
    same, changed, new = new_customer(), new_customer(notes="n", email="a@b.c"), new_customer()
    create(hub, same)
    before = create(hub, changed)
    head = hub.head()
    reply = batch(hub, same, {**changed, "notes": "m"}, new)
    assert reply.json() == {"createdCount": "1", "updatedCount": "1", "unchangedCount": "1"}
    assert hub.head() == head + 2
    after = hub.get(path(changed)).json()
    assert (after["notes"], after["email"]) == ("m", "a@b.c")
    assert after["createTime"] == before["createTime"]
    del changed["email"]
    assert batch(hub, changed).json() == {"updatedCount": "1"}
    assert hub.get(path(changed)).json()["email"] is None, "a record replaces all of its fields"


def test_no_etag_counts_however_a_record_is_written(hub: RunningHub) -> None:
    """Etags are random: a counter would reveal how much everybody writes."""
    records = [new_customer() for _ in range(150)]
    changed = [{**record, "notes": "n"} for record in records]
    first, found = records[0], dict[str, str]()
    rows = "".join(f"{record['customerId']},Imported\n" for record in [*records, new_customer()])

    def send_file() -> None:
        headers = {"content-type": "application/octet-stream"}
        path, body = "/v1/customers:import?format=CSV", f"customer_id,name\n{rows}".encode()
        reply = hub.request("POST", path, consumer="admin", body=body, headers=headers)
        assert reply.status == 200, reply.text

    ways: dict[str, Callable[[], object]] = {
        "create": lambda: create(hub, first),
        "update": lambda: update(hub, first, {"notes": "m"}),
        "batch": lambda: batch(hub, changed[0], new_customer()),
        "large batch of new records": lambda: batch(hub, *records[1:]),
        "large batch of old records": lambda: batch(hub, *[{**r, "notes": "o"} for r in records]),
        "import": send_file,
    }
    for way, write in ways.items():
        write()
        for record in (first, records[-1]):
            reply = hub.get(path(record))
            if reply.status == 200:
                found[f"{way}: {record['customerId']}"] = reply.json()["etag"]
    assert len(found) == 9
    assert all(int(etag.strip('"')) >= 1 << 47 for etag in found.values()), found
    assert len(set(found.values())) >= len(ways)


@pytest.mark.parametrize(
    ("spoil", "violation"),
    [
        ({"creditLimit": "1.23456"}, "customers[1].credit_limit"),
        ({"birthDate": "2001-02-29"}, "customers[1].birth_date"),
        ({"name": "a\x00b"}, "customers[1].name"),
        ({"customerId": ""}, "customers[1].customer_id"),
        ({"customerId": None}, "customers[1].customer_id"),
    ],
)
def test_one_bad_record_and_nothing_of_a_batch_is_written(
    hub: RunningHub, spoil: dict[str, Any], violation: str
) -> None:
    good, bad, last = new_customer(), {**new_customer(), **spoil}, new_customer()
    reply = batch(hub, good, bad, last)
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    assert list(reply.violations()) == [in_json(violation)]
    assert hub.get(path(good)).status == hub.get(path(last)).status == 404
    assert batch(hub, good, last).json() == {"createdCount": "2"}


def test_a_key_twice_in_a_batch_is_refused(hub: RunningHub) -> None:
    record = new_customer()
    reply = batch(hub, record, new_customer(), {**record, "name": "Other"})
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")
    assert reply.violations() == {"customers[2].customerId": "occurs twice"}
    assert hub.get(path(record)).status == 404


def test_a_batch_may_not_be_larger_than_an_import_would_be_for(hub: RunningHub) -> None:
    many = [{"customerId": f"many-{i}"} for i in range(10_001)]
    reply = batch(hub, *many)
    assert (reply.status, reply.reason) == (400, "REQUEST_TOO_LARGE")
    assert hub.get("/v1/customers/many-0").status == 404
    assert batch(hub).json() == {}
