"""A feed is the View over time: it shows what enters the View, what leaves it, and nothing else.

Every scene is read three times, live, afterwards from the log and by polls, with the same result
each time.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from feeds import CATALOG, CLEAR, Scene, Told, consumer_with, delete, grant, patch, put
from harness import RunningHub

OF_ACTIVE = "customer.status = ACTIVE"


def key(kind: str = "c") -> str:
    return f"t-{kind}-{uuid.uuid4().hex[:10]}"


def customer(customer_id: str, status: str = "ACTIVE", **values: Any) -> dict[str, Any]:
    return {"customerId": customer_id, "name": "Feeds", "status": status, **values}


def company(hub: RunningHub, status: str = "ACTIVE") -> dict[str, str]:
    """A customer with an order, a contact and an interaction, by dataset."""
    made = {d: key(d[0]) for d in ("customers", "orders", "contacts", "interactions")}
    owner = {"customerId": made["customers"]}
    put(hub, "customers", customer(made["customers"], status))
    put(hub, "orders", {"orderId": made["orders"], **owner})
    put(hub, "contacts", {"contactId": made["contacts"], "familyName": "F", **owner})
    put(
        hub,
        "interactions",
        {"interactionId": made["interactions"], "contactId": made["contacts"], **owner},
    )
    return made


def record(event: Told, which: str = "after") -> Any:
    image = getattr(event, which)
    return CATALOG[event.dataset].message_class.FromString(image)


def test_records_come_and_go_by_their_own_change(hub: RunningHub) -> None:
    one, other = key(), key()
    with Scene(hub, "bi", "customers", include_before=True) as scene:
        put(hub, "customers", customer(one), customer(other, "LEAD"))
        patch(hub, "customers", one, name="Seen")
        patch(hub, "customers", other, name="Not seen")
        patch(hub, "customers", one, status="CHURNED")
        patch(hub, "customers", one, name="Not seen either")
        patch(hub, "customers", one, status="ACTIVE")
        delete(hub, "customers", one)
        delete(hub, "customers", other)
        events = scene.told()
    assert [e.brief for e in events] == [
        ("CREATED", one),
        ("UPDATED", one),
        ("LEFT_VIEW", one),
        ("ENTERED_VIEW", one),
        ("DELETED", one),
    ]
    assert [(e.before is not None, e.after is not None) for e in events] == [
        (False, True),
        (True, True),
        (True, False),
        (False, True),
        (True, False),
    ]
    assert record(events[1]).name == "Seen" and record(events[1], "before").name == "Feeds"
    # The before-image is what the consumer saw last, not what the record became.
    assert record(events[2], "before").status == record(events[1]).status
    assert set(events[1].changed) >= {"name"} and "email" not in events[1].changed


def test_what_belongs_to_a_customer_goes_and_comes_with_it(hub: RunningHub) -> None:
    made = company(hub)
    with Scene(hub, "bi") as scene:
        patch(hub, "customers", made["customers"], status="CHURNED")
        patch(hub, "orders", made["orders"], currencyCode="EUR")
        patch(hub, "contacts", made["contacts"], jobTitle="Unseen")
        patch(hub, "customers", made["customers"], status="ACTIVE")
        events = scene.told()
    leaving, entering = events[:4], events[4:]
    assert {e.brief for e in leaving} == {("LEFT_VIEW", k) for k in made.values()}
    assert {e.brief for e in entering} == {("ENTERED_VIEW", k) for k in made.values()}
    for batch in (leaving, entering):
        assert len({(e.transaction, e.sequence, e.time) for e in batch}) == 1
        # A record comes after the records that it refers to.
        assert batch[0].dataset == "customers"
    assert all((e.after is None) is (e in leaving) for e in events)
    order = next(e for e in entering if e.dataset == "orders")
    assert record(order).currency_code == "EUR"


def test_a_reference_is_moved_to_a_customer_that_is_not_seen(hub: RunningHub) -> None:
    made, hidden, seen = company(hub), key(), key()
    put(hub, "customers", customer(hidden, "LEAD"), customer(seen))
    order = made["orders"]
    with Scene(hub, "bi", "orders") as scene:
        patch(hub, "orders", order, customerId=seen)
        patch(hub, "orders", order, customerId=hidden)
        patch(hub, "customers", seen, status="CHURNED")  # no longer its customer
        patch(hub, "customers", hidden, status="ACTIVE")
        patch(hub, "orders", order, customerId=made["customers"])
        patch(hub, "customers", hidden, status="LEAD")
        found = scene.brief()
    assert found == [
        ("UPDATED", order),
        ("LEFT_VIEW", order),
        ("ENTERED_VIEW", order),
        ("UPDATED", order),
    ]


def test_a_customer_is_deleted_with_or_without_what_belongs_to_it(hub: RunningHub) -> None:
    made, lost = company(hub), company(hub, "LEAD")
    with Scene(hub, "bi") as scene:
        for dataset in ("interactions", "contacts", "orders", "customers"):
            delete(hub, dataset, lost[dataset])
        for dataset in ("interactions", "contacts"):
            delete(hub, dataset, made[dataset])
        reply = hub.request("DELETE", f"/v1/customers/{made['customers']}", consumer="admin")
        found = scene.brief()
    expected = [("DELETED", made["interactions"]), ("DELETED", made["contacts"])]
    if reply.status == 200:
        # An order without a customer belongs to nobody.
        expected += [("DELETED", made["customers"]), ("LEFT_VIEW", made["orders"])]
    assert found == expected


def test_several_in_one_transaction(hub: RunningHub) -> None:
    first, second, third = company(hub), company(hub), company(hub, "LEAD")
    with Scene(hub, "bi", datasets=["customers", "orders"]) as scene:
        put(
            hub,
            "customers",
            customer(first["customers"], "CHURNED"),
            customer(second["customers"], name="Stays"),
            customer(third["customers"]),
        )
        events = scene.told()
    assert len({e.transaction for e in events}) == 1
    assert sorted(e.brief for e in events) == sorted(
        [
            ("LEFT_VIEW", first["customers"]),
            ("LEFT_VIEW", first["orders"]),
            ("UPDATED", second["customers"]),
            ("ENTERED_VIEW", third["customers"]),
            ("ENTERED_VIEW", third["orders"]),
        ]
    )


def test_a_rule_over_two_references(hub: RunningHub) -> None:
    made, other = company(hub), company(hub, "LEAD")
    talk = made["interactions"]
    rule = "contact.customer.status = ACTIVE"
    with (
        consumer_with(hub, grant("interactions", rule)) as reader,
        Scene(hub, reader.key, "interactions") as scene,
    ):
        patch(hub, "customers", made["customers"], status="CHURNED")
        patch(hub, "customers", made["customers"], status="ACTIVE")
        patch(hub, "contacts", made["contacts"], customerId=other["customers"])
        patch(hub, "customers", made["customers"], status="LEAD")  # leads to it no longer
        patch(hub, "customers", other["customers"], status="ACTIVE")
        patch(hub, "interactions", talk, contactId=None)
        patch(hub, "interactions", talk, contactId=other["contacts"])
        found = [b for b in scene.brief() if b[1] == talk]
    assert found == [
        ("LEFT_VIEW", talk),
        ("ENTERED_VIEW", talk),
        ("LEFT_VIEW", talk),
        ("ENTERED_VIEW", talk),
        ("LEFT_VIEW", talk),
        ("ENTERED_VIEW", talk),
    ]


def test_old_history_is_told_as_it_was(hub: RunningHub) -> None:
    """The earlier states of records are known although they have changed, moved and gone since."""
    made, other = company(hub), company(hub)
    with Scene(hub, "bi") as scene:
        patch(hub, "customers", made["customers"], status="CHURNED")
        patch(hub, "orders", made["orders"], customerId=other["customers"])
        patch(hub, "customers", made["customers"], status="ACTIVE")
        patch(hub, "orders", made["orders"], customerId=made["customers"])
        patch(hub, "customers", made["customers"], status="LEAD")
        for dataset in ("interactions", "contacts", "orders"):
            delete(hub, dataset, made[dataset])
        put(hub, "orders", {"orderId": made["orders"], "customerId": other["customers"]})
        delete(hub, "orders", made["orders"])
        # Live is as it happened; the others are read after everything has gone.
        events = scene.told()
    order = [e.operation for e in events if e.key == made["orders"]]
    assert order == [
        "LEFT_VIEW",
        "ENTERED_VIEW",
        "UPDATED",
        "LEFT_VIEW",
        "CREATED",
        "DELETED",
    ]


@pytest.mark.parametrize("consumer", ["crm", "bi"])
def test_a_change_of_hidden_fields_is_silent(hub: RunningHub, consumer: str) -> None:
    one = key()
    put(hub, "customers", customer(one, email="a@b.example", taxId="1", creditLimit="1.00"))
    with Scene(hub, consumer, "customers", include_before=True) as scene:
        patch(hub, "customers", one, taxId="2")
        patch(hub, "customers", one, creditLimit="2.00")
        if consumer == "bi":
            patch(hub, "customers", one, phone="+1 555", email="abc@b.example")
        assert scene.told() == []
        patch(hub, "customers", one, taxId="3", name="Renamed")
        (event,) = scene.told()
    assert event.operation == "UPDATED"
    assert set(event.changed) == {"name", "update_time"}
    for which in ("before", "after"):
        image = record(event, which)
        assert not image.HasField("tax_id") and not image.HasField("credit_limit")
        assert image.email == ("a@b.example" if consumer == "crm" else image.email)
        assert "a@b" not in image.email or consumer == "crm"


def test_filter_and_fields_make_a_view_of_their_own(hub: RunningHub) -> None:
    one, other = key(), key()
    options = {"filter": f'name = "In" AND customer_id:"{one[:2]}*"', "fields": "name,status"}
    with Scene(hub, "crm", "customers", **options) as scene:
        put(hub, "customers", customer(one, name="In"), customer(other, name="Out"))
        patch(hub, "customers", one, email="silent@b.example")
        patch(hub, "customers", one, status="LEAD")
        patch(hub, "customers", one, name="Out")
        patch(hub, "customers", other, name="In")
        delete(hub, "customers", one)
        delete(hub, "customers", other)
        events = scene.told()
    assert [e.brief for e in events] == [
        ("CREATED", one),
        ("UPDATED", one),
        ("LEFT_VIEW", one),
        ("ENTERED_VIEW", other),
        ("DELETED", other),
    ]
    assert events[1].changed == ("status",)
    assert {f.name for f, _ in record(events[3]).ListFields()} == {"name", "status"}


def test_only_the_operations_that_are_wanted(hub: RunningHub) -> None:
    one = key()
    with Scene(hub, "admin", "customers", operations=["CREATED", "DELETED"]) as scene:
        put(hub, "customers", customer(one))
        patch(hub, "customers", one, name="Renamed")
        delete(hub, "customers", one)
        assert scene.brief() == [("CREATED", one), ("DELETED", one)]


def test_masks_hold_in_all_images(hub: RunningHub) -> None:
    one = key()
    masks = grant("customers", "", CLEAR, email="hash", tax_id="partial", credit_limit="null")
    with (
        consumer_with(hub, masks) as reader,
        Scene(hub, reader.key, "customers", include_before=True) as scene,
    ):
        put(hub, "customers", customer(one, email="secret@b.example", taxId="123456789"))
        patch(hub, "customers", one, email="other@b.example")
        patch(hub, "customers", one, creditLimit="12345.00")  # null before and after
        delete(hub, "customers", one)
        events = scene.told()
    assert [e.operation for e in events] == ["CREATED", "UPDATED", "DELETED"]
    assert set(events[1].changed) == {"email", "update_time"}
    images = b"".join((e.before or b"") + (e.after or b"") for e in events)
    assert all(word not in images for word in (b"secret", b"other@", b"123456789", b"12345.00"))
