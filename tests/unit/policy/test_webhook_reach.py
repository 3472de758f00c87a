"""The webhooks that a caller may use: those whose data its token could read, by scopes and
claims."""

from __future__ import annotations

from typing import Any

import pytest

from penstockd.catalog import Catalog, FieldClass
from penstockd.policy.model import Action, Consumer, Grant, Mask, Permission, Principal, Role
from penstockd.policy.scopes import find_excess
from penstockd.shapes.lens import ShapedLens
from penstockd.shapes.model import ShapeColumn, ShapeDefinition
from penstockd.shapes.using import ChosenShape
from penstockd.webhooks.model import Body, Options, Selection, Webhook, WebhookKind
from penstockd.webhooks.owners import Owners, lens_of, owner_of, unread_by

from .conftest import MakePolicy

CLEAR = dict.fromkeys(FieldClass, Mask.CLEAR)


def grant(dataset: str, *actions: str, rows: str = "") -> Grant:
    return Grant("r", dataset, frozenset(map(Action, actions)), CLEAR, {}, rows)


def role(*grants: Grant) -> Role:
    return Role("r", "", grants, frozenset({Permission.WEBHOOKS_WRITE}))


def webhook(*datasets: str, **values: Any) -> Webhook:
    return Webhook("w", "c", WebhookKind.HTTP, tuple(Selection(d) for d in datasets), **values)


def caller(scopes: str | None = None, name: str = "c", **claims: str) -> Principal:
    found = None if scopes is None else frozenset(scopes.split())
    given = {n: (v,) for n, v in claims.items()}
    return Principal(name, "k", frozenset({"r"}), given, found)


@pytest.mark.parametrize(
    ("made_with", "asked_with", "unread"),
    [
        (None, None, ""),
        (None, "webhooks.write", "customers"),
        (None, "webhooks.write customers:read", "orders"),
        (None, "webhooks.write *:read", ""),
        (None, "webhooks.write customers:update orders:update", "customers"),
        ("customers:read", None, ""),
        ("customers:read", "customers:read", ""),
        ("customers:read", "orders:read", "customers"),
        # It never delivers data outside the scopes that it was created with.
        ("customers:read", "webhooks.write customers:*", ""),
        ("webhooks.write", "webhooks.write", ""),
        ("", "", ""),
    ],
)
def test_scopes(
    catalog: Catalog,
    policy: MakePolicy,
    made_with: str | None,
    asked_with: str | None,
    unread: str,
) -> None:
    snapshot = policy(role(grant("customers", "read"), grant("orders", "read")), c=["r"])
    scopes = None if made_with is None else frozenset(made_with.split())
    found = webhook("customers", "orders", scopes=scopes)
    assert unread_by(snapshot, catalog, caller(asked_with), found) == unread
    other = caller(asked_with, name="admin")
    assert unread_by(snapshot, catalog, other, found) == unread, "scopes bind administrators, too"


def test_roles_of_now_do_not_open_what_scopes_close(catalog: Catalog, policy: MakePolicy) -> None:
    """The owner may not read it at present. It may later, and then the webhook delivers it."""
    snapshot = policy(role(), c=["r"])
    assert unread_by(snapshot, catalog, caller("webhooks.write"), webhook("customers"))


ROWS = "status = claims.state"


@pytest.mark.parametrize(
    ("own", "made_with", "asked_with", "unread"),
    [
        ({}, {}, {}, ""),
        # A token of another issuer has a claim that narrows it.
        ({"state": "LEAD"}, {}, {"state": "ACTIVE"}, "customers"),
        ({"state": "LEAD"}, {"state": "ACTIVE"}, {"state": "ACTIVE"}, ""),
        ({"state": "LEAD"}, {"state": "ACTIVE"}, {"state": "LEAD"}, "customers"),
        # A claim that no rule uses narrows nothing.
        ({"state": "LEAD"}, {}, {"state": "LEAD", "other": "x"}, ""),
    ],
)
def test_claims(
    catalog: Catalog,
    policy: MakePolicy,
    own: dict[str, str],
    made_with: dict[str, str],
    asked_with: dict[str, str],
    unread: str,
) -> None:
    claims = {n: (v,) for n, v in own.items()}
    consumer = Consumer("c", True, frozenset({"r"}), claims)
    snapshot = policy(role(grant("customers", "read", rows=ROWS)), c=consumer)
    found = webhook("customers", claims={n: (v,) for n, v in made_with.items()})
    assert unread_by(snapshot, catalog, caller(**asked_with), found) == unread
    owner = owner_of(snapshot, found)
    assert owner is not None
    told = lens_of(snapshot, catalog, owner, found.selections[0])
    expected = caller(**{**own, **made_with})
    assert told.view_id == lens_of(snapshot, catalog, expected, found.selections[0]).view_id


@pytest.mark.parametrize(
    ("scopes", "found"),
    [
        (None, ""),
        ("", "access.write"),
        ("access.write", "customers:create"),
        ("access.write customers:create", "customers:read"),
        ("access.write customers:*", ""),
        ("access.write *:*", ""),
        ("customers:*", "access.write"),
    ],
)
def test_what_a_token_may_give(scopes: str | None, found: str) -> None:
    given = Role(
        "r", "", (grant("customers", "read", "create"),), frozenset({Permission.ACCESS_WRITE})
    )
    narrowed = None if scopes is None else frozenset(scopes.split())
    assert find_excess(narrowed, [given]) == found


def test_events_of_a_shape_that_does_not_fit_wait(catalog: Catalog, policy: MakePolicy) -> None:
    """Events are queued through a lens without the shape; nothing is sent through that lens."""

    def shaped(field: str, filter: str = "", body: Body = Body.JSON) -> Webhook:
        definition = ShapeDefinition("customers", [ShapeColumn("Company name", field=field)])
        chosen = ChosenShape("c", "s", 1, definition.document().decode())
        selection = Selection("customers", filter=filter, shape="s", chosen=chosen)
        return Webhook("w", "c", WebhookKind.HTTP, (selection,), Options(body=body))

    snapshot = policy(role(grant("customers", "read")), c=["r"])
    owners = Owners(catalog)
    fits = shaped("name")
    assert isinstance(owners.sights(snapshot, fits)["customers"], ShapedLens)
    assert owners.find_unfit(snapshot, fits) == ""
    for found, reason in (
        (shaped("nothing"), "unknown field 'nothing'"),
        (shaped("name", body=Body.XML), "not valid in XML"),
    ):
        assert owners.sights(snapshot, found) == {}
        assert reason in owners.find_unfit(snapshot, found)
        assert not isinstance(owners.queued_sights(snapshot, found)["customers"], ShapedLens)
    neither = shaped("nothing", filter="nothing = 1")
    assert owners.queued_sights(snapshot, neither) == {}
    assert "unknown field 'nothing'" in owners.find_unfit(snapshot, neither)
