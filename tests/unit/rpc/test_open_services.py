"""Rehearsals leave out the services whose calls no limit asks for."""

from __future__ import annotations

from penstockd.metering.exempt import OPEN_SERVICES, RAISING, TELLING
from penstockd.rpc.hub import list_hub_routes


def test_open_services_are_those_of_the_door() -> None:
    routes = list(list_hub_routes())
    public = {r.method.path for r in routes if r.method.public}
    assert public == {r.method.path for r in routes if r.method.path.startswith(OPEN_SERVICES)}
    assert {path.rpartition("/")[0] + "/" for path in public} == set(OPEN_SERVICES)
    assert {TELLING, *RAISING} <= {r.method.path for r in routes}
