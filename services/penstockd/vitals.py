"""What a process reads for its metrics, besides what its calls count."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import structlog

from penstockd.errors import Refused
from penstockd.hub import Hub
from penstockd.node.certificates import Certificates
from penstockd.node.errors import CertificateUnusable
from penstockd.observe import RareLine
from penstockd.observe.gauges import GaugeReadings, Readings
from penstockd.organs import Organs
from penstockd.store.database import Database
from penstockd.store.own_session import OwnSession
from penstockd.store.vitals import FIGURES, check_answer, prepare_reading

#: Seconds between two looks of a keeper at the database.
INTERVAL = 5.0

_missing = RareLine(structlog.get_logger(__name__), "figures_missing", seconds=60.0)


def read_organs(organs: Organs) -> Readings:
    """Whether each organ of a process fails."""
    failing = organs.failing
    return {("penstock_organ_failing", (n,)): float(n in failing) for n in organs.names}


class WorkerReadings(GaugeReadings):
    """The gauges of a worker."""

    def __init__(self, hub: Hub, organs: Organs) -> None:
        super().__init__(lambda: _read_worker(hub) | read_organs(organs))


def _read_worker(hub: Hub) -> Readings:
    # A copy, made at once: calls change the counts while the thread of a scrape adds them.
    held = [*hub.streams.held.values()]
    found: Readings = {("penstock_streams_open", ()): float(sum(held))}
    for lane, (used, size) in hub.database.usage.items():
        found[("penstock_pool_connections_in_use", (lane,))] = float(used)
        found[("penstock_pool_connections", (lane,))] = float(size)
    return found


class KeeperReadings(GaugeReadings):
    """The gauges of a keeper: the database as it last saw it, the disk and the certificate.

    ``reserve`` is the number of bytes that should be free on the disk of ``folder``, and
    ``key_seconds`` the age at which the key of tokens is replaced.
    """

    def __init__(
        self,
        database: Database,
        folder: Path,
        reserve: int,
        key_seconds: float,
        certificates: Certificates | None,
    ) -> None:
        super().__init__(self._read)
        self._session = OwnSession(database, prepare_reading)
        self._folder, self._reserve = folder, reserve
        self._key_seconds, self._certificates = key_seconds, certificates
        self._seen: Readings = {}
        self._organs: Organs | None = None

    def watch_organs(self, organs: Organs) -> None:
        """Tell from now on whether each of these organs fails."""
        self._organs = organs

    async def follow(self) -> None:
        """Look at the database every INTERVAL until cancelled."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(INTERVAL)
        finally:
            self._session.drop()

    async def look(self) -> None:
        """Read all figures; one that fails or is slow is left out."""
        found: Readings = {("penstock_database_answers", ()): 0.0}
        try:
            found |= await self._session.ask(check_answer)
        except Refused:
            self._seen = found
            return
        for read in FIGURES:
            try:
                found |= await self._session.ask(read)
            except Exception as error:  # the others must still be told
                _missing.warn(error=repr(error), cause=repr(error.__cause__))
        self._seen = found

    def _read(self) -> Readings:
        found = dict(self._seen)
        with contextlib.suppress(OSError):  # without the folder the figure is absent
            found[("penstock_disk_free_bytes", ())] = float(shutil.disk_usage(self._folder).free)
        found[("penstock_disk_reserve_bytes", ())] = float(self._reserve)
        found[("penstock_signing_key_max_age_seconds", ())] = self._key_seconds
        if self._certificates is not None:
            left = _find_seconds_left(self._certificates)
            found[("penstock_certificate_expiry_seconds", ())] = left
        return found | (read_organs(self._organs) if self._organs is not None else {})


def _find_seconds_left(certificates: Certificates) -> float:
    """Seconds until the certificate expires; 0 for one that cannot be used."""
    try:
        return (certificates.check() - datetime.now(UTC)).total_seconds()
    except CertificateUnusable:
        return 0.0
