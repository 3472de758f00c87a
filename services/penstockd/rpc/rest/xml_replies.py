"""Replies with records as XML, by the schema that exports use."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.catalog import Dataset, Field
from penstockd.formats.record_xml import XML_DECLARATION, RecordXml
from penstockd.policy.rendering import JsonPage

_HEAD = f"{XML_DECLARATION}\n".encode()


class XmlReplies:
    """Writes what a caller sees of a dataset's records as XML."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        """``fields`` are those that the records in JSON have."""
        self._dataset, self._record = dataset, RecordXml(dataset, fields)

    def encode_record(self, record: bytes) -> bytes:
        """One record in JSON as a document."""
        return _HEAD + self._record.encode(record).encode() + b"\n"

    def encode_page(self, page: JsonPage) -> bytes:
        """A page as a document, like a file of these records."""
        name = self._dataset.name.encode()
        rows = [self._record.encode(record.data).encode() + b"\n" for record in page.records]
        return b"".join((_HEAD, b"<", name, b">\n", *rows, b"</", name, b">\n"))
