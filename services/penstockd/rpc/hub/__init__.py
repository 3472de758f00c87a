"""The hub's own services, one module each."""

from __future__ import annotations

from collections.abc import Iterator

from penstockd.rpc.door import Route
from penstockd.rpc.hub import (
    access,
    audit,
    auth,
    caller,
    changes,
    consumers,
    datasets,
    errors,
    issuers,
    limits,
    monitoring,
    plans,
    policy,
    receipts,
    roles,
    scorecard,
    shapes,
    stream_tickets,
    subscriptions,
    usage,
    webhooks,
)

_SERVICES = (
    access,
    audit,
    auth,
    caller,
    changes,
    consumers,
    datasets,
    errors,
    issuers,
    limits,
    monitoring,
    plans,
    policy,
    receipts,
    roles,
    scorecard,
    shapes,
    stream_tickets,
    subscriptions,
    usage,
    webhooks,
)


def list_hub_routes() -> Iterator[Route]:
    """The routes of all these services."""
    for service in _SERVICES:
        yield from service.list_routes()
