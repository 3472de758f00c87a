"""Answers to calls that are refused before a handler sees them, mostly by the sidecar itself.

The sidecar's answers come from here, and so from the one table of errors: see ``node.envoy``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.rpc.error_details_pb2 import RequestInfo

from penstockd.answers.problem import http_status, make_problem
from penstockd.answers.reasons import REASONS
from penstockd.answers.status import status_of
from penstockd.errors import (
    CallTimeout,
    HubUnavailable,
    MethodUnknown,
    RateLimited,
    Refused,
    RequestMalformed,
    RequestTooLarge,
)

#: The header by which the hub marks a call of an unknown caller for the sidecar (see
#: ``rpc.sidecar``); the sidecar accepts it from nobody else.
UNKNOWN_CALLER = "x-penstock-unknown"
#: The headers that decide who a caller is: the sidecar sends the hub these alone when it asks
#: whether it knows a caller.
CREDENTIAL_HEADERS = (
    "authorization",
    "x-api-key",
    "x-forwarded-proto",
    "x-envoy-external-address",
    "sec-fetch-site",
)
#: How to show credentials (RFC 9110, 15.5.2).
CHALLENGE = 'Bearer realm="penstock"'
#: The header by which the sidecar marks calls of an address that calls often over HTTP/2. The hub
#: gives it to its refusals of such calls, with their status, if it does not know the caller: the
#: sidecar sends no body with them, because it would hold a body that the client never takes.
BRIEF = "x-penstock-brief"

#: The headers of replies that pages of other origins may read (besides those that the Fetch
#: standard lets them read), in the sidecar's answer to a browser.
EXPOSED_HEADERS = (
    *(
        "allow",
        "content-disposition",
        "content-encoding",
        "etag",
        "link",
        "location",
        "retry-after",
    ),
    *("ratelimit", "ratelimit-policy", "www-authenticate", "x-request-id"),
    *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    *("penstock-import-problems", "penstock-next-page-token", "penstock-replayed"),
    *("penstock-receipt", "penstock-receipt-bytes", "penstock-receipt-records"),
    *("penstock-receipt-rows", "penstock-receipt-sha256"),
    *("grpc-status", "grpc-message", "grpc-status-details-bin"),
)

#: Envoy's operators that replace these parts of a text in an answer.
_REQUEST_ID = "%REQ(X-REQUEST-ID)%"
_OWN_TEXT = "%LOCAL_REPLY_BODY%"
#: HTTP status -> the code that the sidecar sends to gRPC callers; the details must have the same.
_GRPC_CODES = {429: 8, 503: 14, 504: 14}


@dataclass(frozen=True, slots=True)
class EdgeReply:
    """An answer in each of its forms.

    ``status`` is its HTTP status or, if ``least`` is set, the lowest of the statuses that it
    answers. ``plain`` is the JSON of ``google.rpc.Status`` and ``problem`` that of RFC 9457, both
    with Envoy's operators in them. ``details`` is the value of ``grpc-status-details-bin``, empty
    if there is none, and ``text`` the message that goes with it.
    """

    status: int
    least: bool
    plain: dict[str, Any]
    problem: dict[str, Any]
    details: str

    @property
    def text(self) -> str:
        """The message."""
        return str(self.plain["message"])


@dataclass(frozen=True, slots=True)
class BriefReply:
    """The headers that a refusal without a body has besides its HTTP status."""

    status: int
    headers: Mapping[str, str]


def list_brief_replies() -> list[BriefReply]:
    """Of every HTTP status of a refusal."""
    waits: dict[int, int] = {}
    for reason in REASONS.values():
        status = http_status(reason)
        waits[status] = max(waits.get(status, 0), reason.retry_seconds)
    return [
        BriefReply(
            status,
            {"cache-control": "no-store", "x-content-type-options": "nosniff"}
            | ({"www-authenticate": CHALLENGE} if status == 401 else {})
            | ({"retry-after": str(seconds)} if seconds else {}),
        )
        for status, seconds in sorted(waits.items())
    ]


def make_edge_replies(url: str) -> list[EdgeReply]:
    """The sidecar's answers to callers of a hub at ``url``; the first one that fits a call is
    used."""
    told: list[tuple[int, Refused]] = [
        (404, MethodUnknown("no such method and path")),
        (408, CallTimeout("the request took too long to arrive")),
        (413, RequestTooLarge("the body is larger than one call may carry; use an import")),
        (429, RateLimited("too many calls in a short time; slow down")),
        (431, RequestTooLarge("the headers are larger than a call may carry")),
        (501, RequestMalformed("the request has an unknown encoding")),
        (503, HubUnavailable("no worker can take the call at present; try again")),
        (504, CallTimeout("the call took too long")),
    ]
    found = [_make_reply(status, False, error, url) for status, error in told]
    internal = Refused("internal error; the request id finds its cause in the hub's log")
    return [
        *found,
        _make_reply(500, True, internal, url),
        _make_reply(400, True, RequestMalformed(_OWN_TEXT), url),
    ]


def codec_refusals() -> Mapping[str, str]:
    """By the prefix of a content type: the base64 of a gRPC-Web reply that refuses messages in an
    encoding other than protobuf. It consists of trailers only."""
    trailers = b"grpc-status:12\r\ngrpc-message:messages must be application/grpc-web+proto\r\n"
    frame = base64.b64encode(b"\x80" + len(trailers).to_bytes(4, "big") + trailers)
    return {
        "application/grpc-web-text": base64.b64encode(frame).decode(),  # base64 is its encoding
        "application/grpc-web": frame.decode(),
    }


def _make_reply(status: int, least: bool, error: Refused, url: str) -> EdgeReply:
    # The link is not a format string: each of Envoy's operator signs in it is doubled.
    said = status_of(error, _REQUEST_ID, url.replace("%", "%%"))
    told = make_problem(said, None if least else status)
    del told["instance"]  # a call that is refused before it is read has no id
    if least:
        told["status"] = "%RESPONSE_CODE%"
    return EdgeReply(
        status, least, json_format.MessageToDict(said), told, _encode_details(status, error, url)
    )


def _encode_details(status: int, error: Refused, url: str) -> str:
    """The details for gRPC, in base64. They lack the request id, which only a format string could
    contain: it is in x-request-id."""
    if status not in _GRPC_CODES:
        return ""
    said = status_of(error, "", url)
    said.code = _GRPC_CODES[status]
    kept = [d for d in said.details if not d.Is(RequestInfo.DESCRIPTOR)]
    del said.details[:]
    said.details.extend(kept)
    return base64.b64encode(said.SerializeToString()).decode().rstrip("=")
