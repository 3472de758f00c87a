"""When credentials were last used: noted in memory, written once in a while."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import structlog

from penstockd.errors import Refused
from penstockd.store.database import Database, WorkKind

#: How often the uses that were noted are written at most, in seconds.
INTERVAL = 60.0

# The credential may have been deleted meanwhile; another process may have seen it used later.
_WRITE = """
INSERT INTO hub.credential_use (credential_id, last_use_time)
SELECT u.credential_id, u.last_use_time
FROM unnest($1::text[], $2::timestamptz[]) AS u (credential_id, last_use_time)
JOIN hub.credential USING (credential_id) ORDER BY 1
ON CONFLICT (credential_id) DO UPDATE
SET last_use_time = greatest(hub.credential_use.last_use_time, excluded.last_use_time)
"""

_log = structlog.get_logger(__name__)


class CredentialUses:
    """The credentials that one process has seen used since it last wrote them.

    What was noted and not yet written when a process is killed is lost: at most INTERVAL of it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[str, float] = {}
        self._any = asyncio.Event()

    def note(self, credential_id: str) -> None:
        """A credential was used now. An empty id is that of a caller without any here."""
        if credential_id:
            self._noted[credential_id] = time.time()
            self._any.set()

    async def flush(self) -> None:
        """Write what was noted. Raises DatabaseUnavailable; it stays noted then."""
        noted, self._noted = self._noted, {}
        self._any.clear()
        if not noted:
            return
        times = [datetime.fromtimestamp(t, UTC) for t in noted.values()]
        try:
            async with self._database.connection(WorkKind.OWN) as connection:
                await connection.execute(_WRITE, list(noted), times)
        except BaseException:
            self._noted = noted | self._noted
            self._any.set()
            raise

    async def close(self) -> None:
        """Write what was noted, if that can be done."""
        try:
            await self.flush()
        except Refused as exc:
            _log.warning("credential_uses_not_written", error=str(exc))

    async def follow(self, interval: float = INTERVAL) -> None:
        """Write what is noted at once, but not again for ``interval`` seconds; until cancelled.

        Raises DatabaseUnavailable; run it again then.
        """
        while True:
            await self._any.wait()
            await self.flush()
            await asyncio.sleep(interval)
