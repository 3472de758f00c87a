"""The days of the audit that were archived and dropped, as the database lists them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.store.database import Connection

_COLUMNS = "checkpoint, day, entries, last_hash, file, size, node_id, host, folder, archive_time"
#: The most places that a reply names; a sensible installation has fewer.
_MAX_PLACES = 20
_OVERLAP = """
SELECT min(day) AS first_day, max(day) AS last_day FROM hub.audit_archive
WHERE day BETWEEN $1 AND $2
"""
_PLACES = f"""
SELECT DISTINCT host, folder FROM hub.audit_archive WHERE day BETWEEN $1 AND $2
ORDER BY host, folder LIMIT {_MAX_PLACES}
"""


@dataclass(frozen=True, slots=True)
class StoredArchive:
    """An archived chain. ``checkpoint`` is the number of the checkpoint that states the drop,
    ``size`` the bytes of the file, ``folder`` its folder on the node that wrote it."""

    checkpoint: int
    day: dt.date
    entries: int
    last_hash: bytes
    file: str
    size: int
    node_id: str
    host: str
    folder: str
    archive_time: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class ArchivedDays:
    """The requested days that the database has dropped.

    ``places`` are the folders of their archives, as "host:folder".
    """

    first: dt.date
    last: dt.date
    places: Sequence[str]

    def document(self) -> dict[str, Any]:
        """The days as a document in JSON."""
        return {
            "first_day": self.first.isoformat(),
            "last_day": self.last.isoformat(),
            "places": list(self.places),
        }


async def find_archived(
    connection: Connection, first: dt.date, last: dt.date
) -> ArchivedDays | None:
    """The dropped days from one day to another; None if there are none."""
    row = await connection.fetchrow(_OVERLAP, first, last)
    if row is None or row["first_day"] is None:
        return None
    places = await connection.fetch(_PLACES, first, last)
    named = [f"{place['host']}:{place['folder']}" for place in places]
    return ArchivedDays(row["first_day"], row["last_day"], named)


async def read_archives(connection: Connection) -> list[StoredArchive]:
    """All archives, in the order in which they were dropped."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM hub.audit_archive ORDER BY checkpoint")
    return [StoredArchive(*row) for row in rows]


async def insert_archive(connection: Connection, archive: StoredArchive) -> None:
    """Store the row of an archive."""
    await connection.execute(
        "INSERT INTO hub.audit_archive"
        " (checkpoint, day, entries, last_hash, file, size, node_id, host, folder)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        archive.checkpoint,
        archive.day,
        archive.entries,
        archive.last_hash,
        archive.file,
        archive.size,
        archive.node_id,
        archive.host,
        archive.folder,
    )
