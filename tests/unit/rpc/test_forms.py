"""Uploads as forms: their bounds, and that their fields are checked like those of a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody

from penstock.api.v1 import customers_service_pb2 as api
from penstockd.errors import ImportFormatInvalid, RequestTooLarge, ValueInvalid
from penstockd.rpc.forms import MOST_FIELDS, UploadForm
from penstockd.rpc.writes import GrpcUpload

TYPE = "multipart/form-data; boundary=x"
FILE = 'name="file"; filename="x.csv"'
#: What a browser sends of a file field in which no file was chosen.
EMPTY = 'name="other"; filename=""'


def part(disposition: str, content: bytes = b"") -> bytes:
    return b"--x\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (
        disposition.encode(),
        content,
    )


@pytest.mark.parametrize("before", [True, False])
def test_parts_are_counted_whatever_they_hold(before: bool) -> None:
    form, file = UploadForm(TYPE), part(FILE, b"customer_id\n")
    few = part(EMPTY) * 4
    form.feed(few + file if before else file + few)
    with pytest.raises(ImportFormatInvalid, match=f"more than {MOST_FIELDS + 8} parts"):
        for _ in range(MOST_FIELDS + 8):
            form.feed(part(EMPTY))


def upload(body: bytes) -> GrpcUpload:
    """The upload of a form in one message; of its call only the metadata is looked at."""

    async def requests() -> AsyncIterator[Any]:
        yield api.ImportCustomersRequest(file=HttpBody(content_type=TYPE, data=body))

    exchange: Any = SimpleNamespace(metadata={}, merges={})
    return GrpcUpload(requests(), exchange)


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("request_id", b"a\0b", ValueInvalid, r"request_id.*U\+0000 at position 2"),
        ("time_zone", b"\0", ValueInvalid, r"time_zone.*U\+0000"),
        ("time_zone", b"x" * 17_000, RequestTooLarge, "time_zone"),
    ],
)
async def test_fields_are_checked_like_those_of_a_request(
    name: str, text: bytes, error: type[Exception], message: str
) -> None:
    body = part(f'name="{name}"', text) + part(FILE, b"customer_id\n") + b"--x--\r\n"
    with pytest.raises(error, match=message):
        await upload(body).begun()


async def test_what_a_form_says_is_said_of_its_file() -> None:
    fields = (
        part('name="time_zone"', b"Europe/Berlin")
        + part('name="validateOnly"', b"true")
        + part('name="request_id"', b"r-1")
        + part(EMPTY)
    )
    sent = upload(fields + part(FILE, b"customer_id\n") + part(EMPTY) + b"--x--\r\n")
    request, form = await sent.begun()
    assert (request.request_id, request.validate_only) == ("r-1", True)
    assert (form.format, form.options.time_zone) == ("CSV", "Europe/Berlin")
    assert b"".join([piece async for piece in sent.pieces()]) == b"customer_id\n"
