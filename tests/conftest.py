"""One hub for all tests that only call it; tests that break one start their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import RunningHub, folder


@pytest.fixture(scope="session")
def hub() -> Iterator[RunningHub]:
    """A hub with the demo company of 300 customers. Do not stop or break it."""
    with folder() as data:
        running = RunningHub(data / "hub")
        running.start()
        try:
            yield running
        finally:
            running.stop()
