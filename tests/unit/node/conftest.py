"""Folders for databases, which the database's own user must be able to enter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Outside pytest's own folder, which each start of pytest closes to other users again."""
    with folder() as path:
        yield path
