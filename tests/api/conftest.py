"""Shared by the tests of the API, in addition to the hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import RunningHub, folder
from workshops import MODELS, Workshop


@pytest.fixture
def unchanged(hub: RunningHub) -> Iterator[None]:
    """Check that the test changes no record and logs no change."""

    def state() -> tuple[int, int]:
        return hub.sql("SELECT count(*) FROM data.customers")[0][0], hub.head()

    before = state()
    yield
    assert state() == before


@pytest.fixture(scope="session")
def spare() -> Iterator[RunningHub]:
    """A hub whose records tests may change freely. Do not stop or break it."""
    with folder() as data:
        running = RunningHub(data / "hub", customers=400)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def modelled() -> Iterator[Workshop]:
    """A hub with the datasets of the demo and of tests/models. All tests that use it run in one
    lane."""
    with folder() as tree, folder() as data:
        made = Workshop(tree / "model", data / "hub")
        try:
            made.generate({path.stem: path.read_text() for path in MODELS.iterdir()})
            made.hub.start()
            yield made
        finally:
            made.hub.stop()
