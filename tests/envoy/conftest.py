"""One sidecar for the tests of a file, before a hub that counts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from door import Door, opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lasting() -> AsyncIterator[Door]:
    """One door for all tests of a file; see ``door``."""
    async with opened() as door:
        yield door


@pytest.fixture
def door(lasting: Door) -> Door:
    """A door whose hub has had no call yet; do not stop it."""
    lasting.hub.calls = lasting.hub.checks = lasting.hub.uploaded = 0
    return lasting
