"""What questions to the audit have in common: who may ask, and of which time."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from penstockd.errors import ValueInvalid, Violation


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start`` on and before ``end``; None leaves an end open."""

    start: dt.datetime | None = None
    end: dt.datetime | None = None

    def __str__(self) -> str:
        ends = (t.isoformat() if t is not None else "" for t in (self.start, self.end))
        return "/".join(ends).strip("/")

    def check(self) -> None:
        """Raise ValueInvalid if it ends before it starts."""
        if self.start is not None and self.end is not None and self.end < self.start:
            violation = Violation("end_time", "is before start_time")
            raise ValueInvalid("the time ends before it starts", violations=[violation])
