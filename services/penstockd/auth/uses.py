"""When credentials were last used, and their digests under a new root secret: noted in memory,
written at intervals."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import structlog

from penstockd.auth.credentials import Credentials
from penstockd.errors import Refused
from penstockd.store.database import Database, WorkKind

#: The shortest interval between two writes of noted uses, in seconds.
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

# Not in hub.credential: that would be a change of the policy, which ends pages under way.
_RENEW = """
INSERT INTO hub.credential_digest AS d (credential_id, root_secret_id, digest)
SELECT r.credential_id, r.root_secret_id, r.digest
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS r (credential_id, root_secret_id, digest)
JOIN hub.credential USING (credential_id) ORDER BY 1
ON CONFLICT (credential_id) DO UPDATE
SET root_secret_id = excluded.root_secret_id, digest = excluded.digest
WHERE d.root_secret_id <> excluded.root_secret_id
"""

_log = structlog.get_logger(__name__)


class CredentialUses:
    """The credentials used in one process since it last wrote them.

    A killed process loses the uses that it has not written: those of at most INTERVAL.
    """

    def __init__(self, database: Database, credentials: Credentials) -> None:
        self._database, self._credentials = database, credentials
        self._noted: dict[str, float] = {}
        self._any = asyncio.Event()

    def note(self, credential_id: str) -> None:
        """Note that a credential was used now. A caller without a credential has an empty id."""
        if credential_id:
            self._noted[credential_id] = time.time()
            self._any.set()

    async def flush(self) -> None:
        """Write the noted uses, and the digests renewed by them. Raises DatabaseUnavailable; they
        stay noted then."""
        noted, self._noted = self._noted, {}
        renewed, self._credentials.renewed = self._credentials.renewed, {}
        self._any.clear()
        if not noted:
            return
        times = [datetime.fromtimestamp(t, UTC) for t in noted.values()]
        try:
            async with self._database.connection(WorkKind.OWN) as connection:
                await connection.execute(_WRITE, list(noted), times)
                if renewed:
                    digests = [(r.secret_id, r.digest) for r in renewed.values()]
                    await connection.execute(
                        _RENEW, list(renewed), *map(list, zip(*digests, strict=True))
                    )
        except BaseException:
            self._noted = noted | self._noted
            self._credentials.renewed = renewed | self._credentials.renewed
            self._any.set()
            raise

    async def close(self) -> None:
        """Write the noted uses if possible."""
        try:
            await self.flush()
        except Refused as exc:
            _log.warning("credential_uses_not_written", error=str(exc))

    async def follow(self, interval: float = INTERVAL) -> None:
        """Write uses as soon as they are noted, at most every ``interval`` seconds, until
        cancelled.

        Raises DatabaseUnavailable; run it again then.
        """
        while True:
            await self._any.wait()
            await self.flush()
            await asyncio.sleep(interval)
