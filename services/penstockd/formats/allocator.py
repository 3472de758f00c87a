"""The C library's store of freed memory."""

from __future__ import annotations

import ctypes
from typing import Any


def give_back() -> None:
    """Have freed memory returned to the system, wherever it lies; nothing where that is unknown.

    It takes a millisecond or two: for long work that keeps small things between large ones.
    """
    trim: Any = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


#: None is the process itself; it is the C library that may lack the function, as musl does.
_LIBRARY = ctypes.CDLL(None)
