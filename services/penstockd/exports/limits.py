"""How exports run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """How exports run: connections that read one at once, and seconds a client may take nothing."""

    connections: int = 1
    stall_seconds: float = 60.0
