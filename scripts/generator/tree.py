"""Putting a generated tree in the place of an older one, and telling the two apart."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path


def differences(new: Path, old: Path) -> list[str]:
    """Files below ``new`` or ``old`` that the other lacks or holds differently, in order."""
    names = _files(new) | _files(old)
    return sorted(name for name in names if not _same(new / name, old / name))


def replace(new: Path, old: Path) -> list[str]:
    """Make ``old`` hold what ``new`` does; give the files that were written or removed.

    Files that are the same are not touched. Only the folders that ``new`` has are looked at.
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
