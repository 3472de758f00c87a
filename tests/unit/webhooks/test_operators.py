"""Operators are told once when a disk runs low, and never twice."""

from __future__ import annotations

import json
from pathlib import Path

from announcing import FakeAnnouncements
from penstockd.webhooks.operators import DISK_ENOUGH, DISK_LOW, DiskWatch
from webhook_rig import Receiver, Rig

RESERVE = 1000


class Disk:
    """A disk with as much room as the test says."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.free = 10 * RESERVE
        self._rig, self._folder = rig, folder
        self.watch = self.watched()

    def watched(self) -> DiskWatch:
        """Another run of the node."""
        return DiskWatch(
            self._rig.database,
            self._rig.policy,
            FakeAnnouncements(),
            self._folder,
            RESERVE,
            {"nodeId": "n1", "host": "host"},
            self._rig.clock,
            lambda folder: self.free,
        )

    async def has(self, free: int) -> None:
        """Set the free room of the disk, and let the node look twice."""
        self.free = free
        await self.watch.look()
        await self.watch.look()
        await self._rig.deliver()


async def test_low_disk_is_told_once_to_those_who_may_change_access(
    rig: Rig, receiver: Receiver, tmp_path: Path
) -> None:
    await rig.endpoint(receiver.url + "/operator", notices=True, consumer="admin")
    await rig.endpoint(receiver.url + "/crm", notices=True, consumer="crm")
    await rig.endpoint(receiver.url + "/silent", consumer="admin")
    disk = Disk(rig, tmp_path)

    def told() -> list[str]:
        return [json.loads(r.body)["type"] for r in receiver.of("/operator")]

    await disk.has(RESERVE)
    assert told() == []
    await disk.has(RESERVE - 1)
    assert told() == [DISK_LOW]
    disk.watch = disk.watched()
    await disk.has(RESERVE + 1)
    assert told() == [DISK_LOW]
    await disk.has(2 * RESERVE)
    assert told() == [DISK_LOW, DISK_ENOUGH]
    data = json.loads(receiver.of("/operator")[0].body)["data"]
    assert (data["nodeId"], data["freeBytes"]) == ("n1", str(RESERVE - 1))
    assert not receiver.of("/crm") and not receiver.of("/silent")
    rows = await rig.rows("SELECT DISTINCT consumer_id FROM hub.webhook_notice")
    assert [row[0] for row in rows] == ["admin"]
