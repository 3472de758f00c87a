"""Domain errors. They know nothing of gRPC; ``rpc.status`` maps each to a status, once.

    Refused
    ├── Unauthenticated
    ├── PermissionDenied
    ├── Invalid
    │   ├── FormatUnknown · ValueInvalid
    │   ├── query.QueryError: FieldUnknown · FilterError · OrderError · PageTokenError …
    │   └── ImportRowInvalid · ImportFormatInvalid · ImportTruncated
    ├── RecordNotFound · RecordExists · EtagMismatch · Conflict
    ├── RequestTooLarge
    ├── ClientStalled
    └── StorageFull
    DatabaseUnavailable

Each class names its reason in ``penstock.hub.v1.ErrorReason``. What is none of these is a defect:
it is logged and reaches the client as INTERNAL without its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field of a request (``google.rpc.BadRequest.FieldViolation``)."""

    field: str
    description: str


class Refused(Exception):
    """The hub refuses a request; the message is for the client's eyes."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})


class Unauthenticated(Refused):
    """Credentials are missing, unknown, expired or forged; which of these is not said."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("valid credentials are required: a bearer token or an API key")


class PermissionDenied(Refused):
    """No grant allows this."""

    reason = "PERMISSION_DENIED"


class Invalid(Refused):
    """The request cannot be right, whatever the state of the hub."""

    reason = "VALUE_INVALID"


class FormatUnknown(Invalid):
    """No such format; the message lists those there are."""

    reason = "FORMAT_UNKNOWN"


class ValueInvalid(Invalid):
    """A value breaks its field's rules."""

    reason = "VALUE_INVALID"


class ImportRowInvalid(Invalid):
    """Rows of an import cannot be taken; none of its rows was."""

    reason = "IMPORT_ROW_INVALID"


class ImportFormatInvalid(Invalid):
    """An import cannot be read at all: a bad header, broken quoting, not the format it claims."""

    reason = "IMPORT_FORMAT_INVALID"


class ImportTruncated(Invalid):
    """An import ended in the middle of a record."""

    reason = "IMPORT_TRUNCATED"


class RecordNotFound(Refused):
    """No such record, or none that the caller may see: the two are not told apart."""

    reason = "RECORD_NOT_FOUND"


class RecordExists(Refused):
    """A record with this key is there already."""

    reason = "RECORD_EXISTS"


class EtagMismatch(Refused):
    """The record changed since the caller read it."""

    reason = "ETAG_MISMATCH"


class Conflict(Refused):
    """Another writer was in the way; nothing was written and the call can be repeated."""

    reason = "CONFLICT"


class RequestTooLarge(Refused):
    """More rows or bytes than one call may carry."""

    reason = "REQUEST_TOO_LARGE"


class ClientStalled(Refused):
    """A client stopped reading; what it was to read next is not kept for it."""

    reason = "CLIENT_STALLED"


class StorageFull(Refused):
    """The database has no room left."""

    reason = "STORAGE_FULL"


class DatabaseUnavailable(Exception):
    """The database cannot be reached or does not answer."""

    reason: ClassVar[str] = "DATABASE_UNAVAILABLE"
