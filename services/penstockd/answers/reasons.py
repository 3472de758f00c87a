"""The reasons of errors, and how each is sent: read from the options in ``error_reason.proto``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.rpc import code_pb2

from penstock.hub.v1 import error_reason_pb2
from penstock.options.v1 import error_pb2


@dataclass(frozen=True, slots=True)
class Quota:
    """The limit that an error reports, for ``google.rpc.QuotaFailure``."""

    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class ErrorReason:
    """How errors with one reason are sent.

    ``code`` is a ``google.rpc.Code`` and ``status`` its name. ``retry_seconds`` is 0 if repeating
    the same call does not help. ``http_status`` is 0 if it follows from ``code``.
    """

    name: str
    code: int
    status: str
    retry_seconds: int
    quota: Quota | None
    http_status: int = 0


def _read_reasons() -> Iterator[ErrorReason]:
    for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values:
        if value.number == error_reason_pb2.ERROR_REASON_UNSPECIFIED:
            continue
        extensions: Any = value.GetOptions().Extensions  # the stubs do not know extensions
        options: error_pb2.ErrorOptions = extensions[error_pb2.error]
        if options.code == code_pb2.OK:
            raise ValueError(f"{value.name} has no code: set the option penstock.options.v1.error")
        quota = Quota(options.quota.subject, options.quota.description)
        yield ErrorReason(
            value.name,
            options.code,
            code_pb2.Code.Name(options.code),
            options.retry_seconds,
            quota if options.HasField("quota") else None,
            options.http_status,
        )


#: Every reason of the contract, by name.
REASONS: Mapping[str, ErrorReason] = {reason.name: reason for reason in _read_reasons()}
