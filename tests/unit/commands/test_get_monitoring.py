"""GetMonitoring: who is told how the node is."""

from __future__ import annotations

from typing import Any

import pytest

from fake_organs import NOBODY, HubLike
from penstockd.commands.get_monitoring import get_monitoring
from penstockd.errors import PermissionDenied


async def test_get_monitoring_is_for_who_may_monitor(hub: HubLike) -> None:
    asked: list[Any] = []

    class Monitor:
        async def read(self) -> Any:
            asked.append("read")
            return "readings"

    hub.monitor = Monitor()
    found: Any = await get_monitoring(hub, call := hub.call())
    assert (found, call.entry.row_count) == ("readings", 1)
    for refused in (hub.call(caller=NOBODY), hub.call(scopes=frozenset({"usage.read"}))):
        with pytest.raises(PermissionDenied, match=r"monitoring\.read"):
            await get_monitoring(hub, refused)
    assert asked == ["read"]
