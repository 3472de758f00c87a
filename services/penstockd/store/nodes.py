"""Nodes that share a database announce their settings and the tasks they take, and report where
their settings differ.

The node that has run longest is the reference. A node that differs logs it. If the setting affects
work that one node does for all, it stands by and leaves that work to the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import orjson
import structlog

from penstockd.store.database import Connection, Database
from penstockd.store.own_session import OwnSession
from penstockd.store.singletons import Leases

#: Seconds of silence after which a node no longer counts, and seconds between its announcements.
#: LENGTH is less than a lease, so that nothing a dead node held is reserved for it.
LENGTH = 5.0
INTERVAL = 1.0

_ANNOUNCE = """
INSERT INTO hub.node AS n (node_id, host, settings, stands_by, takes, start_time, expire_time)
VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp() + $6)
ON CONFLICT (node_id) DO UPDATE SET host = $2, settings = $3, stands_by = $4, takes = $5,
    start_time = CASE WHEN n.expire_time > clock_timestamp() THEN n.start_time
                      ELSE excluded.start_time END,
    expire_time = excluded.expire_time
"""
_OLDEST = """
SELECT node_id, host, settings FROM hub.node WHERE expire_time > clock_timestamp()
ORDER BY start_time, node_id LIMIT 1
"""
_FORGET = "DELETE FROM hub.node WHERE expire_time < clock_timestamp() - interval '1 day'"
#: Whether a node stands by; no row if its keeper has not announced itself.
STANDS_BY = "SELECT stands_by FROM hub.node WHERE node_id = $1"
_LEAVE = "DELETE FROM hub.node WHERE node_id = $1"

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
    """Where two nodes differ. Settings that only one of the two versions knows are ignored."""
    return [
        Difference(name, here[name], there[name])
        for name in sorted(here.keys() & there.keys())
        if here[name] != there[name]
    ]


class Agreement:
    """One node's part: announces its settings, and stands by if a grave one differs.

    ``grave`` are the settings whose difference makes it stand by.
    """

    def __init__(
        self,
        database: Database,
        leases: Leases,
        settings: Mapping[str, str],
        grave: Collection[str],
    ) -> None:
        self._session, self._leases = OwnSession(database), leases
        self._settings, self._grave = settings, grave
        self._told: Sequence[Difference] = []
        self._stands_by = False

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
        """Sign off at an orderly stop, so that the others need not wait to notice. Raises
        DatabaseUnavailable."""
        try:
            await self._session.ask(lambda c: c.execute(_LEAVE, self._leases.node_id))
        finally:
            self.close()

    async def _exchange(self, connection: Connection) -> tuple[str, Mapping[str, str]]:
        leases = self._leases
        told = orjson.dumps(dict(self._settings)).decode()
        length = timedelta(seconds=LENGTH)
        await connection.execute(
            _ANNOUNCE, leases.node_id, leases.host, told, self._stands_by, leases.takes, length
        )
        await connection.execute(_FORGET)
        oldest = await connection.fetchrow(_OLDEST)
        assert oldest is not None, "this node has just spoken"
        return oldest[1], orjson.loads(oldest[2])

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
