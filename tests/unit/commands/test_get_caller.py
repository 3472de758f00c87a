"""GetCaller: what a program learns of its own consumer."""

from __future__ import annotations

from fake_organs import NOBODY, HubLike
from penstockd.commands.get_caller import get_caller
from penstockd.policy.model import Permission


def test_get_caller_tells_its_permissions(hub: HubLike) -> None:
    assert get_caller(call := hub.call()) == sorted(p.value for p in Permission)
    assert call.entry.row_count == 1
    assert get_caller(hub.call(caller=NOBODY)) == []


def test_scopes_narrow_them(hub: HubLike) -> None:
    scopes = frozenset({"plans.read", "customers:read"})
    assert get_caller(hub.call(scopes=scopes)) == ["plans.read"]
    assert get_caller(hub.call(caller=NOBODY, scopes=scopes)) == []
