"""Uploads as forms (multipart/form-data), as browsers and ``curl -F`` send them.

The form's file is the file of the import. Its other fields come before the file and have the
meaning of the query parameters with the same names. The form is parsed as it arrives: only its
fields are kept, FIELD_BYTES of them at most.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from penstockd.errors import ImportFormatInvalid, ImportTruncated, ValueInvalid
from penstockd.formats import format_of_suffix

MEDIA_TYPE = "multipart/form-data"
#: The most bytes of all fields before the file, and the most fields.
FIELD_BYTES, MOST_FIELDS = 64 * 1024, 32
#: The most parts: the fields, the file, and the empty file fields that browsers send, too.
_MOST_PARTS = MOST_FIELDS + 8
#: The field of a request that no form may set: it is made from the form's file.
_FILE = "file"
_SHOWN = 40  # characters of a name in messages
#: Content types by which clients name a file whose type they do not know.
_UNKNOWN_TYPES = ("", "application/octet-stream", "text/plain")


def is_form(content_type: str) -> bool:
    """Whether an upload is a form."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


class UploadForm:
    """One form: ``feed`` its bytes, then ``confirm_whole``.

    ``begun`` is set once the file has begun; then the fields are complete.
    """

    def __init__(self, content_type: str) -> None:
        """Raises ImportFormatInvalid if the content type names no boundary, or a bad one."""
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise ImportFormatInvalid(f"the content type {MEDIA_TYPE} names no boundary")
        self.begun = False
        self.file_name = self.file_type = ""
        self._fields: dict[str, str] = {}
        self._size = self._parts = 0
        self._ended = self._in_file = False
        self._header = bytearray()
        self._text = bytearray()  # a header's value, or a field's
        self._headers: dict[bytes, str] = {}
        self._name: str | None = None  # of the current field; None: a part without content
        self._file: list[bytes] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_begin": self._begin_header,
                    "on_header_field": lambda data, a, b: self._header.extend(data[a:b]),
                    "on_header_value": lambda data, a, b: self._text.extend(data[a:b]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._take,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as exc:
            raise ImportFormatInvalid(f"the form cannot be read: {exc}") from None

    def feed(self, data: bytes) -> bytes:
        """The bytes of the file among the next ones of the form.

        Raises ImportFormatInvalid, and ValueInvalid for a field that may not be there.
        """
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise ImportFormatInvalid(f"the form cannot be read: {exc}") from None
        taken, self._file = b"".join(self._file), []
        return taken

    def fill(self, request: Any) -> None:
        """Set the fields of ``request``, and its content type to that of the file.

        A format that neither request nor form names is taken from the file's name. Raises
        ValueInvalid for a field that the request does not have, that cannot be read, or to which
        the query has given another value.
        """
        given = type(request)()
        for name, text in self._fields.items():
            try:
                json_format.ParseDict(_nest_field(request, name, text), given)
            except json_format.ParseError:
                reason = f"of the form is {text[:_SHOWN]!r}, which cannot be read"
                raise ValueInvalid.of(name, reason) from None
        for field, value in given.ListFields():
            if field in dict(request.ListFields()) and getattr(request, field.name) != value:
                raise ValueInvalid.of(field.name, "is given twice, by the query and the form")
        request.MergeFrom(given)
        if not request.format:
            request.format = format_of_suffix(self.file_name)
        request.file.content_type = "" if self.file_type in _UNKNOWN_TYPES else self.file_type
        if not request.format and not request.file.content_type:
            reason = f"is not shown by the file's name '{self.file_name[:_SHOWN]}': say which"
            raise ValueInvalid.of("format", reason)

    def confirm_whole(self) -> None:
        """Raise ImportTruncated unless the form has ended."""
        if not self._ended:
            raise ImportTruncated("the form ends before its last boundary")

    # --- the parser's callbacks ---

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise ImportFormatInvalid(f"the form has more than {_MOST_PARTS} parts")
        self._headers.clear()

    def _begin_header(self) -> None:
        self._header.clear()
        self._text.clear()

    def _end_header(self) -> None:
        self._headers[bytes(self._header).lower()] = self._text.decode("utf-8", "replace")

    def _end_headers(self) -> None:
        self._text.clear()
        if self._headers.get(b"content-transfer-encoding", "binary").lower() == "base64":
            raise ImportFormatInvalid("the form holds a part in base64: send it as it is")
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("latin-1")
        file_name = options.get(b"filename")
        if file_name is not None:
            self._name = None
            if file_name:  # a browser sends a part without a name if no file was chosen
                self._begin_file(file_name.decode("latin-1"))
        elif self.begun:
            raise ValueInvalid.of(name[:_SHOWN], "stands after the file of the form, not before")
        elif name in self._fields:
            raise ValueInvalid.of(name[:_SHOWN], "is given twice by the form")
        elif len(self._fields) == MOST_FIELDS:
            raise ImportFormatInvalid(f"the form has more than {MOST_FIELDS} fields")
        else:
            self._name = name

    def _begin_file(self, name: str) -> None:
        if self.begun:
            raise ImportFormatInvalid("the form has more than one file")
        self.begun = self._in_file = True
        self.file_name = name
        self.file_type = self._headers.get(b"content-type", "").partition(";")[0].strip().lower()

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._file.append(data[start:end])
            return
        self._size += end - start
        if self._size > FIELD_BYTES:
            raise ImportFormatInvalid(f"the fields of the form exceed {FIELD_BYTES >> 10} KiB")
        self._text += data[start:end]

    def _end_part(self) -> None:
        if self._name is not None:
            self._fields[self._name] = self._text.decode("utf-8", "replace")
        self._in_file, self._name = False, None

    def _end(self) -> None:
        if not self.begun:
            raise ImportFormatInvalid("the form has no file")
        self._ended = True


def _nest_field(request: Any, name: str, text: str) -> dict[str, Any]:
    """Proto JSON that sets one field of a request, whose path may lead into messages.

    Raises ValueInvalid if there is no such field.
    """
    message, found = request.DESCRIPTOR, None
    steps = name.split(".")
    for step in steps:
        members = {} if message is None else message.fields_by_name
        found = members.get(step) or (message and message.fields_by_camelcase_name.get(step))
        if found is None or steps[0] == _FILE:
            raise ValueInvalid.of(name[:_SHOWN], "of the form is not a parameter of an import")
        message = found.message_type
    value: Any = text
    if found is not None and found.type == FieldDescriptor.TYPE_BOOL:
        value = {"true": True, "false": False}.get(text, text)
    for step in reversed(steps):
        value = {step: value}
    assert isinstance(value, dict), "a path has a step"
    return value
