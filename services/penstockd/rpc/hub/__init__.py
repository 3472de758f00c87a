"""The hub's own services, one module each."""

from __future__ import annotations

from collections.abc import Iterator

from penstockd.rpc.door import Route
from penstockd.rpc.hub import auth, datasets

_SERVICES = (auth, datasets)


def routes() -> Iterator[Route]:
    """The routes of all of them."""
    for service in _SERVICES:
        yield from service.routes()
