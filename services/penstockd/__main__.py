"""``python -m penstockd worker|keeper``: the processes that the supervisor starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from penstockd.app import serve
from penstockd.config import Settings
from penstockd.keeper import keep


def main() -> None:
    """Run the process that the arguments name."""
    match sys.argv[1:]:
        case ["worker", "--socket", path]:
            _run(serve(Settings(), Path(path)))
        case ["keeper"]:
            _run(keep(Settings()))
        case _:
            sys.exit("usage: python -m penstockd worker --socket PATH | keeper")


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


if __name__ == "__main__":
    main()
