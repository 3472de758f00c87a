"""Finds the datasets whose images in the change log may hold fields that the model no longer has.

Nobody can decide who may see such a field, so the hub never sends such images as they are stored.
"""

from __future__ import annotations

from penstockd.catalog import Catalog
from penstockd.catalog.comparison import ShapeComparison, match_fields
from penstockd.catalog.manifest import Manifest, StoredDataset, parse_manifest, write_manifest
from penstockd.store.database import Connection

#: The earlier models that were still in use when the oldest kept change was written.
_EARLIER = """
WITH model AS (SELECT id, manifest, lead(applied_at) OVER (ORDER BY id) AS replaced FROM hub.model)
SELECT manifest::text FROM model WHERE replaced >= (SELECT min(time) FROM (
    SELECT write_time AS time FROM hub.log_transaction
    UNION ALL SELECT write_time FROM hub.pending) AS kept) ORDER BY id
"""


async def find_former_fields(connection: Connection, catalog: Catalog) -> frozenset[str]:
    """The names of datasets that have lost fields. Raises DatabaseUnavailable."""
    earlier = [parse_manifest(row[0]) for row in await connection.fetch(_EARLIER)]
    if not earlier:
        return frozenset()
    now = write_manifest(catalog)
    return frozenset(
        name for name in now.datasets for then in earlier if _has_lost_fields(name, then, now)
    )


def _has_lost_fields(dataset: str, then: Manifest, now: Manifest) -> bool:
    """Whether a dataset had fields, or members of messages, in an earlier model that it lacks
    now."""
    stored = then.datasets.get(dataset, StoredDataset(()))
    matches = match_fields(stored.fields, now.datasets[dataset].fields)
    shapes = ShapeComparison(then.messages, now.messages)
    return bool(matches.removed) or any(
        shapes.lost_members(old.shape, new.shape) for old, new in matches.kept
    )
