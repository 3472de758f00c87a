"""Sheets of exports that fail before their end."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from penstockd import formats
from penstockd.catalog import Dataset


def test_a_sheet_that_is_left_without_its_end_raises_nothing(
    things: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: found.append(str(args.exc_value)))
    writer = formats.open_writer("XLSX", things, things.fields[:2])
    assert writer.head()
    ring = [writer]
    ring.append(ring)  # type: ignore[arg-type]  # the collector takes all parts at once
    del writer, ring
    gc.collect()
    assert found == []
