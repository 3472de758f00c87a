"""The imports of supervisor and keeper, which run as long as the node, beside its workers."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = "import sys, {}; print(*sorted(n for n in sys.modules if n.partition('.')[0] == 'grpc'))"


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("penstockd.up", True),
        ("penstockd.keeper", True),
        ("penstockd.__main__", True),
        ("penstockd.app", False),
    ],
)
def test_supervisor_and_keeper_load_no_grpc(module: str, light: bool) -> None:
    """A worker's module is the control."""
    command = [sys.executable, "-c", PROBE.format(module)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert (not loaded) == light, loaded
