"""Records as they stood at a place in the log.

What a record was at number n is the before-image of its first change after n; if there is none, it
is what its table holds. Changes that are visible but have no number yet come after all numbers.
All questions about one place must be asked of one state of the data: in one transaction that sees
a single state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

from penstockd.catalog import Dataset
from penstockd.store.database import Connection
from penstockd.store.staging import Stager
from penstockd.store.tables import DATA_SCHEMA

#: A record's key and a number of the log.
Place = tuple[str, int]

_AFTER = """
SELECT w.key, w.number, x.before
FROM unnest($2::text[], $3::bigint[]) AS w (key, number)
CROSS JOIN LATERAL (
    SELECT c.before
    FROM hub.change AS c
    LEFT JOIN hub.log_transaction AS t ON t.txid = c.txid
    LEFT JOIN hub.pending AS p ON t.txid IS NULL AND p.txid = c.txid
    WHERE c.dataset = $1 AND c.key = w.key
    AND (t.first_number + c.ordinal > w.number OR p.txid IS NOT NULL)
    ORDER BY t.first_number + c.ordinal NULLS LAST, p.seq, c.ordinal
    LIMIT 1
) AS x
"""


async def states(
    connection: Connection, dataset: Dataset, places: Collection[Place]
) -> Mapping[Place, bytes | None]:
    """The serialised records, all fields in them, at the places; None where there was none."""
    if not places:
        return {}
    wanted = list(places)
    rows = await connection.fetch(
        _AFTER, dataset.name, [key for key, _ in wanted], [number for _, number in wanted]
    )
    found = {(row[0], row[1]): row[2] for row in rows}
    present = await current(connection, dataset, {p[0] for p in wanted if p not in found})
    return {p: found[p] if p in found else present.get(p[0]) for p in wanted}


async def current(
    connection: Connection, dataset: Dataset, keys: Collection[str]
) -> Mapping[str, bytes]:
    """The serialised records that the dataset's table holds."""
    if not keys:
        return {}
    rows = await connection.fetch(_current(dataset), list(keys))
    if not rows:
        return {}
    return dict(zip([r[0] for r in rows], Stager.of(dataset).images(rows), strict=True))


async def referring(
    connection: Connection, dataset: Dataset, field: str, targets: Sequence[str]
) -> Sequence[str]:
    """Keys of all records of which ``field`` holds one of ``targets``, now or at any place that the
    log still has; ascending."""
    name = f'{DATA_SCHEMA}."{dataset.name}"'
    rows = await connection.fetch(
        f'SELECT "{dataset.key.path}" FROM {name} WHERE "{field}" = ANY ($1::text[])'
        " UNION SELECT key FROM hub.lost_reference"
        " WHERE dataset = $2 AND field = $3 AND target = ANY ($1::text[]) ORDER BY 1",
        list(targets),
        dataset.name,
        field,
    )
    return [row[0] for row in rows]


@cache
def _current(dataset: Dataset) -> str:
    columns = ", ".join(f'"{f.path}"' for f in (dataset.key, *dataset.fields))
    name = f'{DATA_SCHEMA}."{dataset.name}"'
    return f'SELECT {columns} FROM {name} WHERE "{dataset.key.path}" = ANY ($1::text[])'
