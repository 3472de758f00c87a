"""The status of an error for HTTP: its status code, and ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from penstockd.answers.reasons import REASONS, ErrorReason

M = TypeVar("M", bound=Message)

MEDIA_TYPE = "application/problem+json"
#: google.rpc.Code -> its name and the HTTP status that the sidecar turns it into.
_CODES: Mapping[int, tuple[str, int]] = {
    1: ("CANCELLED", 499),
    2: ("UNKNOWN", 500),
    3: ("INVALID_ARGUMENT", 400),
    4: ("DEADLINE_EXCEEDED", 504),
    5: ("NOT_FOUND", 404),
    6: ("ALREADY_EXISTS", 409),
    7: ("PERMISSION_DENIED", 403),
    8: ("RESOURCE_EXHAUSTED", 429),
    9: ("FAILED_PRECONDITION", 400),
    10: ("ABORTED", 409),
    11: ("OUT_OF_RANGE", 400),
    12: ("UNIMPLEMENTED", 501),
    13: ("INTERNAL", 500),
    14: ("UNAVAILABLE", 503),
    15: ("DATA_LOSS", 500),
    16: ("UNAUTHENTICATED", 401),
}


def http_status(reason: ErrorReason) -> int:
    """The HTTP status of errors with a reason."""
    return reason.http_status or _CODES[reason.code][1]


def usual_http_status(code: int) -> int:
    """The HTTP status into which the sidecar turns a ``google.rpc.Code``."""
    return _CODES[code][1]


def wants_problem(accept: str | None) -> bool:
    """Whether an ``Accept`` header requests problems."""
    return accept is not None and MEDIA_TYPE in accept


def make_problem(status: status_pb2.Status, http: int | None = None) -> dict[str, Any]:
    """The problem of RFC 9457 with the facts of a status; ``http`` is set if its HTTP status is
    unusual.

    ``type`` links to the reason's description; ``violations``, ``metadata``, ``quota`` and
    ``retryAfter`` (seconds) are present if the error has them.
    """
    name, usual = _CODES[status.code]
    info = _find_detail(status, error_details_pb2.ErrorInfo())
    reason = REASONS.get(info.reason)
    request = _find_detail(status, error_details_pb2.RequestInfo())
    bad = _find_detail(status, error_details_pb2.BadRequest())
    retry = _find_detail(status, error_details_pb2.RetryInfo())
    quota = _find_detail(status, error_details_pb2.QuotaFailure())
    links = _find_detail(status, error_details_pb2.Help()).links
    told: dict[str, Any] = {
        "type": links[0].url if links else "about:blank",
        "title": info.reason.replace("_", " ").capitalize(),
        "status": http or (http_status(reason) if reason is not None else usual),
        "detail": status.message,
        "instance": f"urn:uuid:{request.request_id}",
        "code": name,
        "reason": info.reason,
        "metadata": dict(info.metadata),
        "violations": [
            {"field": v.field, "description": v.description} for v in bad.field_violations
        ],
        "quota": [{"subject": v.subject, "description": v.description} for v in quota.violations],
        "retryAfter": retry.retry_delay.seconds,
        "requestId": request.request_id,
    }
    return {key: value for key, value in told.items() if value or key == "detail"}


def _find_detail(status: status_pb2.Status, into: M) -> M:
    """The status's detail of one type; an empty message if there is none."""
    for detail in status.details:
        if detail.Unpack(into):
            break
    return into
