"""Runs the command line within the test's process, in a folder of the test's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from penstock.client import cli


class Ran(NamedTuple):
    """How a run ended, and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def prepare_runs(
    folder: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
) -> Run:
    """Runs commands in a folder, without settings of the environment."""
    patch.chdir(folder)
    for name in [name for name in os.environ if name.startswith(("PENSTOCK_", "_PENSTOCK_"))]:
        patch.delenv(name)
    patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))

    def run(*args: str) -> Ran:
        patch.setattr(sys, "argv", ["penstock", *args])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        printed = captured.readouterr()
        return Ran(int(exited.value.code or 0), printed.out, printed.err)

    return run
