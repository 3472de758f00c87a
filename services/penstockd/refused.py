"""The base of all domain errors, and what may be wrong with one field of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from penstockd.shortening import shorten_text

#: The most bytes of an error's message, of a violation's field and description, and of one metadata
#: value. Errors repeat what a caller sent, and travel in headers, which are bounded.
MAX_MESSAGE, MAX_FIELD, MAX_DESCRIPTION, MAX_METADATA = 1024, 256, 512, 1024


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault in one field of a request (``google.rpc.BadRequest.FieldViolation``).

    Both texts are bounded: see ``shorten_text``.
    """

    field: str
    description: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", shorten_text(self.field, MAX_FIELD))
        object.__setattr__(self, "description", shorten_text(self.description, MAX_DESCRIPTION))


class Refused(Exception):
    """The hub refuses a request; the message is for the client.

    The message and all values are bounded here, since they may repeat what the caller sent.
    ``places`` are cursors, which belong to the metadata and are sealed before they leave.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        places: Mapping[str, Any] | None = None,
    ) -> None:
        self.message = shorten_text(message, MAX_MESSAGE)
        super().__init__(self.message)
        self.violations = tuple(violations)
        self.metadata = {
            name: shorten_text(value, MAX_METADATA) for name, value in (metadata or {}).items()
        }
        self.places = dict(places or {})
