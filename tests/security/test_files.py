"""The files in the data folder of a running hub are for its owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import RunningHub, eventually
from penstockd.node import lock

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def modes(data: Path) -> Iterator[tuple[Path, int]]:
    """Every path below a folder with its mode, without those that vanish meanwhile."""
    for folder, names, files in os.walk(data):
        for name in (*names, *files):
            path = Path(folder, name)
            try:
                yield path, path.lstat().st_mode
            except FileNotFoundError:
                continue


def open_to_others(data: Path) -> list[str]:
    """Files that others may open, sockets that they may write to, folders that they may list."""
    found = []
    for path, mode in modes(data):
        allowed = stat.S_IXGRP | stat.S_IXOTH if stat.S_ISDIR(mode) else 0
        if stat.S_ISSOCK(mode):
            allowed = OTHERS & ~(stat.S_IWGRP | stat.S_IWOTH)
        if mode & OTHERS & ~allowed:
            found.append(f"{stat.filemode(mode)} {path.relative_to(data)}")
    return found


def test_nothing_in_the_data_folder_is_for_others(hub: RunningHub) -> None:
    expected = ["audit/checkpoints.jsonl", "log/access.log", "log/keeper.log", "log/postgres.log"]
    for name in (*expected, "penstock.log", "secret", "demo.json", "ready"):
        eventually((hub.data / name).exists)
    assert sum(stat.S_ISREG(mode) for _, mode in modes(hub.data)) > 500
    assert open_to_others(hub.data) == []


def test_what_was_open_is_closed_at_the_next_start(tmp_path: Path) -> None:
    old = tmp_path / "log" / "worker-0.log"
    old.parent.mkdir()
    (tmp_path / "postgres").mkdir()
    for path in (old, tmp_path / "postgres" / "its-own"):
        path.touch()
        path.chmod(0o644)
    assert {line.split()[1] for line in open_to_others(tmp_path)} >= {"log/worker-0.log"}
    before = os.umask(0o022)
    try:
        with lock.hold_folder(tmp_path):
            (tmp_path / "made").touch()
            found = {line.split()[1] for line in open_to_others(tmp_path)}
            assert found == {"postgres", "postgres/its-own"}, "PostgreSQL sees to these"
        assert os.umask(0o022) == 0o022, "the process has its own mask again"
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_the_walk_sees_what_is_open(tmp_path: Path, mode: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(mode)
    assert open_to_others(tmp_path) == [f"{stat.filemode(0o100000 | mode)} file"]
