"""What can go wrong in a call, as one exception.

    PenstockError        a call that the hub refused or that did not reach it
      UnknownDataset     no stubs for the dataset are installed; nothing was called
      ExportIncomplete   an export arrived incomplete, or differs from what was sent
      FeedEnded          changes alone cannot continue the feed; the error says what can

Arguments that are wrong before any call is made raise ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True, slots=True)
class Violation:
    """One refused value: ``field`` is "credit_limit" or "rows[70000].credit_limit"."""

    field: str
    description: str


#: Reasons for refusing a cursor from which no feed can continue.
LOST_PLACES = frozenset({"CURSOR_EXPIRED", "CURSOR_INVALID"})


class PenstockError(Exception):
    """A call failed.

    ``code`` is the name of the gRPC status ("NOT_FOUND"); ``reason`` the hub's name for the
    cause ("RECORD_NOT_FOUND"), empty if the answer did not come from the hub; ``violations``
    the values that were refused; ``metadata`` what the hub adds to the reason;
    ``request_id`` finds the call in the hub's logs.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str = "",
        violations: Iterable[Violation] = (),
        metadata: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.request_id = request_id

    def __str__(self) -> str:
        facts = [self.reason or self.code]
        if self.request_id:
            facts.append(f"request {self.request_id}")
        return f"{self.message} ({', '.join(facts)})"


class UnknownDataset(PenstockError):
    """No stubs of the dataset are installed."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        there_are = ", ".join(known) or "none"
        message = f"there is no dataset '{name}'; there are: {there_are}"
        super().__init__("NOT_FOUND", message, reason="DATASET_UNKNOWN")


class ExportIncomplete(PenstockError):
    """An export ended, but its receipt does not match what has arrived."""

    def __init__(self, message: str, receipt_id: str = "") -> None:
        metadata = {"receipt": receipt_id} if receipt_id else {}
        super().__init__("DATA_LOSS", message, reason="EXPORT_INCOMPLETE", metadata=metadata)
        self.receipt_id = receipt_id


class FeedEnded(PenstockError):
    """A feed cannot continue from its position, or not with changes alone.

    ``reason`` says why: CURSOR_EXPIRED (the log no longer holds the changes after the cursor),
    CURSOR_INVALID (the cursor is not from this database, or from a state of it that was undone),
    VIEW_CHANGED and ACCESS_CHANGED (what the caller may see has changed). ``reconcile`` says what
    to do: REPAIR (compare what was built from the feed with the source, or rebuild it from a
    snapshot; ``Replica`` does so by itself) or STOP (the caller has no access any more).
    ``cursor`` is the last checkpoint.
    """

    def __init__(self, cause: PenstockError, *, reconcile: str, cursor: str) -> None:
        advice = _ADVICE[reconcile]
        super().__init__(
            cause.code,
            f"{cause.message}: {advice}",
            reason=cause.reason,
            metadata=cause.metadata,
            request_id=cause.request_id,
        )
        self.reconcile = reconcile
        self.cursor = cursor


_ADVICE = {
    "REPAIR": "repair what you have (Replica.sync does) or begin anew with a snapshot",
    "STOP": "there is no access any more",
}


def from_rpc(error: grpc.RpcError) -> PenstockError:
    """The PenstockError for a failed gRPC call.

    Reads the ``google.rpc.Status`` in the trailers; without one, only code and text are known.
    """
    call: Any = error
    trailers = _collect_metadata(call.trailing_metadata())
    headers = _collect_metadata(call.initial_metadata())
    request_id = trailers.get("x-request-id") or headers.get("x-request-id")
    status = status_pb2.Status()
    if isinstance(details := trailers.get("grpc-status-details-bin"), bytes):
        status.MergeFromString(details)
    message = status.message or call.details() or call.code().name
    return _decode_status(status, call.code().name, message, str(request_id or ""))


def from_status(status: status_pb2.Status, request_id: str = "") -> PenstockError:
    """The PenstockError for a ``google.rpc.Status`` in the body of an HTTP answer."""
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    code = names.get(status.code, "UNKNOWN")
    return _decode_status(status, code, status.message or code, request_id)


def _decode_status(
    status: status_pb2.Status, code: str, message: str, request_id: str
) -> PenstockError:
    info = error_details_pb2.ErrorInfo()
    violations: list[Violation] = []
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += (Violation(v.field, v.description) for v in bad.field_violations)
        elif detail.Is(error_details_pb2.RequestInfo.DESCRIPTOR):
            request = error_details_pb2.RequestInfo()
            detail.Unpack(request)
            request_id = request.request_id or request_id
    return PenstockError(
        code,
        message,
        reason=info.reason,
        violations=violations,
        metadata=info.metadata,
        request_id=request_id,
    )


def _collect_metadata(pairs: Any) -> dict[str, str | bytes]:
    return {key: value for key, value in pairs or ()}
