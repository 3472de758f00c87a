"""Roles and consumers as people write them: every fault is found, with its place."""

from __future__ import annotations

import pytest

from penstockd.catalog import Catalog
from penstockd.demo.access import demo_roles
from penstockd.errors import ValueInvalid
from penstockd.policy.checks import (
    GrantDraft,
    RoleDraft,
    check_claims,
    check_consumer,
    checked_role,
    draft_of,
)
from penstockd.policy.model import Consumer
from penstockd.store.tables import Tables


def problems(catalog: Catalog, tables: Tables, draft: RoleDraft) -> dict[str, str]:
    with pytest.raises(ValueInvalid) as raised:
        checked_role(draft, catalog, tables)
    return {v.field: v.description for v in raised.value.violations}


def of_grant(catalog: Catalog, tables: Tables, grant: GrantDraft) -> dict[str, str]:
    found = problems(catalog, tables, RoleDraft("r", grants=[grant]))
    return {field.removeprefix("role.grants[0]."): text for field, text in found.items()}


def test_roles_of_the_demo_are_read_back_as_they_are(catalog: Catalog, tables: Tables) -> None:
    roles = list(demo_roles(catalog))
    assert len(roles) == 3
    for role in roles:
        assert checked_role(draft_of(role), catalog, tables) == role


@pytest.mark.parametrize("name", ["", "Bi", "-x", "a/b", "a b", "x" * 64, "é"])
def test_names_that_are_none(catalog: Catalog, tables: Tables, name: str) -> None:
    assert set(problems(catalog, tables, RoleDraft(name))) == {"role.role_id"}


def test_all_that_is_wrong_is_found_at_once(catalog: Catalog, tables: Tables) -> None:
    draft = RoleDraft(
        "r",
        "x" * 1001,
        [
            GrantDraft("customers", ["read"]),
            GrantDraft("customers", ["read"]),
            GrantDraft("customer", ["read"]),
            GrantDraft("orders", ["Read"], {"SECRET": "clear", "PII": "blur"}),
        ],
        ["access.read", "access"],
    )
    assert set(problems(catalog, tables, draft)) == {
        "role.description",
        "role.permissions[1]",
        "role.grants[1].dataset",
        "role.grants[2].dataset",
        "role.grants[3].actions[0]",
        "role.grants[3].class_masks[SECRET]",
        "role.grants[3].class_masks[PII]",
    }


@pytest.mark.parametrize(
    ("path", "mask", "said"),
    [
        ("fax", "hide", "customers has no field 'fax'"),
        ("billingAddress.city", "hide", "it is written 'billing_address.city' here"),
        ("credit_limit", "partial", "credit_limit is DECIMAL"),
        ("create_time", "hash", "create_time is TIMESTAMP"),
        ("customer_id", "hide", "the key is always clear"),
        ("email", "star", "'star' is not one of clear, partial, hash, null, hide"),
    ],
)
def test_masks_that_cannot_be_put_on(
    catalog: Catalog, tables: Tables, path: str, mask: str, said: str
) -> None:
    grant = GrantDraft("customers", ["read"], field_masks={path: mask})
    found = of_grant(catalog, tables, grant)
    assert set(found) == {f"field_masks[{path}]"}
    assert said in found[f"field_masks[{path}]"]


@pytest.mark.parametrize(
    "row_filter",
    ["status =", "fax = 1", "status > ACTIVE", "status = GONE", "a(b)", "(" * 40, "x" * 5000,
     "owner.name = 1", "create_time < claims.t", "source = claims.X"],
)  # fmt: skip
def test_row_filters_that_cannot_be_applied(
    catalog: Catalog, tables: Tables, row_filter: str
) -> None:
    found = of_grant(catalog, tables, GrantDraft("customers", ["read"], row_filter=row_filter))
    assert set(found) == {"row_filter"}


def test_a_grant_that_allows_nothing(catalog: Catalog, tables: Tables) -> None:
    assert set(of_grant(catalog, tables, GrantDraft("customers"))) == {"actions"}


def test_consumers_and_claims() -> None:
    good = Consumer("erp", True, frozenset({"bi"}), {"org": ("o1", "o2")}, "ERP")
    check_consumer(good, {"bi"})
    with pytest.raises(ValueInvalid) as raised:
        check_consumer(
            Consumer("ERP", True, frozenset({"no"}), {"Org": ("o",), "x": ("",)}, "a\0b"), {"bi"}
        )
    assert {v.field for v in raised.value.violations} == {
        "consumer_id",
        "title",
        "roles",
        "claims[Org]",
        "claims[x]",
    }
    check_claims({"org": ()})
    with pytest.raises(ValueInvalid):
        check_claims({"org": ("o" * 1025,)})
