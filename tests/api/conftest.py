"""What the tests of the API share beside the hub."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import RunningHub


@pytest.fixture
def unchanged(hub: RunningHub) -> Iterator[None]:
    """Nothing is loaded and nothing logged by what the test does."""

    def state() -> tuple[int, int]:
        return hub.sql("SELECT count(*) FROM data.customers")[0][0], hub.head()

    before = state()
    yield
    assert state() == before
