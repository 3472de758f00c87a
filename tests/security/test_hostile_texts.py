"""No text in any field of any method does more than get its own call refused.

U+0000, which the store cannot hold, is refused on arrival by one rule. Texts that are far too long
are cut wherever they are stored or repeated. Either leaves its audit entry, and does not affect its
neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from harness import PATIENCE, RunningHub

from .calls import every_route, method_of, placed

LONG = 40_000
NAMES = [r.method.path for r in every_route()]
#: Outcomes that no call may have, whatever it was given.
DEFECTS = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class Refusal:
    """The refusal of a call; ``code`` is None for one that was answered."""

    def __init__(self, error: Any) -> None:
        self.code = error.code()
        self.size = len(error.details() or "")
        trailers = dict(error.trailing_metadata() or ())
        found = {**dict(error.initial_metadata() or ()), **trailers}
        self.request_id = found.get("x-request-id", "")
        self.size += len(trailers.get("grpc-status-details-bin", b""))
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        for detail in status.details:
            detail.Unpack(bad)
            detail.Unpack(info)
        self.reason = info.reason
        self.fields = [v.field for v in bad.field_violations]


class Door:
    """Calls any method of a hub as its administrator, with messages from descriptors."""

    def __init__(self, hub: RunningHub, channel: grpc.Channel) -> None:
        self._metadata, self._channel = hub.metadata("admin"), channel

    def refusal(self, route: Any, request: Any) -> Refusal | None:
        """The refusal of a request; a stream is cancelled after its first message."""
        method = method_of(route)
        kind = f"{'stream' if method.client_streaming else 'unary'}_" + (
            "stream" if method.server_streaming else "unary"
        )
        call = getattr(self._channel, kind)(
            route.method.path,
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=lambda data: data,
        )
        given = iter([request]) if method.client_streaming else request
        try:
            reply = call(given, metadata=self._metadata, timeout=PATIENCE)
            if method.server_streaming:
                next(reply, None)
                reply.cancel()
        except grpc.RpcError as error:
            return Refusal(error)
        return None


@pytest.fixture(scope="module")
def door(hub: RunningHub) -> Iterator[Door]:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        yield Door(hub, channel)


def test_u0000_is_refused_in_every_text_of_every_method(hub: RunningHub, door: Door) -> None:
    audited: list[str] = []
    count = 0
    for route in every_route():
        prefix = f"{route.method.dataset or '/'}"[:-1] + "."
        for path, request in placed(route, "a\0b"):
            refused = door.refusal(route, request)
            told = f"{route.method.path} {path}"
            assert refused is not None, told
            assert (refused.code.name, refused.reason) == ("INVALID_ARGUMENT", "VALUE_INVALID"), (
                told
            )
            assert len(refused.fields) == 1, told
            assert refused.fields[0].split("['")[0] in (path, path.removeprefix(prefix)), told
            count += 1
            if route.method.audited:
                audited.append(refused.request_id)
    assert count > 150 and all(audited)
    entries = hub.sql(
        "SELECT count(DISTINCT request_id), count(*) FROM hub.audit_entry"
        " WHERE request_id = ANY ($1) AND outcome = 'VALUE_INVALID'",
        audited,
    )
    assert entries == [(len(audited), len(audited))]


def test_a_text_that_is_far_too_long_is_cut_wherever_it_goes(hub: RunningHub, door: Door) -> None:
    newest = hub.sql("SELECT max(entry_id) FROM hub.audit_entry")[0][0]
    for route in every_route():
        for path, request in placed(route, "k" * LONG):
            refused = door.refusal(route, request)
            told = f"{route.method.path} {path}"
            if refused is not None:
                assert refused.code not in DEFECTS, told
                assert refused.size < 24_000, told
    columns = ("record_key", "query", "peer", "method", "request_id", "low_key", "high_key",
               "receipt_id", "dataset", "consumer_id", "outcome")  # fmt: skip
    longest = ", ".join(f"max(octet_length({c}::text))" for c in columns)
    (found,) = hub.sql(f"SELECT {longest} FROM hub.audit_entry WHERE entry_id > $1", newest)
    sizes = {c: size for c, size in zip(columns, found, strict=True) if size is not None}
    assert sizes["record_key"] == 600, "the longest was cut, not left out"
    assert sizes.pop("query") <= 16 * 1024
    assert max(sizes.values()) <= 600, sizes
