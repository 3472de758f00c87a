"""CPU and memory of a hub's processes while something runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

from harness import RunningHub

_SAMPLE_SECONDS = 0.05


@dataclass
class Usage:
    """What the hub's own processes used: CPU seconds by kind, MiB gained by all workers."""

    cpu: dict[str, float] = field(default_factory=dict)
    gained_mib: float = 0.0

    def text(self) -> str:
        """CPU by kind, in seconds."""
        return ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in self.cpu.items())


@contextlib.contextmanager
def usage(hub: RunningHub) -> Iterator[Usage]:
    """Measure from here to the end of the block. Memory is sampled; the peak counts."""
    found = Usage()
    before = _cpu(hub)
    workers = hub.processes("worker")
    start = _memory(workers)
    done = threading.Event()
    peak = start

    def sample() -> None:
        nonlocal peak
        while not done.wait(_SAMPLE_SECONDS):
            peak = max(peak, _memory(workers))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield found
    finally:
        done.set()
        sampler.join()
        found.gained_mib = (peak - start) / 2**20
        found.cpu = {kind: seconds - before[kind] for kind, seconds in _cpu(hub).items()}


def _memory(processes: list[psutil.Process]) -> int:
    """Resident bytes that belong to no file and are not shared.

    Reading them page by page (psutil's ``uss``) takes 10 ms, during which the workers wait for the
    memory's lock.
    """
    found = [p.memory_info() for p in processes]
    return sum(m.rss - getattr(m, "shared", 0) for m in found)


def _cpu(hub: RunningHub) -> dict[str, float]:
    totals = {}
    for kind in ("worker", "envoy", "postgres"):
        total = 0.0
        for process in hub.processes(kind):
            family = [process, *process.children()] if kind == "postgres" else [process]
            for member in family:
                with contextlib.suppress(psutil.Error):
                    times = member.cpu_times()
                    total += times.user + times.system
        totals[kind] = total
    return totals
