"""GetCaller: what a program learns of its own consumer."""

from __future__ import annotations

from fake_organs import CALLER, NOBODY, HubLike
from penstockd.commands.get_caller import get_caller
from penstockd.policy.model import Permission


def test_a_caller_learns_its_permissions(hub: HubLike) -> None:
    consumer, permissions = get_caller(call := hub.call())
    assert (consumer.consumer_id, call.entry.row_count) == (CALLER, 1)
    assert permissions == sorted(p.value for p in Permission)
    assert get_caller(hub.call(caller=NOBODY))[1] == []


def test_scopes_narrow_them(hub: HubLike) -> None:
    scopes = frozenset({"plans.read", "customers:read"})
    assert get_caller(hub.call(scopes=scopes))[1] == ["plans.read"]
    assert get_caller(hub.call(caller=NOBODY, scopes=scopes))[1] == []
