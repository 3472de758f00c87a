"""Replies of receivers, and the headers that every message sets itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

#: Headers that every message sets itself, and that no custom header may set.
OWN_HEADERS = frozenset(
    {
        "host", "content-length", "content-type", "content-encoding", "transfer-encoding",
        "connection", "upgrade", "te", "trailer", "expect", "user-agent", "proxy-authorization",
        "proxy-connection", "keep-alive", "webhook-id", "webhook-timestamp", "webhook-signature",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of an attempt: a status with the head of the reply, or why there is no reply."""

    latency: float
    status: int | None = None
    reason: str = ""
    head: str = ""
    body: bytes = b""
    address: str = ""
    retry_after: timedelta | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver accepted it."""
        return self.status is not None and 200 <= self.status < 300 and not self.reason
