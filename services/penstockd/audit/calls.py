"""Past calls, from the audit: what consumers asked of datasets, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from penstockd.policy.rehearsal import Calls
from penstockd.store.database import Connection

#: The prefix of the methods on datasets.
_DATASETS = "/penstock.api.v1."

_CALLS = """
SELECT consumer_id, dataset, split_part(method, '/', 3), coalesce(query ->> 'fields', ''),
    coalesce(query ->> 'filter', ''), coalesce(query ->> 'order_by', ''),
    coalesce(query ->> 'update_mask', ''), coalesce(query ->> 'allow_missing', '') = 'true',
    count(*), max(entry_time)
FROM hub.audit_entry
JOIN unnest($2::text[], $3::text[]) AS wanted (consumer_id, dataset) USING (consumer_id, dataset)
WHERE entry_time >= $1 AND phase = 'CALL' AND outcome = 'OK' AND starts_with(method, $4)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 LIMIT $5
"""


async def read_calls(
    connection: Connection, since: datetime, wanted: Mapping[str, Sequence[str]], limit: int
) -> list[Calls]:
    """The successful calls since a time, of consumers to their ``wanted`` datasets.

    Identical calls are counted together; at most ``limit`` groups.
    """
    pairs = [(consumer, dataset) for consumer, names in wanted.items() for dataset in names]
    rows = await connection.fetch(
        _CALLS, since, [c for c, _ in pairs], [d for _, d in pairs], _DATASETS, limit
    )
    return [Calls(*row) for row in rows]
