"""Limits of a process that reads possibly hostile input."""

from __future__ import annotations


def limit_process(memory: int, seconds: int) -> None:
    """Limit this process to ``memory`` bytes beyond its current use, and to ``seconds`` of CPU.

    Only Linux limits the memory; systems without such limits are left as they are.
    """
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            taken = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
    except (OSError, StopIteration):  # not Linux: other systems count data in other ways
        return
    resource.setrlimit(resource.RLIMIT_DATA, (taken + memory, taken + memory))
