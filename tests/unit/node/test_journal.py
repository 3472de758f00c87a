"""Log files are followed and bounded, whatever cannot be read, written or copied."""

from __future__ import annotations

import asyncio
import io
import shutil
import threading
from pathlib import Path

import pytest

from harness import PATIENCE
from penstockd.node import journal, process
from penstockd.node.journal import follow_log, is_severe


class Console(io.StringIO):
    """Signals that something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def write(self, text: str) -> int:
        self.told.set()
        return super().write(text)


async def test_a_log_that_cannot_be_copied_is_emptied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LOG_LIMIT", 100)
    path, console = tmp_path / "worker.log", Console()
    path.write_text("")
    (tmp_path / "worker.log.1").mkdir()  # the copy cannot be written there
    following = asyncio.create_task(follow_log("worker", path, is_severe, console))
    await asyncio.sleep(0)
    for number in range(3):
        console.told.clear()
        with path.open("a") as file:
            file.write(f"trouble {number} {'x' * 100}\n")
        async with asyncio.timeout(PATIENCE):
            await console.told.wait()
    following.cancel()
    assert path.stat().st_size < 300
    assert [f"trouble {n}" in console.getvalue() for n in range(3)] == [True] * 3


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_log_that_its_next_process_sets_aside_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A start sets a full log aside while the follower does the same."""
    for module in (journal, process):
        monkeypatch.setattr(module, "LOG_LIMIT", 100)
    path, kept = tmp_path / "worker.log", tmp_path / "worker.log.1"
    path.write_text("x" * 200)
    starting = threading.Thread(target=process.set_aside, args=(path,))
    copy = shutil.copyfile

    def copied(source: Path, target: Path) -> None:
        starting.start()
        starting.join(0.5)  # it must wait, so this passes in any case
        copy(source, target)

    if when == "meanwhile":
        monkeypatch.setattr(shutil, "copyfile", copied)
        journal.empty_file(path)
        starting.join(PATIENCE)
    else:
        starting.start()
        starting.join(PATIENCE)
        path.write_text("new")
        journal.empty_file(path)
        assert path.read_text() == "new"
    assert kept.read_text() == "x" * 200


async def test_a_log_that_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """Such as /dev/null or /dev/full, which could be read for ever."""
    path, console = tmp_path / "worker.log", Console()
    path.symlink_to("/dev/full")
    following = asyncio.create_task(follow_log("worker", path, is_severe, console))
    await asyncio.sleep(3 * journal.INTERVAL)
    assert not following.done() and not console.getvalue()
    following.cancel()
