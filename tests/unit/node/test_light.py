"""The imports of supervisor and keeper, which run beside the workers as long as the node does; and
imports that would delay a start."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = "import sys, {}; print(*sorted(n for n in sys.modules if n.partition('.')[0] == '{}'))"


def loaded(module: str, package: str) -> list[str]:
    """The modules of a package that a module of the hub loads."""
    command = [sys.executable, "-c", PROBE.format(module, package)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


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
    assert (not loaded(module, "grpc")) == light


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("penstockd.up", True),
        ("penstockd.keeper", True),
        ("penstockd.app", True),
        ("penstockd.webhooks.organ", False),
    ],
)
def test_a_start_does_not_wait_for_the_http_client(module: str, light: bool) -> None:
    """Loading it reads the system's certificates. The module that delivers is the control."""
    assert (not loaded(module, "aiohttp")) == light
