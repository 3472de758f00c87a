"""Files that are replaced while others read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstockd.node.replacing import replace_text


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "rate.json"
    replace_text(path, "one")

    def full(*_: object) -> None:
        raise OSError("no space is left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        replace_text(path, "two")
    assert [each.name for each in path.parent.iterdir()] == ["rate.json"]
    assert path.read_text() == "one"
