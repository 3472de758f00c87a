"""Uploads as forms: their bounds, and that their fields are checked like those of a request."""

from __future__ import annotations

from collections.abc import AsyncIterator
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

    async def requests() -> AsyncIterator[Any]:
        yield api.ImportCustomersRequest(file=HttpBody(content_type=TYPE, data=body))

    nowhere: Any = None  # the exchange, which is not reached
    with pytest.raises(error, match=message):
        await GrpcUpload(requests(), nowhere).begun()
