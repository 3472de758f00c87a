"""Domain errors. They are independent of gRPC; ``answers.status`` turns each into a status.

All are Refused. Each class names its reason in ``penstock.hub.v1.ErrorReason``, whose options
define how it is sent: to add an error, add it here and there, and nowhere else. Errors that only
webhooks raise are in ``webhooks.errors``, those of plans in ``policy.errors``, those of HTTP in
``rpc.http_errors``, those of queries in ``query.errors``, since the query language is independent.
Any other exception is a defect: it is logged and reaches the client as INTERNAL without its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

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
    ``retry_after`` is after how many seconds the call may succeed, if that is known better than by
    the reason.
    """

    reason: ClassVar[str] = "INTERNAL"
    retry_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        violations: Sequence[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        places: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = shorten_text(message, MAX_MESSAGE)
        super().__init__(self.message)
        self.violations = tuple(violations)
        self.metadata = {
            name: shorten_text(value, MAX_METADATA) for name, value in (metadata or {}).items()
        }
        self.places = dict(places or {})
        self.retry_after = retry_after


class Unauthenticated(Refused):
    """Credentials are missing, unknown, expired or forged; the message does not say which."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("valid credentials are required: a bearer token or an API key")


class TokenExpired(Refused):
    """The token or ticket of a stream has expired; a new one can continue it."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(Refused):
    """No grant allows this."""

    reason = "PERMISSION_DENIED"


class PolicyStale(Refused):
    """The access rules could not be read for so long that calls cannot be judged by them."""

    reason = "POLICY_STALE"


class Invalid(Refused):
    """The request is invalid, whatever the state of the hub."""

    reason = "VALUE_INVALID"


class FormatUnknown(Invalid):
    """No such format; the message lists the known ones."""

    reason = "FORMAT_UNKNOWN"


class ValueInvalid(Invalid):
    """A value breaks its field's rules."""

    reason = "VALUE_INVALID"

    @classmethod
    def of(cls, field: str, problem: str) -> Self:
        """The error for one field of a request; ``problem`` completes "the field …"."""
        return cls(f"{field} {problem}", violations=[Violation(field, problem)])


class CursorInvalid(Invalid):
    """A cursor is damaged, or comes from another database."""

    reason = "CURSOR_INVALID"


class CursorExpired(Refused):
    """The changes after a cursor have been pruned; ``places`` has the oldest usable one."""

    reason = "CURSOR_EXPIRED"


class HubStopping(Refused):
    """This worker is stopping; a stream can resume at another, from its last checkpoint."""

    reason = "HUB_UNAVAILABLE"


class ImportRowInvalid(Invalid):
    """Some rows of an import are invalid; none of its rows was imported."""

    reason = "IMPORT_ROW_INVALID"


class ImportFormatInvalid(Invalid):
    """An import cannot be read at all: a bad header, broken quoting, not the format it claims."""

    reason = "IMPORT_FORMAT_INVALID"


class ImportTruncated(Invalid):
    """An import ended in the middle of a record."""

    reason = "IMPORT_TRUNCATED"


class RecordNotFound(Refused):
    """No such record, or none that the caller may see: the error is the same."""

    reason = "RECORD_NOT_FOUND"


class RecordUnreadable(Refused):
    """A record contains a value that the model cannot express: another program wrote the tables."""

    reason = "RECORD_UNREADABLE"

    def __init__(self, dataset: str, key: str, field: str, value: str) -> None:
        """Without a ``field`` the caller may not know which it is."""
        found = f"its {field} holds {value}" if field else "one of its fields holds a value"
        super().__init__(
            f"{dataset}/{key} cannot be read: {found}, which the model cannot say; an operator "
            "must set it right",
            metadata={"dataset": dataset, "key": key, **({"field": field} if field else {})},
        )


class RecordExists(Refused):
    """A record with this key already exists."""

    reason = "RECORD_EXISTS"


class ValueTaken(Refused):
    """Another record has the same value of a unique field."""

    reason = "VALUE_TAKEN"


class EtagMismatch(Refused):
    """The record changed since the caller read it."""

    reason = "ETAG_MISMATCH"


class Conflict(Refused):
    """Another writer was in the way; nothing was written and the call can be repeated."""

    reason = "CONFLICT"


class RequestIdReused(Invalid):
    """The request id was already used for another call."""

    reason = "REQUEST_ID_REUSED"


class RequestInFlight(Refused):
    """A call with the same request id is under way; its outcome is not known yet."""

    reason = "REQUEST_IN_FLIGHT"


class RequestTooLarge(Refused):
    """More rows or bytes than one call may carry."""

    reason = "REQUEST_TOO_LARGE"


class CallTooCostly(Refused):
    """The call has used up the computing time that one call may take."""

    reason = "CALL_TOO_COSTLY"


class ClientStalled(Refused):
    """A client stopped reading, or sending; its unread data is not kept."""

    reason = "CLIENT_STALLED"


class ExportNotResumable(Refused):
    """An interrupted export cannot continue; it has to start again."""

    reason = "EXPORT_NOT_RESUMABLE"


class StateGone(Refused):
    """The state of the data that a call reads is no longer kept, or was held for too long."""

    reason = "STATE_GONE"


class AccessChanged(Refused):
    """Access was revoked or narrowed while a stream ran."""

    reason = "ACCESS_CHANGED"


class AccessRevoked(AccessChanged):
    """The access with which a stream began is gone completely."""


class ViewChanged(Refused):
    """The caller's view changed while a stream ran, without becoming narrower."""

    reason = "VIEW_CHANGED"


class TooManyStreams(Refused):
    """A consumer has as many streams as one worker allows."""

    reason = "TOO_MANY_STREAMS"


class SubscriptionNotFound(Refused):
    """No such subscription, or another consumer's: the error is the same."""

    reason = "SUBSCRIPTION_NOT_FOUND"


class SubscriptionExists(Refused):
    """The consumer already has a subscription of this name."""

    reason = "SUBSCRIPTION_EXISTS"


class TooManySubscriptions(Refused):
    """The consumer has as many subscriptions as it may."""

    reason = "TOO_MANY_SUBSCRIPTIONS"


class ShapeNotFound(Refused):
    """The consumer has no such shape, or no such version of it."""

    reason = "SHAPE_NOT_FOUND"


class ShapeExists(Refused):
    """The consumer has a shape with this id already."""

    reason = "SHAPE_EXISTS"


class ShapeInUse(Refused):
    """Subscriptions or webhooks use the shape, so it cannot be deleted."""

    reason = "SHAPE_IN_USE"


class ShapeUnfit(Refused):
    """A record is too large in the columns of a shape."""

    reason = "SHAPE_UNFIT"


class TooManyShapes(Refused):
    """The consumer has as many shapes as it may, or the shape as many versions."""

    reason = "TOO_MANY_SHAPES"


class AcknowledgedBackwards(Refused):
    """The position was acknowledged before; the metadata has the latest acknowledged one."""

    reason = "ACKNOWLEDGED_BACKWARDS"


class LeaseUnknown(Invalid):
    """The subscription has issued no such lease since it was created or last reset."""

    reason = "LEASE_UNKNOWN"


class LeaseExpired(Refused):
    """A lease ended without being acknowledged; its changes are delivered again."""

    reason = "LEASE_EXPIRED"


class ReceiptNotFound(Refused):
    """No such receipt, or none that the caller may see: the error is the same."""

    reason = "RECEIPT_NOT_FOUND"


class ShareExhausted(Refused):
    """A consumer has used up its share of connections, and this call has waited as long as it
    may."""

    reason = "SHARE_EXHAUSTED"


class DataLocked(Refused):
    """Somebody has locked the records or their table for longer than a call waits."""

    reason = "DATA_LOCKED"


class QueryTooLong(Refused):
    """A query takes longer than its kind of call may."""

    reason = "QUERY_TOO_LONG"


class ImportTooLong(Refused):
    """An import holds the rows that it writes for longer than it may."""

    reason = "IMPORT_TOO_LONG"


class OutcomeUnknown(Refused):
    """A write broke off in its COMMIT: it may or may not have happened, or may still happen."""

    reason = "OUTCOME_UNKNOWN"


class StorageFull(Refused):
    """The disk of the database is full, or the hub has no space for a file."""

    reason = "STORAGE_FULL"


class RateLimited(Refused):
    """The caller has made more calls than its limit allows."""

    reason = "RATE_LIMITED"


class MethodUnknown(Refused):
    """No method matches the verb and path."""

    reason = "METHOD_UNKNOWN"


class RequestMalformed(Refused):
    """The request cannot be read."""

    reason = "REQUEST_MALFORMED"


class HubUnavailable(Refused):
    """No worker can take the call."""

    reason = "HUB_UNAVAILABLE"


class CallTimeout(Refused):
    """The call took longer than calls may take."""

    reason = "CALL_TIMEOUT"


class PolicyChanged(Refused):
    """The policy is no longer at the revision that a change was made for."""

    reason = "POLICY_CHANGED"


class LastAdministrator(Refused):
    """The change would leave no consumer that may change access."""

    reason = "LAST_ADMINISTRATOR"


class RoleInUse(Refused):
    """A role that consumers have cannot be deleted."""

    reason = "ROLE_IN_USE"


class RollbackImpossible(Refused):
    """An earlier policy no longer fits the model; the violations say where."""

    reason = "ROLLBACK_IMPOSSIBLE"


class CredentialEnded(Refused):
    """A credential that is revoked or expired cannot be rotated."""

    reason = "CREDENTIAL_ENDED"


class RehearsalTooLong(Refused):
    """A rehearsal has more calls and rows to examine than its time allows."""

    reason = "REHEARSAL_TOO_LONG"


class DatabaseUnavailable(Refused):
    """The database cannot be reached or does not answer.

    ``str`` returns the cause, for the hub's log; the client's message does not contain it.
    """

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self, cause: str) -> None:
        super().__init__("the database cannot be reached; try again")
        self.args = (cause,)
