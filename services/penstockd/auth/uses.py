"""When credentials were last used, and their digests under a new root secret: noted in memory,
written at intervals."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from penstockd.auth.credentials import Credentials
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

# Not in hub.credential: that would be a change of the policy, which ends pages under way.
# A digest renewed from one under a secret that is retired since is dropped: the credential is
# refused. A retirement locks hub.credential_digest, so this statement sees all of it or comes
# before it.
_RENEW = """
INSERT INTO hub.credential_digest AS d (credential_id, root_secret_id, digest)
SELECT r.credential_id, r.root_secret_id, r.digest
FROM unnest($1::text[], $2::text[], $3::bytea[]) AS r (credential_id, root_secret_id, digest)
JOIN hub.credential AS c USING (credential_id)
LEFT JOIN hub.credential_digest AS e USING (credential_id)
WHERE NOT EXISTS (
    SELECT FROM hub.root_secret AS s
    WHERE s.retire_time IS NOT NULL
      AND s.root_secret_id IN (r.root_secret_id, coalesce(
          e.root_secret_id, nullif(c.root_secret_id, ''),
          (SELECT root_secret_id FROM hub.root_secret ORDER BY seal_time, root_secret_id LIMIT 1))))
ORDER BY 1
ON CONFLICT (credential_id) DO UPDATE
SET root_secret_id = excluded.root_secret_id, digest = excluded.digest
WHERE d.root_secret_id <> excluded.root_secret_id
"""


class CredentialUses(Notes):
    """The credentials used in one process since it last wrote them."""

    lost = "credential_uses_not_written"

    def __init__(self, database: Database, credentials: Credentials) -> None:
        super().__init__()
        self._database, self._credentials = database, credentials
        self._noted: dict[str, float] = {}

    def note(self, credential_id: str) -> None:
        """Note that a credential was used now. A caller without a credential has an empty id."""
        if credential_id:
            self._noted[credential_id] = time.time()
            self._note_any()

    async def _write(self) -> None:
        noted, self._noted = self._noted, {}
        renewed, self._credentials.renewed = self._credentials.renewed, {}
        if not noted and not renewed:
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
            self._note_any()
            raise
