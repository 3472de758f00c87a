"""Domain error -> gRPC status with details: one table, and the only one."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from penstockd import errors

DOMAIN = "penstock"

#: The most field violations in one error; the metadata tells how many there are in all.
MAX_VIOLATIONS = 100

STATUS: Mapping[str, grpc.StatusCode] = {
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
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
    "CLIENT_STALLED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "STORAGE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DATABASE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}


def reason_of(error: BaseException) -> str:
    """The error's reason; INTERNAL for what is not a domain error."""
    if isinstance(error, errors.Refused | errors.DatabaseUnavailable):
        return error.reason
    return "INTERNAL"


def status_of(error: BaseException, request_id: str) -> tuple[grpc.StatusCode, status_pb2.Status]:
    """What the client gets for an error. The text of a defect never leaves the hub."""
    reason = reason_of(error)
    code = STATUS[reason]
    details: list[Message] = []
    metadata: Mapping[str, str] = {}
    message = "internal error; the request id finds its cause in the hub's log"
    if isinstance(error, errors.Refused):
        message, metadata = error.message, error.metadata
        if error.violations:
            details.append(_bad_request(error.violations))
    elif isinstance(error, errors.DatabaseUnavailable):
        message = "the database cannot be reached; try again"
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = 1
        details.append(retry)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    details = [info, *details, error_details_pb2.RequestInfo(request_id=request_id)]
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return code, status


def _bad_request(violations: tuple[errors.Violation, ...]) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in violations[:MAX_VIOLATIONS]
        ]
    )
