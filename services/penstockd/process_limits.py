"""Limits of a process that reads what may be hostile."""

from __future__ import annotations


def limit_process(memory: int, seconds: int) -> None:
    """Take no more than ``memory`` bytes beyond what is taken now, nor ``seconds`` of the CPU.

    Only Linux limits the memory; systems without such limits are left as they are.
    """
    try:
        import resource
    except ImportError:  # a system that has no such limits
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            taken = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
    except (OSError, StopIteration):  # no Linux: elsewhere data is not counted like this
        return
    resource.setrlimit(resource.RLIMIT_DATA, (taken + memory, taken + memory))
