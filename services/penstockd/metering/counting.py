"""What one audit entry counts as usage, in SQL: the only definition, for the fold and its proof.

A call counts where it begins, by its CALL entry. The records and bytes of a stream count where it
ends, by its END entry, which also counts an error if the stream ended with one. PART entries name
records that other entries count.
"""

from __future__ import annotations

from typing import NamedTuple

from penstockd.audit.entry import COUNTED_METHODS, Phase

#: The prefix of the methods of datasets.
DATASET_METHODS = "/penstock.api.v1."
#: Outcomes that are no errors: the caller itself leaves a cancelled call.
FAULTLESS = ("OK", "CANCELLED")


class UsageCounts(NamedTuple):
    """Numbers of calls, errors, records and bytes."""

    calls: int
    errors: int
    records: int
    bytes: int

    def plus(self, other: UsageCounts) -> UsageCounts:
        """The sums."""
        return UsageCounts(*(mine + more for mine, more in zip(self, other, strict=True)))

    def minus(self, other: UsageCounts) -> UsageCounts:
        """The differences."""
        return UsageCounts(*(mine - less for mine, less in zip(self, other, strict=True)))


NOTHING = UsageCounts(0, 0, 0, 0)


def _quote_texts(texts: tuple[str, ...]) -> str:
    return ", ".join(f"'{text}'" for text in texts)


_CALLS = (
    f"CASE WHEN e.phase <> '{Phase.CALL}' THEN 0"
    f" WHEN e.method IN ({_quote_texts(COUNTED_METHODS)})"
    " THEN coalesce((e.query ->> 'calls')::bigint, 1) ELSE 1 END"
)
_ERRORS = (
    f"CASE WHEN e.outcome IN ({_quote_texts(FAULTLESS)}) THEN 0"
    f" WHEN e.phase = '{Phase.END}' THEN 1 ELSE {_CALLS} END"
)
#: Whether the numbers of an entry are what left the hub, or was written.
GIVEN = f"e.phase = '{Phase.END}' OR e.phase = '{Phase.CALL}' AND e.outcome = 'OK'"
#: The numbers of entries ``e`` together, as in ``UsageCounts``.
SUMS = f"""
sum({_CALLS})::bigint, sum({_ERRORS})::bigint,
coalesce(sum(e.row_count) FILTER (WHERE {GIVEN}), 0)::bigint,
coalesce(sum(e.byte_count) FILTER (WHERE {GIVEN}), 0)::bigint
"""
#: The minute of an entry ``e``, within the day of its chain: the database's clock may pass
#: midnight, or be set, between the two columns.
MINUTE = """
date_trunc('minute', greatest(least(e.entry_time, (e.day + 1)::timestamp AT TIME ZONE 'UTC'
    - interval '1 microsecond'), e.day::timestamp AT TIME ZONE 'UTC'), 'UTC')
"""
#: The columns of an entry ``e`` from which its series follows; see ``series``. A dataset counts
#: where the method or a View vouches for it: otherwise callers could make any number of names up.
#: The revision tells the plan; 0 stands for entries that were counted before plans were.
TRAITS = f"""
coalesce(e.consumer_id, ''), coalesce(e.credential_id, ''), e.method, coalesce(e.surface, ''),
CASE WHEN e.shown IS NOT NULL OR starts_with(e.method, '{DATASET_METHODS}')
    THEN coalesce(e.dataset, '') ELSE '' END,
e.outcome,
CASE WHEN e.entry_id > (SELECT after_entry FROM hub.usage_plans) THEN e.policy_revision ELSE 0 END,
e.shown
"""
#: How many columns these are.
TRAIT_COUNT = 8
