"""Errors of calls over HTTP, which gRPC does not know."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.errors import Refused


class NotAcceptable(Refused):
    """The header ``Accept`` names no form that the reply can have; the message lists them."""

    reason = "NOT_ACCEPTABLE"


class MethodNotAllowed(Refused):
    """A path exists, but not with this verb."""

    reason = "METHOD_NOT_ALLOWED"

    def __init__(self, verb: str, verbs: Sequence[str]) -> None:
        super().__init__(f"{verb} is not a verb of this path; it has {', '.join(verbs)}")
        self.verbs = tuple(verbs)


class MediaTypeUnsupported(Refused):
    """A body is of a type that the hub does not read; the message says which it reads."""

    reason = "MEDIA_TYPE_UNSUPPORTED"


class HttpVersionUnsupported(Refused):
    """A call over HTTP/1.0 asks for a stream, of which its client could not tell whether it is
    whole."""

    reason = "HTTP_VERSION_UNSUPPORTED"


class PreconditionFailed(Refused):
    """A precondition of a call names a state that its resource does not have."""

    reason = "PRECONDITION_FAILED"
