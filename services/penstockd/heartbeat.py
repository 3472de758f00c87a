"""A sign of life from a process to its supervisor: a byte a second through a pipe.

The process beats from its event loop, so that one which hangs falls silent. A pipe needs no server
at either end, and the supervisor stays light.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

#: The variable that names the pipe's descriptor to the process.
VARIABLE = "HEARTBEAT_FD"
#: Seconds between two beats.
INTERVAL = 1.0


async def beat() -> None:
    """Beat until cancelled; without a supervisor there is nobody to tell."""
    given = os.environ.get(VARIABLE)
    if given is None:
        await asyncio.get_running_loop().create_future()
        return
    descriptor = int(given)
    os.set_blocking(descriptor, False)
    while True:
        # A supervisor that is frozen has beats enough waiting, and one that died ends us itself.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, b".")
        await asyncio.sleep(INTERVAL)
