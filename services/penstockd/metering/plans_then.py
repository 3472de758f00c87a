"""The plans that consumers had at revisions of the policy, as its history says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from penstockd.store.database import Connection

#: The most answers that are remembered.
_MAX_KNOWN = 10_000
_PLANS = """
SELECT r.revision, c.key, c.value ->> 'plan'
FROM hub.policy_revision AS r JOIN hub.policy_document AS d USING (digest)
CROSS JOIN LATERAL jsonb_each(d.document -> 'consumers') AS c
WHERE r.revision = ANY ($1) AND c.value ->> 'plan' <> ''
    AND (r.revision, c.key) IN (SELECT * FROM unnest($1::bigint[], $2::text[]))
"""


class PlansThen:
    """Tells the plan of a consumer at a revision. The history never changes, so that the answer for
    an entry is the same at any time."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], str] = OrderedDict()

    async def learn(self, connection: Connection, asked: Iterable[tuple[int, str]]) -> None:
        """Read the plans of consumers at revisions that are not known yet.

        Only those are read: a batch of entries may name thousands of revisions, and each has all
        consumers.
        """
        wanted = sorted(set(asked) - self._known.keys())
        if not wanted:
            return
        rows = await connection.fetch(_PLANS, *map(list, zip(*wanted, strict=True)))
        self._known.update(dict.fromkeys(wanted, ""))
        self._known.update({(row[0], row[1]): row[2] for row in rows})

    def forget(self) -> None:
        """Forget all answers but the latest that were learned."""
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)

    def find(self, revision: int, consumer_id: str) -> str:
        """The plan of a consumer at a revision that was learned; "" for none."""
        return self._known[revision, consumer_id]
