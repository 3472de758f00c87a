"""Replacing a generated tree touches only files that differ."""

from __future__ import annotations

from pathlib import Path

from generator.tree import differences, replace


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_replace_writes_removes_and_leaves_alone(tmp_path: Path) -> None:
    new = fill(tmp_path / "new", {"a/same": "1", "a/changed": "2", "a/b/added": "3"})
    old = fill(
        tmp_path / "old",
        {"a/same": "1", "a/changed": "1", "a/gone": "1", "a/__pycache__/x": "", "other/x": "1"},
    )
    untouched = (old / "a/same").stat().st_mtime_ns
    assert differences(new / "a", old / "a") == ["b/added", "changed", "gone"]

    assert replace(new, old) == ["a/b/added", "a/changed", "a/gone"]

    assert differences(new / "a", old / "a") == []
    assert (old / "a/same").stat().st_mtime_ns == untouched
    assert not (old / "a/gone").exists()
    assert (old / "other/x").exists()
    assert replace(new, old) == []
