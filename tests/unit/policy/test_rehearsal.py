"""The effect of another policy on known calls, exact to the call."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from penstockd.catalog import FieldClass
from penstockd.policy.history import PolicyDocument
from penstockd.policy.model import Action, Consumer, Grant, Mask, Role
from penstockd.policy.rehearsal import Calls, DatasetEffect, Rehearsal, with_document

from .conftest import MakePolicy

START = datetime(2026, 3, 1, tzinfo=UTC)
ALL = frozenset(Action)
CLEAR = dict.fromkeys(FieldClass, Mask.CLEAR)
CRM = Role(
    "crm", "", (Grant("crm", "customers", ALL, CLEAR, {}), Grant("crm", "orders", ALL, CLEAR, {}))
)


def calls(method: str, count: int, minute: int, **query: str) -> Calls:
    texts: dict[str, Any] = {"fields": "", "filter": "", "order_by": "", "update_mask": "", **query}
    last = START + timedelta(minutes=minute)
    return Calls("crm", "customers", method, **texts, allow_missing=False, count=count, last=last)


KNOWN = [
    calls("GetCustomer", 5, 1),
    calls("GetCustomer", 3, 2, fields="name,email"),
    calls("ListCustomers", 2, 3, filter='email = "a@b.c" AND status = ACTIVE'),
    calls("StreamExportCustomers", 1, 4, order_by="email desc, name"),
    calls("ListCustomers", 4, 5, filter="status = ACTIVE"),
    calls("ListCustomers", 1, 6, fields="billing_address"),
    calls("UpdateCustomer", 6, 7, update_mask="email"),
    calls("UpdateCustomer", 2, 8, update_mask="name"),
    calls("DeleteCustomer", 7, 9),
    calls("ImportCustomers", 1, 10),
    # The caller had these fields once and has them no more: such a call would fail already.
    calls("ListCustomers", 9, 11, filter="fax = 1"),
]


def rehearsed(policy: MakePolicy, **values: Any) -> DatasetEffect:
    """The effect on customers of a change of their grant."""
    grant = replace(CRM.grants[0], **values)
    before = policy(CRM, crm=["crm"])
    after = policy(replace(CRM, grants=(grant, CRM.grants[1])), crm=["crm"])
    rehearsal = Rehearsal(before, after)
    assert rehearsal.datasets() == {"crm": ["customers"]}
    for some in KNOWN:
        rehearsal.add(some)
    (effect,) = rehearsal.effects
    assert (effect.consumer_id, effect.uncalled) == ("crm", [])
    (found,) = effect.datasets.values()
    assert (found.calls, found.last) == (41, START + timedelta(minutes=11))
    return found


def test_a_field_that_would_be_hidden(policy: MakePolicy) -> None:
    found = rehearsed(policy, field_masks={"email": Mask.HIDE})
    # The stored etag counts hidden changes, so it is not shown either.
    assert list(found.fields) == ["email", "etag"]
    email = found.fields["email"]
    assert (email.before, email.after) == (Mask.CLEAR, Mask.HIDE)
    assert (email.writable_before, email.writable_after) == (True, False)
    assert (email.count, email.last) == (3 + 2 + 1 + 6, START + timedelta(minutes=7))
    assert (found.denied, found.failing) == (0, 3 + 2 + 1 + 6)
    assert found.last_failing == START + timedelta(minutes=7)


def test_a_field_that_would_be_masked_can_be_named_but_not_written(policy: MakePolicy) -> None:
    found = rehearsed(policy, field_masks={"email": Mask.PARTIAL})
    assert found.fields["email"].count == 12
    assert (found.denied, found.failing) == (0, 6)


def test_a_message_of_which_something_is_left(policy: MakePolicy) -> None:
    found = rehearsed(policy, field_masks={"billing_address.line1": Mask.HIDE})
    assert found.fields["billing_address.line1"].count == 1
    assert (found.denied, found.failing, found.last_failing) == (0, 0, None)
    found = rehearsed(policy, field_masks={"billing_address": Mask.HIDE})
    assert (found.denied, found.failing) == (0, 1)
    assert len(found.fields) > 3


def test_actions_that_would_be_lost(policy: MakePolicy) -> None:
    found = rehearsed(policy, actions=frozenset({Action.READ, Action.UPDATE}))
    assert found.lost_actions == (Action.CREATE, Action.DELETE)
    assert (found.denied, found.failing) == (7 + 1, 0)
    assert found.last_failing == START + timedelta(minutes=10)


def test_rows_alone(policy: MakePolicy) -> None:
    found = rehearsed(policy, row_filter="status = ACTIVE")
    assert (found.fields, found.lost_actions, found.gained_actions) == ({}, (), ())
    assert (found.denied, found.failing) == (0, 0)


def test_who_is_affected(policy: MakePolicy) -> None:
    inactive = Consumer("off", False, frozenset({"crm"}))
    before = policy(CRM, Role("other"), crm=["crm"], both=["crm", "other"], off=inactive, no=[])
    assert Rehearsal(before, before).effects == []
    document = PolicyDocument({"crm": CRM, "other": Role("other")}, dict(before.consumers))
    assert Rehearsal(before, with_document(before, document)).effects == []
    grants = (CRM.grants[0],)
    document = replace(document, roles={**document.roles, "crm": replace(CRM, grants=grants)})
    effects = Rehearsal(before, with_document(before, document)).effects
    assert [(e.consumer_id, e.uncalled) for e in effects] == [
        ("both", ["orders"]),
        ("crm", ["orders"]),
    ]
    added = Grant("other", "products", frozenset({Action.READ}), CLEAR, {})
    document = PolicyDocument(
        {"crm": CRM, "other": Role("other", "", (added,))}, document.consumers
    )
    effects = Rehearsal(before, with_document(before, document)).effects
    assert [(e.consumer_id, e.uncalled) for e in effects] == [("both", ["products"])]


def test_claims_count_where_a_rule_uses_them(policy: MakePolicy) -> None:
    grant = replace(CRM.grants[0], row_filter="source = claims.source")
    role = replace(CRM, grants=(grant,))
    consumer = Consumer("crm", True, frozenset({"crm"}), {"source": ("erp",), "x": ("1",)})
    before = policy(role, crm=consumer)
    same = replace(consumer, claims={"source": ("erp",)})
    other = replace(consumer, claims={"source": ("web",)})
    assert Rehearsal(before, policy(role, crm=same)).effects == []
    assert len(Rehearsal(before, policy(role, crm=other)).effects) == 1
