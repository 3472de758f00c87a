"""Nodes that share a database announce their settings and the tasks they take, and report where
their settings differ.

The node that has run longest is the reference. A node that differs logs it. If the setting affects
work that one node does for all, the node stands by and leaves that work to the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson
import structlog

from penstockd.keyring import KeyRing
from penstockd.store.database import Connection, Database
from penstockd.store.own_session import OwnSession
from penstockd.store.singletons import Leases, is_alive

#: Seconds of silence after which a node no longer counts, and seconds between its announcements.
#: LENGTH is less than a lease, so that nothing a dead node held is reserved for it.
LENGTH = 5.0
INTERVAL = 1.0

_ANNOUNCE = """
INSERT INTO hub.node AS n
    (node_id, instance, host, settings, stands_by, takes, twin, root_secret_ids, start_time,
     expire_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($10, clock_timestamp()), clock_timestamp() + $9)
ON CONFLICT (node_id, instance) DO UPDATE SET
    host = $3, settings = $4, stands_by = $5, takes = $6, twin = $7,
    root_secret_ids = $8,
    start_time = CASE WHEN n.expire_time > clock_timestamp() THEN n.start_time
                      ELSE excluded.start_time END,
    expire_time = excluded.expire_time
"""
#: The live rows of other processes with the id of this node.
_NAMESAKES = """
SELECT instance, host, start_time, expire_time FROM hub.node
WHERE node_id = $1 AND instance <> $2 AND expire_time > clock_timestamp()
"""
_OLDEST = """
SELECT node_id, host, settings FROM hub.node WHERE expire_time > clock_timestamp()
ORDER BY start_time, node_id, instance LIMIT 1
"""
_FORGET = "DELETE FROM hub.node WHERE expire_time < clock_timestamp() - interval '1 day'"
#: Whether a node stands by, and the host of another node with its id, if any. NULL if its keeper is
#: not running.
NODE_STATE = """
SELECT bool_or(stands_by), max(twin) FROM hub.node
WHERE node_id = $1 AND expire_time > clock_timestamp()
"""
_LEAVE = "DELETE FROM hub.node WHERE node_id = $1 AND instance = $2"

_TWIN_ADVICE = "remove node-id from the copied data folder, and start that node again"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting whose value differs from that of the reference node."""

    setting: str
    here: str
    there: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"PENSTOCK_{self.setting.upper()}"


def compare_settings(here: Mapping[str, str], there: Mapping[str, str]) -> list[Difference]:
    """The differences between two nodes. Settings that only one of the two versions knows are
    ignored."""
    return [
        Difference(name, here[name], there[name])
        for name in sorted(here.keys() & there.keys())
        if here[name] != there[name]
    ]


class Agreement:
    """One node's part: announces its settings, and stands by if a grave one differs.

    ``grave`` are the settings whose difference makes it stand by. ``ring`` has the root secrets
    that the node knows.
    """

    def __init__(
        self,
        database: Database,
        leases: Leases,
        settings: Mapping[str, str],
        grave: Collection[str],
        ring: KeyRing,
    ) -> None:
        self._session, self._leases = OwnSession(database), leases
        self._settings, self._grave, self._ring = settings, grave, ring
        self._told: Sequence[Difference] = []
        self._stands_by = False
        # Other processes with the node's id: when their rows expired as first seen, by instance.
        self._seen: dict[str, datetime] = {}
        self._announced, self._twin = False, ""

    async def run(self) -> None:
        """Compare every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(INTERVAL)
        finally:
            self.close()

    async def step(self) -> Sequence[Difference]:
        """Announce the settings and tasks, and compare the settings; returns the differences."""
        host, there = await self._session.ask(self._exchange)
        differences = compare_settings(self._settings, there)
        self._stands_by = any(d.setting in self._grave for d in differences)
        await self._leases.stand_by(self._stands_by)
        if differences != self._told:
            self._tell(differences, host)
        self._told = differences
        return differences

    def close(self) -> None:
        """End the session with the database."""
        self._session.drop()

    async def leave(self) -> None:
        """Sign off at a normal stop, so that the others need not wait to notice. Raises
        DatabaseUnavailable."""
        try:
            await self._session.ask(lambda c: c.execute(_LEAVE, *self._leases.holder))
        finally:
            self.close()

    async def _exchange(self, connection: Connection) -> tuple[str, Mapping[str, str]]:
        leases = self._leases
        told = orjson.dumps(dict(self._settings)).decode()
        length = timedelta(seconds=LENGTH)
        since = await self._look_for_namesakes(connection)
        self._ring.look_again()
        secrets = list(self._ring.known)
        state = (self._stands_by, leases.takes, self._twin, secrets, length, since)
        await connection.execute(_ANNOUNCE, *leases.holder, leases.host, told, *state)
        self._announced = True
        await connection.execute(_FORGET)
        oldest = await connection.fetchrow(_OLDEST)
        assert oldest is not None, "this node has just spoken"
        return oldest[1], orjson.loads(oldest[2])

    async def _look_for_namesakes(self, connection: Connection) -> datetime | None:
        """Take over the rows of earlier processes of this node; at the first look, returns the time
        when the first of them began.

        A row that is being renewed belongs to a live process: another node has this node's id.
        """
        began = None
        node_id, instance = self._leases.holder
        rows = await connection.fetch(_NAMESAKES, node_id, instance)
        for other, _, start_time, _ in rows:
            if not self._announced and not await is_alive(other, connection):
                await connection.execute(_LEAVE, node_id, other)
                began = min(began or start_time, start_time)
        renewed = [row for row in rows if row[3] > self._seen.setdefault(row[0], row[3])]
        twin = renewed[0][1] if renewed else ""
        if twin and not self._twin:
            _log.error("node_id_shared", node_id=node_id, other_node=twin, advice=_TWIN_ADVICE)
        elif self._twin and not twin:
            _log.info("node_id_shared_no_longer", node_id=node_id)
        self._twin = twin
        return began

    def _tell(self, differences: Sequence[Difference], host: str) -> None:
        for each in differences:
            _log.error(
                "settings_differ",
                setting=each.variable,
                here=each.here,
                there=each.there,
                other_node=host,
                stands_by=each.setting in self._grave,
            )
        if not differences:
            _log.info("settings_agree")
