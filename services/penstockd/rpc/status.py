"""Domain error -> gRPC status with details: one table, and the only one.

A reason has a row in STATUS; those after which the same call may be made again stand in
RETRY_SECONDS too, and those that say "no more" in QUOTAS. ``problem`` has the other shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from penstockd import errors

DOMAIN = "penstock"

#: The most field violations in one error, and their bytes: they travel in a header. The metadata
#: tells how many there are in all.
MAX_VIOLATIONS, MAX_VIOLATIONS_BYTES = 100, 12 * 1024

STATUS: Mapping[str, grpc.StatusCode] = {
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "POLICY_STALE": grpc.StatusCode.UNAVAILABLE,
    "FIELD_UNKNOWN": grpc.StatusCode.INVALID_ARGUMENT,
    "FILTER_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "ORDER_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "PAGE_TOKEN_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "FORMAT_UNKNOWN": grpc.StatusCode.INVALID_ARGUMENT,
    "RECORD_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "RECORD_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "ETAG_MISMATCH": grpc.StatusCode.ABORTED,
    "CONFLICT": grpc.StatusCode.ABORTED,
    "VALUE_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "IMPORT_ROW_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "IMPORT_FORMAT_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "IMPORT_TRUNCATED": grpc.StatusCode.INVALID_ARGUMENT,
    "REQUEST_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "CALL_TOO_COSTLY": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "REQUEST_ID_REUSED": grpc.StatusCode.INVALID_ARGUMENT,
    "REQUEST_IN_FLIGHT": grpc.StatusCode.ABORTED,
    "CLIENT_STALLED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "EXPORT_NOT_RESUMABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "STATE_GONE": grpc.StatusCode.FAILED_PRECONDITION,
    "ACCESS_CHANGED": grpc.StatusCode.PERMISSION_DENIED,
    "RECEIPT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "CURSOR_INVALID": grpc.StatusCode.INVALID_ARGUMENT,
    "CURSOR_EXPIRED": grpc.StatusCode.OUT_OF_RANGE,
    "VIEW_CHANGED": grpc.StatusCode.ABORTED,
    "TOO_MANY_STREAMS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "SUBSCRIPTION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "SUBSCRIPTION_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "TOO_MANY_SUBSCRIPTIONS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "ACKNOWLEDGED_BACKWARDS": grpc.StatusCode.FAILED_PRECONDITION,
    "LEASE_UNKNOWN": grpc.StatusCode.INVALID_ARGUMENT,
    "LEASE_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "STORAGE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "POLICY_CHANGED": grpc.StatusCode.ABORTED,
    "LAST_ADMINISTRATOR": grpc.StatusCode.FAILED_PRECONDITION,
    "ROLE_IN_USE": grpc.StatusCode.FAILED_PRECONDITION,
    "ROLLBACK_IMPOSSIBLE": grpc.StatusCode.FAILED_PRECONDITION,
    "CREDENTIAL_ENDED": grpc.StatusCode.FAILED_PRECONDITION,
    "REHEARSAL_TOO_LONG": grpc.StatusCode.DEADLINE_EXCEEDED,
    "DATABASE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "WEBHOOK_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "DELIVERY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "WEBHOOK_URL_REFUSED": grpc.StatusCode.INVALID_ARGUMENT,
    "WEBHOOK_DISABLED": grpc.StatusCode.FAILED_PRECONDITION,
    "REPLAY_UNDER_WAY": grpc.StatusCode.FAILED_PRECONDITION,
    "TOO_MANY_WEBHOOKS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "WEBHOOK_KIND_UNFIT": grpc.StatusCode.FAILED_PRECONDITION,
    "RATE_LIMITED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "METHOD_UNKNOWN": grpc.StatusCode.NOT_FOUND,
    "REQUEST_MALFORMED": grpc.StatusCode.INVALID_ARGUMENT,
    "HUB_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "CALL_TIMEOUT": grpc.StatusCode.DEADLINE_EXCEEDED,
    "SHARE_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DATA_LOCKED": grpc.StatusCode.UNAVAILABLE,
    "QUERY_TOO_LONG": grpc.StatusCode.DEADLINE_EXCEEDED,
    "OUTCOME_UNKNOWN": grpc.StatusCode.UNAVAILABLE,
}


#: After so many seconds the same call may be made again, and may succeed: it was not begun, or
#: nothing of it was kept.
RETRY_SECONDS: Mapping[str, int] = {
    "CONFLICT": 1,
    "REQUEST_IN_FLIGHT": 1,
    "DATABASE_UNAVAILABLE": 1,
    "HUB_UNAVAILABLE": 1,
    "RATE_LIMITED": 1,
    "SHARE_EXHAUSTED": 2,
    "DATA_LOCKED": 1,
}

#: Whose limit of what was reached, for ``google.rpc.QuotaFailure``.
QUOTAS: Mapping[str, tuple[str, str]] = {
    "RATE_LIMITED": ("caller", "calls a second"),
    "SHARE_EXHAUSTED": ("consumer", "calls under way"),
    "CALL_TOO_COSTLY": ("call", "computing time"),
    "TOO_MANY_STREAMS": ("consumer", "streams at one time"),
    "TOO_MANY_SUBSCRIPTIONS": ("consumer", "subscriptions"),
    "STORAGE_FULL": ("database", "room for data"),
    "TOO_MANY_WEBHOOKS": ("consumer", "webhooks"),
}


def reason_of(error: BaseException) -> str:
    """The error's reason; INTERNAL for what is not a domain error."""
    if isinstance(error, errors.Refused | errors.DatabaseUnavailable):
        return error.reason
    return "INTERNAL"


def status_of(
    error: BaseException,
    request_id: str,
    url: str = "",
    seal: Callable[[Any], str] | None = None,
) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """What the client gets for an error. The text of a defect never leaves the hub.

    ``url`` is where clients reach the hub; the link to the reason's description begins with it.
    ``seal`` makes texts of the cursors in the metadata, which are left out without it.
    """
    reason = reason_of(error)
    code = STATUS[reason]
    metadata: Mapping[str, str] = {}
    message = "internal error; the request id finds its cause in the hub's log"
    details: list[Message] = []
    if isinstance(error, errors.Refused):
        message, metadata = error.message, error.metadata
        if seal is not None:
            metadata = {**metadata, **{name: seal(at) for name, at in error.places.items()}}
        if error.violations:
            details.append(_bad_request(error.violations))
    elif isinstance(error, errors.DatabaseUnavailable):
        message = "the database cannot be reached; try again"
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    request = error_details_pb2.RequestInfo(request_id=request_id)
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in (info, *details, *_advice(reason), request, _help(reason, url)):
        status.details.add().Pack(detail)
    return code, status


def help_url(reason: str, url: str) -> str:
    """Where the reason is described: see ``rpc.hub.errors``."""
    return f"{url}/v1/errors/{reason}"


def _advice(reason: str) -> Iterator[Message]:
    """When to try again, and which limit was reached."""
    if reason in RETRY_SECONDS:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = RETRY_SECONDS[reason]
        yield retry
    if reason in QUOTAS:
        subject, description = QUOTAS[reason]
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=subject, description=description)
        yield failure


def _help(reason: str, url: str) -> error_details_pb2.Help:
    link = error_details_pb2.Help.Link(
        description=f"What {reason} means", url=help_url(reason, url)
    )
    return error_details_pb2.Help(links=[link])


def _bad_request(violations: tuple[errors.Violation, ...]) -> error_details_pb2.BadRequest:
    told = error_details_pb2.BadRequest()
    for violation in violations[:MAX_VIOLATIONS]:
        told.field_violations.add(field=violation.field, description=violation.description)
        if told.ByteSize() > MAX_VIOLATIONS_BYTES:
            del told.field_violations[-1]
            break
    return told
