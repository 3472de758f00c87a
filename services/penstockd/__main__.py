"""``python -m penstockd worker|keeper``: the processes that the supervisor starts."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from penstockd.config import Settings


def main() -> None:
    """Run the process that the arguments name. Each loads what it needs: a keeper has no gRPC."""
    # Loaded modules are never garbage: collections during the start would search them for nothing.
    gc.disable()
    match sys.argv[1:]:
        case ["worker", "--socket", path]:
            from penstockd.app import serve_calls

            gc.enable()
            _run_process(serve_calls(Settings(), Path(path)))
        case ["keeper"]:
            from penstockd.keeper import run_keeper

            gc.enable()
            _run_process(run_keeper(Settings()))
        case _:
            sys.exit("usage: python -m penstockd worker --socket PATH | keeper")


def _run_process(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


if __name__ == "__main__":
    main()
