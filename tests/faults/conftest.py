"""The hubs that the experiments share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lanes
from faults.exporting import multiply
from harness import RunningHub, folder

#: The hubs that the tests of a lane share, by lane.
SHARED: dict[str, RunningHub] = {}


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the hub of a lane after its last test: an idle hub takes time from other tests."""
    lane = lanes.lane(item.nodeid)
    over = nextitem is None or lanes.lane(nextitem.nodeid) != lane
    # Only workers of xdist run the tests of a lane one after the other.
    if over and lane in SHARED and hasattr(item.config, "workerinput"):
        SHARED[lane].stop()


@pytest.fixture(scope="session")
def breakable() -> Iterator[RunningHub]:
    """The one hub for all experiments; see ``own_hub``."""
    with folder() as data:
        hub = SHARED["faults/own_hub"] = RunningHub(data / "hub", customers=20)
        try:
            yield hub
        finally:
            hub.stop()


@pytest.fixture(scope="session")
def large() -> Iterator[RunningHub]:
    """The one hub for all experiments with large exports; see ``roomy``."""
    with folder() as data:
        # By default a worker runs four exports of a consumer at once; these tests need more than
        # twenty.
        many = {"PENSTOCK_WORKERS": "3", "PENSTOCK_CONNECTIONS": "96"}
        hub = RunningHub(data / "hub", customers=300, environment=many)
        SHARED["faults/roomy"] = hub
        try:
            hub.start()
            multiply(hub, 60)
            yield hub
        finally:
            hub.stop()


@pytest.fixture
def roomy(large: RunningHub) -> RunningHub:
    """A hub with some megabytes of customers. Tests may kill its workers, but nothing else."""
    large.mend()
    return large


@pytest.fixture
def own_hub(breakable: RunningHub) -> RunningHub:
    """A hub that runs and is whole. A test may break it or leave it stopped, and cannot rely on
    particular data."""
    breakable.mend()
    return breakable
