"""Limits of exports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """Limits of each export: connections that read at once, and seconds until a client stalls."""

    connections: int = 1
    stall_seconds: float = 60.0
