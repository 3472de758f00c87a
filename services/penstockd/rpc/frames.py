"""google.api.HttpBody without a serialiser: large frames are copied once, not encoded."""

from __future__ import annotations

from penstockd.catalog.varint import encode_varint

_CONTENT_TYPE_TAG = b"\x0a"  # field 1, length-delimited
_DATA_TAG = b"\x12"  # field 2, length-delimited

#: The header that leads to the next page of a reply that has records alone, as files have.
NEXT_PAGE = "penstock-next-page-token"
#: Bytes in one frame of a stream: the fastest size for gRPC, and below Envoy's 1 MiB.
FRAME_BYTES = 256 * 1024


def http_body(data: bytes, content_type: str = "") -> bytes:
    """A serialised HttpBody. Only the content type of a stream's first frame counts."""
    head = b""
    if content_type:
        text = content_type.encode()
        head = _CONTENT_TYPE_TAG + encode_varint(len(text)) + text
    return b"".join((head, _DATA_TAG, encode_varint(len(data)), data))


def attach_file(file_name: str) -> str:
    """The content-disposition of a file; dataset names need no quoting."""
    return f'attachment; filename="{file_name}"'


def show_file(file_name: str) -> str:
    """The content-disposition of a page, which browsers show."""
    return f'inline; filename="{file_name}"'
