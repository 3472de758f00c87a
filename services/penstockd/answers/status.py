"""Turns a domain error into a ``google.rpc.Status`` with details. ``problem`` has the other
forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from penstockd import errors
from penstockd.answers.reasons import REASONS, ErrorReason

DOMAIN = "penstock"

#: The most field violations in one error, and their bytes: they travel in a header. The metadata
#: has their total number.
MAX_VIOLATIONS, MAX_VIOLATIONS_BYTES = 100, 12 * 1024


def reason_of(error: BaseException) -> str:
    """The error's reason; INTERNAL for an error that is not a domain error."""
    return error.reason if isinstance(error, errors.Refused) else "INTERNAL"


def status_of(
    error: BaseException,
    request_id: str,
    url: str = "",
    seal: Callable[[Any], str] | None = None,
) -> status_pb2.Status:
    """The status that a client gets for an error. The text of a defect never leaves the hub.

    ``url`` is where clients reach the hub; the link to the reason's description begins with it.
    ``seal`` turns the cursors in the metadata into texts; without it they are left out.
    """
    reason = REASONS[reason_of(error)]
    metadata: Mapping[str, str] = {}
    message = "internal error; search the hub's log for the request id"
    details: list[Message] = []
    if isinstance(error, errors.Refused):
        message, metadata = error.message, error.metadata
        if seal is not None:
            metadata = {**metadata, **{name: seal(at) for name, at in error.places.items()}}
        if error.violations:
            details.append(_bad_request(error.violations))
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain=DOMAIN, metadata=metadata)
    request = error_details_pb2.RequestInfo(request_id=request_id)
    status = status_pb2.Status(code=reason.code, message=message)
    for detail in (
        info,
        *details,
        *_advice_details(reason, error),
        request,
        _help_link(reason.name, url),
    ):
        status.details.add().Pack(detail)
    return status


def help_url(reason: str, url: str) -> str:
    """The link to the reason's description: see ``rpc.hub.errors``."""
    return f"{url}/v1/errors/{reason}"


def retry_seconds(error: BaseException) -> int:
    """After how many seconds the call may succeed, rounded up; 0 if repeating it does not help."""
    known = error.retry_after if isinstance(error, errors.Refused) else None
    return REASONS[reason_of(error)].retry_seconds if known is None else max(1, math.ceil(known))


def _advice_details(reason: ErrorReason, error: BaseException) -> Iterator[Message]:
    """Details that state when to retry and which limit was reached."""
    if seconds := retry_seconds(error):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = seconds
        yield retry
    if reason.quota is not None:
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=reason.quota.subject, description=reason.quota.description)
        yield failure


def _help_link(reason: str, url: str) -> error_details_pb2.Help:
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
