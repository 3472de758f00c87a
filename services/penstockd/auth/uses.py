"""When credentials were last used: noted in memory, written at intervals."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from penstockd.notes import Notes
from penstockd.store.database import Database, WorkKind

# The credential may have been deleted meanwhile; another process may have seen it used later.
_WRITE = """
INSERT INTO hub.credential_use (credential_id, last_use_time)
SELECT u.credential_id, u.last_use_time
FROM unnest($1::text[], $2::timestamptz[]) AS u (credential_id, last_use_time)
JOIN hub.credential USING (credential_id) ORDER BY 1
ON CONFLICT (credential_id) DO UPDATE
SET last_use_time = greatest(hub.credential_use.last_use_time, excluded.last_use_time)
"""


class CredentialUses(Notes):
    """The credentials used in one process since it last wrote them."""

    lost = "credential_uses_not_written"

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._noted: dict[str, float] = {}

    def note(self, credential_id: str) -> None:
        """Note that a credential was used now. A caller without a credential has an empty id."""
        if credential_id:
            self._noted[credential_id] = time.time()
            self._note_any()

    async def _write(self) -> None:
        noted, self._noted = self._noted, {}
        if not noted:
            return
        times = [datetime.fromtimestamp(t, UTC) for t in noted.values()]
        try:
            async with self._database.connection(WorkKind.OWN) as connection:
                await connection.execute(_WRITE, list(noted), times)
        except BaseException:
            self._noted = noted | self._noted
            self._note_any()
            raise
