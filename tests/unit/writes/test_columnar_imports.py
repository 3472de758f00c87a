"""Files that a process of their own reads: a wait for it blocks nobody, and its end ends it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from harness import PATIENCE
from penstockd.budget import run_offloaded
from penstockd.catalog.model import Dataset
from penstockd.formats import FormatError, columnar_reader, open_reader
from penstockd.shares import Payer, payer_var
from penstockd.writes.imports import Import

#: More than there are threads for computing.
CONSUMERS = 6
STUCK = """
import os, pathlib, signal
pathlib.Path({folder!r}, str(os.getpid())).touch()
signal.pause()
"""


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder where each process that reads a file, and never ends, writes its id."""
    script, folder = tmp_path / "stuck.py", tmp_path / "ids"
    folder.mkdir()
    script.write_text(STUCK.format(folder=str(folder)))
    monkeypatch.setattr(columnar_reader.ColumnarReader, "script", script)
    return folder


def start_for(consumer: str, work: Any) -> asyncio.Task[Any]:
    payer_var.set(Payer(consumer))
    try:
        return asyncio.create_task(work)
    finally:
        payer_var.set(Payer())


async def load(things: Dataset, name: str = "PARQUET") -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"PAR1"

    source = open_reader(name, things, things.fields)
    nothing = cast(Any, None)  # no row arrives, so nothing is checked or written
    await Import(things, nothing, source, native=False).run(nothing, pieces())


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def list_ids(folder: Path) -> set[int]:
    """The processes so far."""
    return {int(path.name) for path in folder.iterdir()}


async def test_imports_that_wait_occupy_no_thread_and_end_their_processes(
    things: Dataset, stuck: Path
) -> None:
    names = ["PARQUET", "ARROW"] * (CONSUMERS // 2)
    loads = [start_for(f"c{i}", load(things, name)) for i, name in enumerate(names)]
    try:
        await asyncio.to_thread(wait_until, lambda: len(list_ids(stuck)) == CONSUMERS)
        processes = list_ids(stuck)
        async with asyncio.timeout(PATIENCE):
            assert await start_for("other", run_offloaded(lambda: "done")) == "done"
        assert not any(task.done() for task in loads)
    finally:
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
    await asyncio.to_thread(wait_until, lambda: not any(map(psutil.pid_exists, processes)))
    # The control: as many that wait in threads delay the others.
    end = threading.Event()
    blocked = [start_for(f"c{i}", run_offloaded(end.wait)) for i in range(CONSUMERS)]
    other = start_for("other", run_offloaded(lambda: "done"))
    try:
        assert not (await asyncio.wait({other}, timeout=0.1))[0]
    finally:
        end.set()
        await asyncio.gather(other, *blocked)


async def test_the_hub_does_not_wait_for_ever(
    things: Dataset, stuck: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columnar_reader, "WAIT_FACTOR", 0.01)
    with pytest.raises(FormatError, match="cannot be read within"):
        await load(things)
