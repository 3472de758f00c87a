"""The marked records exist in all of these tests."""

from __future__ import annotations

import pytest

from harness import RunningHub

from . import marked


@pytest.fixture(scope="session")
def marked_hub(hub: RunningHub) -> RunningHub:
    """The hub, with the marked records in it."""
    marked.load(hub)
    return hub
