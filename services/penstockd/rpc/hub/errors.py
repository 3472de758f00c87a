"""The meanings of error reasons, from the comments in ``error_reason.proto``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from penstock.hub.v1 import errors_pb2
from penstockd.answers.problem import http_status
from penstockd.answers.reasons import REASONS
from penstockd.errors import RecordNotFound
from penstockd.resources import find_descriptors
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import PublicCall
from penstockd.rpc.routes import public_routes_of

_SERVICE = errors_pb2.DESCRIPTOR.services_by_name["Errors"]
_FILE = "penstock/hub/v1/error_reason.proto"
_VALUES = (5, 0, 2)
"""In the source info: first enum, values."""


@dataclass(frozen=True, slots=True)
class Description:
    """The comment of a reason: its prose, and its indented example."""

    text: str
    example: str


def list_routes() -> Iterator[Route]:
    """All are public, and not audited: they are documentation."""
    known = {reason: _error_message(reason, d) for reason, d in describe_reasons().items()}
    everything = errors_pb2.ListErrorsResponse(errors=known.values())

    async def list_errors(
        request: errors_pb2.ListErrorsRequest, call: PublicCall
    ) -> errors_pb2.ListErrorsResponse:
        return everything

    async def get_error(request: errors_pb2.GetErrorRequest, call: PublicCall) -> errors_pb2.Error:
        if request.error_reason not in known:
            raise RecordNotFound("no such reason exists; GET /v1/errors lists all")
        return known[request.error_reason]

    yield from public_routes_of(_SERVICE, {"ListErrors": list_errors, "GetError": get_error})


def describe_reasons() -> dict[str, Description]:
    """The description of every reason, in the order of their numbers."""
    files = FileDescriptorSet.FromString(find_descriptors().read_bytes())
    file = next(f for f in files.file if f.name == _FILE)
    values = file.enum_type[0].value
    comments = {values[i].name: comment for i, comment in _read_comments(file)}
    return {name: _parse_comment(comments[name]) for name in REASONS}


def _read_comments(file: FileDescriptorProto) -> Iterator[tuple[int, str]]:
    for location in file.source_code_info.location:
        path = tuple(location.path)
        if len(path) == 4 and path[:3] == _VALUES:
            yield path[3], location.leading_comments


def _parse_comment(comment: str) -> Description:
    lines = [line.removeprefix(" ").rstrip() for line in comment.splitlines()]
    prose = " ".join(line for line in lines if line and not line.startswith("    "))
    example = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    return Description(prose, example)


def _error_message(reason: str, description: Description) -> errors_pb2.Error:
    sent = REASONS[reason]
    return errors_pb2.Error(
        reason=reason,
        status=sent.status,
        http_status=http_status(sent),
        description=description.text,
        example=description.example,
        retry_seconds=sent.retry_seconds,
    )
