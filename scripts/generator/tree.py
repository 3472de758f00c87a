"""Replacing an older generated tree with a new one, and comparing the two."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path


def differences(new: Path, old: Path) -> list[str]:
    """Files below ``new`` or ``old`` that the other lacks or that differ in the other, in order."""
    names = _files(new) | _files(old)
    return sorted(name for name in names if not _same(new / name, old / name))


def replace(new: Path, old: Path) -> list[str]:
    """Make ``old`` equal to ``new``; return the files that were written or removed.

    Does not touch files that are the same, and looks only at the folders that ``new`` has.
    """
    changed = []
    for folder in sorted(new.iterdir()):
        for name in differences(folder, old / folder.name):
            source, target = folder / name, old / folder.name / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
            else:
                target.unlink()
            changed.append(f"{folder.name}/{name}")
    return changed


def _files(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False)
