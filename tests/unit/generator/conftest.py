"""A tree of protos to generate from, and the generator as people run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

Generate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project's protos and their generated files, without the console."""
    left_out = shutil.ignore_patterns("__pycache__", "portal", "typescript")
    for folder in ("protos", "gen"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=left_out)
    return tmp_path


@pytest.fixture
def generate() -> Generate:
    """Runs the generator with some arguments; returns its exit code and output."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "generator", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
