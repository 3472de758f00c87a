"""What limits leave out: methods that no quota counts, and services that nothing limits."""

from __future__ import annotations

#: No quota counts what tells of limits.
TELLING = "/penstock.hub.v1.Limits/GetLimits"
#: Nor what can raise them, for callers that may.
RAISING = frozenset(
    {"/penstock.hub.v1.Plans/UpdatePlan", "/penstock.hub.v1.Consumers/UpdateConsumer"}
)
#: The beginnings of the methods of services that are open to all: their calls have no consumer yet.
OPEN_SERVICES = ("/penstock.hub.v1.Auth/", "/penstock.hub.v1.Errors/")
#: Outcomes of calls that are not charged, since the hub is to blame.
HUB_TO_BLAME = frozenset(
    {"INTERNAL", "DATABASE_UNAVAILABLE", "HUB_UNAVAILABLE", "STORAGE_FULL", "SHARE_EXHAUSTED",
     "OUTCOME_UNKNOWN", "POLICY_STALE"}
)  # fmt: skip
#: How the names of methods begin that import records.
IMPORTING = ("Import", "BatchUpsert")
