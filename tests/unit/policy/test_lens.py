"""What makes two Lenses equal, and how a Lens treats references that lead nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from penstock.model.v1 import customers_pb2, orders_pb2
from penstockd.catalog import Catalog, FieldClass
from penstockd.policy.lens import Lens
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.view import View
from penstockd.query import FilterError
from penstockd.store.tables import Tables

ALL = {c: Mask.CLEAR for c in FieldClass}
CLAIMS = {"org": ["web"]}


def grant(rows: str = "", dataset: str = "customers", **masks: Mask) -> Grant:
    return Grant("r", dataset, frozenset({Action.READ}), ALL, masks, rows)


class Maker:
    """Makes Lenses of grants."""

    def __init__(self, catalog: Catalog, tables: Tables) -> None:
        self._catalog, self._tables = catalog, tables

    def __call__(
        self,
        *grants: Grant,
        key: bytes = b"k" * 32,
        revision: int = 1,
        claims: dict[str, list[str]] = CLAIMS,
        fields: str = "",
        filter: str = "",
    ) -> Lens:
        view = View(
            self._catalog[grants[0].dataset],
            self._catalog,
            self._tables,
            grants,
            revision=revision,
            mask_key=key,
            on=[Action.READ],
            claims=claims,
        )
        return Lens(view, self._catalog, fields=fields, filter=filter)


@pytest.fixture
def lens(catalog: Catalog, tables: Tables) -> Maker:
    return Maker(catalog, tables)


RULES = ["status = ACTIVE", "source = claims.org"]


def test_the_same_view_has_the_same_id(lens: Maker) -> None:
    grants = [grant(r) for r in RULES]
    first = lens(*grants, filter="name:* status = LEAD")
    renamed = [replace(g, role=f"other-{n}") for n, g in enumerate(reversed(grants))]
    again = lens(*renamed, revision=2, filter="status=LEAD AND name:*")
    assert first.view_id == again.view_id
    assert lens(grant(), fields="*").view_id == lens(grant()).view_id


def test_what_shows_something_else_has_another_id(lens: Maker) -> None:
    made = [
        lens(grant()),
        lens(grant(dataset="contacts")),
        lens(grant(), key=b"another key" * 3),
        lens(grant(email=Mask.HASH)),
        lens(grant(email=Mask.PARTIAL)),
        lens(grant(email=Mask.NULL)),
        lens(grant(email=Mask.HIDE)),
        lens(grant(), fields="name"),
        lens(grant(), filter="name:*"),
        lens(grant(), filter="NOT name:*"),
        lens(grant(), filter='email = "a***"', fields="name"),
        lens(grant(email=Mask.PARTIAL), filter='email = "a***"', fields="name"),
        *[lens(grant(rule)) for rule in RULES],
        lens(grant(RULES[1]), claims={"org": ["web", "shop"]}),
        lens(grant(RULES[1]), claims={}),
    ]
    assert len({x.view_id for x in made}) == len(made)


def order(customer: str) -> bytes:
    return orders_pb2.Order(order_id="o", customer_id=customer).SerializeToString()


def looked_up(dataset: str, key: str) -> bytes | None:
    status = {"a": customers_pb2.Customer.ACTIVE, "l": customers_pb2.Customer.LEAD}
    if dataset != "customers" or key not in status:
        return None
    return customers_pb2.Customer(customer_id=key, status=status[key]).SerializeToString()


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        ("customer.status = ACTIVE", ["a"]),
        ("customer.status != ACTIVE", ["l"]),
        ("NOT customer.status = ACTIVE", ["l", "gone", ""]),
        ("NOT customer.status != ACTIVE", ["a", "gone", ""]),
        ("NOT customer.customer_id:*", ["gone", ""]),
    ],
)
def test_a_reference_that_leads_nowhere_fulfils_no_comparison(
    lens: Maker, rule: str, shown: Sequence[str]
) -> None:
    orders = lens(grant(rule, dataset="orders"))
    assert [k for k in ("a", "l", "gone", "") if orders.shows(order(k), looked_up)] == shown
    assert [(f.path, f.dataset, f.field.path) for f in orders.follows] == [
        (("customer",), "customers", "customer_id")
    ]


def test_a_view_in_the_clear_decodes_nothing(lens: Maker) -> None:
    everything, garbage = lens(grant()), b"\xff"
    assert everything.clear and everything.sees_all and everything.follows == ()
    assert everything.project(garbage) is garbage
    assert everything.see_all([garbage], looked_up) == [garbage]
    assert not lens(grant(email=Mask.HIDE)).clear


def test_a_change_of_hidden_fields_is_none(lens: Maker) -> None:
    def image(tax_id: str, etag: str) -> bytes:
        made = customers_pb2.Customer(customer_id="c", tax_id=tax_id, etag=etag)
        return made.SerializeToString()

    hidden, full = lens(grant(tax_id=Mask.HIDE)), lens(grant())
    before, after = image("1", "1"), image("2", "2")
    assert hidden.changed(hidden.project(before), hidden.project(after)) == []
    assert full.changed(before, after) == ["tax_id", "etag"]
    assert full.changed(before, image("1", "2")) == ["etag"]


def test_a_field_that_the_model_has_lost_is_not_passed_on(lens: Maker) -> None:
    lost = customers_pb2.Customer(customer_id="c").SerializeToString() + b"\xfa\x3f\x01x"
    assert b"x" not in lens(grant(tax_id=Mask.HIDE)).project(lost)


def test_nor_to_somebody_who_sees_everything_that_is_left(catalog: Catalog, tables: Tables) -> None:
    lost = customers_pb2.Customer(customer_id="c").SerializeToString() + b"\xfa\x3f\x01x"
    assert b"x" in Maker(catalog, tables)(grant()).project(lost), "the control"
    changed = Catalog({d.name: d for d in catalog}, catalog.pool)
    changed.with_former_fields = frozenset({"customers"})
    everything = Maker(changed, tables)(grant())
    assert not everything.clear and b"x" not in everything.project(lost)
    assert b"x" not in b"".join(everything.project_all([lost]))


def test_filters_are_refused_as_lists_refuse_them(lens: Maker) -> None:
    with pytest.raises(FilterError):
        lens(grant(), filter="name =")
