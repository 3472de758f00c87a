"""Every method of subscriptions refuses a caller that may read nothing, and tells it nothing
more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstockd.audit.entry import Entry
from penstockd.catalog.load import load_catalog
from penstockd.errors import PermissionDenied
from penstockd.policy.model import Principal
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.resources import find_descriptors
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub import subscriptions
from penstockd.store.tables import Tables

ROUTES = {route.method.name: route for route in subscriptions.list_routes()}
CATALOG = load_catalog(find_descriptors())


def call_of_nobody_much() -> ServedCall:
    """A caller without roles. The hub has only the catalog: code that uses more of it before it
    refuses the caller gets an AttributeError."""
    policy = PolicySnapshot(1, {}, {}, {}, {}, CATALOG, Tables(CATALOG), b"x")
    hub: Any = SimpleNamespace(catalog=CATALOG)
    exchange: Any = SimpleNamespace(hub=hub, metadata={})
    principal = Principal("c", "k", frozenset())
    return ServedCall(Entry("r", "/test"), policy, hub, principal, exchange=exchange)


async def refused(route: Route) -> bool:
    try:
        await route.handler(route.request(), call_of_nobody_much())
    except PermissionDenied as exc:
        return exc.message == "you may not read any dataset"
    return False


@pytest.mark.parametrize("name", ROUTES)
async def test_who_may_read_nothing_is_refused_before_all_else(name: str) -> None:
    assert await refused(ROUTES[name])


async def test_the_walk_finds_a_method_that_does_not_refuse() -> None:
    route = next(iter(ROUTES.values()))

    async def answers(request: Any, call: ServedCall) -> None:
        """A handler without a command."""

    assert not await refused(Route(route.method, answers, route.request))
