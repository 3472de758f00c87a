"""The plans that consumers had at revisions of the policy, as its history says."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from penstockd.store.database import Connection

#: The most revisions whose plans are remembered.
_MAX_REVISIONS = 20
_PLANS = """
SELECT r.revision, c.key, c.value ->> 'plan'
FROM hub.policy_revision AS r JOIN hub.policy_document AS d USING (digest)
CROSS JOIN LATERAL jsonb_each(d.document -> 'consumers') AS c
WHERE r.revision = ANY ($1) AND c.value ->> 'plan' <> ''
"""


class PlansThen:
    """Tells the plan of a consumer at a revision. The history never changes, so that the answer for
    an entry is the same at any time."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, dict[str, str]] = OrderedDict()

    async def learn(self, connection: Connection, revisions: Iterable[int]) -> None:
        """Read revisions that are not known yet."""
        wanted = set(revisions) - self._known.keys()
        if not wanted:
            return
        self._known.update({revision: {} for revision in sorted(wanted)})
        for revision, consumer_id, plan in await connection.fetch(_PLANS, list(wanted)):
            self._known[revision][consumer_id] = plan

    def forget(self) -> None:
        """Forget all revisions but the latest that were learned."""
        while len(self._known) > _MAX_REVISIONS:
            self._known.popitem(last=False)

    def find(self, revision: int, consumer_id: str) -> str:
        """The plan of a consumer at a revision that was learned; "" for none."""
        plans: Mapping[str, str] = self._known[revision]
        return plans.get(consumer_id, "")
