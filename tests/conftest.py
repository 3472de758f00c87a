"""One hub for all tests that only call it; tests that break a hub start their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import lanes
from chance import DRAWN
from harness import RunningHub, folder

# Hypothesis gets no time limits: a busy machine must not fail a test.
settings.register_profile(
    "tests",
    derandomize=not DRAWN,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("tests")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name files by their size: their bytes may contain the time of writing, and all xdist workers
    must use the same names."""
    return f"{argname} of {len(val)}" if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All workers collect in the same order, which is the order of distribution."""
    if hasattr(config, "workerinput"):
        lanes.order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> lanes.Lanes:
    """Whole files, and those that share a hub, go to one worker."""
    config.option.loadscopereorder = False
    return lanes.Lanes(config, log)


@pytest.fixture(scope="session")
def hub() -> Iterator[RunningHub]:
    """A hub with the demo company of 300 customers. Do not stop or break it."""
    with folder() as data:
        # Tests serve the key sets of other issuers; hundreds of bad tokens are no flood here.
        environment = {"PENSTOCK_LOOPBACK_ISSUERS": "true", "PENSTOCK_RATE_LIMIT": "100000"}
        running = RunningHub(data / "hub", environment=environment)
        running.start()
        try:
            yield running
        finally:
            running.stop()
