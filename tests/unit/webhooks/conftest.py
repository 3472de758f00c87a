"""The webhooks organ on the test's own database, and a receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from penstockd.catalog import Catalog
from webhook_rig import Receiver, Rig, receiving, rigged


@pytest.fixture
async def rig(store_url: str, catalog: Catalog) -> AsyncIterator[Rig]:
    """An organ that waits for receivers longer than any machine needs."""
    async with rigged(store_url, catalog, connect_seconds=60, total_seconds=120) as made:
        yield made


@pytest.fixture
async def hasty(store_url: str, catalog: Catalog) -> AsyncIterator[Rig]:
    """An organ that soon gives up on a receiver."""
    async with rigged(store_url, catalog, connect_seconds=60, total_seconds=1) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made
