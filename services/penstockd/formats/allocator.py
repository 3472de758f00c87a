"""The C library's freed memory."""

from __future__ import annotations

import ctypes
from typing import Any


def give_back() -> None:
    """Return freed memory to the system; does nothing if the C library cannot.

    It takes a millisecond or two, and pays in long work that keeps small blocks between large ones.
    """
    trim: Any = getattr(_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


#: None loads the process itself. Some C libraries lack the function, such as musl.
_LIBRARY = ctypes.CDLL(None)
