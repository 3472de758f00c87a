"""How the tests are spread over the workers of pytest-xdist.

A file stays together, on one worker and in its order, and so do files that share what is dear to
start: each worker has session fixtures of its own. What takes long comes first, so that the workers
end at about the same time.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).parent
#: Lanes of several files, by the beginnings of their paths below tests.
SHARED = {
    "faults/own_hub": (
        "faults/test_acked_writes",
        "faults/test_effects",
        "faults/test_extreme_dates",
        "faults/test_failed_commits",
        "faults/test_feed_equation",
        "faults/test_feed_kills",
        "faults/test_kills",
        "faults/test_outage",
        "faults/test_poisoned_neighbours",
        "faults/test_pruning",
        "faults/test_race_at_the_door",
        "faults/test_repeated_calls",
        "faults/test_start_and_stop",
        "faults/test_subscription_faults",
        "faults/test_watch_restarts",
    ),
    "faults/roomy": ("faults/test_open_exports", "faults/test_resumed_exports"),
    "security/marked": (
        "security/test_hidden_values",
        "security/test_rows",
        "security/test_writes",
    ),
}
#: What takes longest, the longest first.
LONG = (
    "faults/own_hub",
    "security/test_twin_worlds",
    "faults/test_two_nodes",
    "faults/test_gone_back",
    "faults/test_two_nodes_failover",
    "unit/query/test_differential",
    "api/test_new_dataset",
    "unit/node/test_supervisor",
    "envoy/test_limits",
    "security/test_edge",
    "faults/roomy",
    "faults/test_stopped_readers",
    "unit/formats/test_columnar_files",
    "security/test_audit_questions",
)


def lane(nodeid: str) -> str:
    """The lane of a test."""
    path = nodeid.partition("::")[0].removeprefix("tests/").removesuffix(".py")
    return next((name for name, files in SHARED.items() if path in files), path)


def order(items: list[pytest.Item]) -> None:
    """Bring the tests of a lane together, and the long lanes to the front."""
    rank = {name: number for number, name in enumerate(LONG)}
    first: dict[str, int] = {}
    for number, item in enumerate(items):
        first.setdefault(lane(item.nodeid), number)
    items.sort(key=lambda i: (rank.get(lane(i.nodeid), len(LONG)), first[lane(i.nodeid)]))


class Lanes(LoadScopeScheduling):  # type: ignore[misc]  # xdist brings no types
    """Gives the next lane to the worker that is free first, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)
