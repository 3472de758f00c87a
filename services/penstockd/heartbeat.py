"""A sign of life from a process to its supervisor: a byte a second through a pipe.

The process beats from its event loop, so that a process that hangs falls silent. A pipe needs no
server at either end, so the supervisor stays light.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

#: The environment variable with the pipe's descriptor.
VARIABLE = "HEARTBEAT_FD"
#: Seconds between two beats.
INTERVAL = 1.0


async def send_heartbeats() -> None:
    """Beat until cancelled; without a supervisor, only wait."""
    given = os.environ.get(VARIABLE)
    if given is None:
        await asyncio.get_running_loop().create_future()
        return
    descriptor = int(given)
    os.set_blocking(descriptor, False)
    while True:
        # A frozen supervisor has enough beats waiting; if it has died, this process ends too.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, b".")
        await asyncio.sleep(INTERVAL)
