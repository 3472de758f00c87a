"""The file formats: ``open_writer`` and ``open_reader`` write and read files in them.

``pick_format`` chooses the format that a call asks for.

CSV, JSON, NDJSON, XML, Parquet, Arrow and XLSX are written and read.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence

from werkzeug.http import parse_accept_header

from penstockd.catalog.model import Dataset, Field
from penstockd.errors import FormatUnknown, ValueInvalid
from penstockd.formats.columnar_reader import ArrowReader, ParquetReader, XlsxReader
from penstockd.formats.columns import ArrowWriter, JsonArrowWriter
from penstockd.formats.columns import import_arrow as _arrow
from penstockd.formats.compression import COMPRESSIONS, Unpacker, compress_writer
from penstockd.formats.compression import find_compression as _compression
from penstockd.formats.csv_reader import CsvReader
from penstockd.formats.json_reader import JsonReader, NdjsonReader
from penstockd.formats.options import FROM_FILE, ReadOptions
from penstockd.formats.parquet import JsonParquetWriter, ParquetWriter
from penstockd.formats.reading import BadRow, Reader, RowBatch
from penstockd.formats.writing import (
    CsvWriter,
    DocumentWriter,
    JsonWriter,
    NdjsonWriter,
    SafeCsvWriter,
    XmlWriter,
)
from penstockd.formats.xlsx import XlsxWriter
from penstockd.formats.xml_reader import XmlReader
from penstockd.native.errors import FormatError
from penstockd.native.kernel import compile_ahead as _warm_kernel
from penstockd.spools import SpoolPlace

__all__ = [
    "MEDIA",
    "READERS",
    "WRITERS",
    "BadRow",
    "DocumentWriter",
    "FormatError",
    "ReadOptions",
    "Reader",
    "RowBatch",
    "describe_loss",
    "format_of_suffix",
    "load_ahead",
    "open_reader",
    "open_writer",
    "pick_format",
]

#: The most bytes of an Accept header that is read: a longer one costs too much time.
ACCEPT_BYTES = 4096
#: By name, in the order of preference for `Accept: */*` and of listings in messages.
WRITERS: dict[str, type[DocumentWriter]] = {
    "JSON": JsonWriter,
    "NDJSON": NdjsonWriter,
    "CSV": CsvWriter,
    "XML": XmlWriter,
    "PARQUET": ParquetWriter,
    "ARROW": ArrowWriter,
    "XLSX": XlsxWriter,
}
READERS: dict[str, type[Reader]] = {
    "JSON": JsonReader,
    "NDJSON": NdjsonReader,
    "CSV": CsvReader,
    "XML": XmlReader,
    "PARQUET": ParquetReader,
    "ARROW": ArrowReader,
    "XLSX": XlsxReader,
}
#: Writers whose cells no spreadsheet runs as a formula.
_SAFE: dict[str, type[DocumentWriter]] = {"CSV": SafeCsvWriter, "XLSX": XlsxWriter}
#: Writers of lists and maps as JSON text, in formats that have types for them.
_JSON_NESTED: dict[str, type[DocumentWriter]] = {
    "PARQUET": JsonParquetWriter,
    "ARROW": JsonArrowWriter,
}
_SUFFIXES = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".json": "JSON",
    ".ndjson": "NDJSON",
    ".jsonl": "NDJSON",
    ".xml": "XML",
    ".parquet": "PARQUET",
    ".arrow": "ARROW",
    ".arrows": "ARROW",
    ".xlsx": "XLSX",
}
#: The formats by their media types, in the order of preference.
MEDIA = {
    "application/json": "JSON",
    "application/x-ndjson": "NDJSON",
    "application/ndjson": "NDJSON",
    "application/jsonl": "NDJSON",
    "text/csv": "CSV",
    "application/xml": "XML",
    "text/xml": "XML",
    "application/vnd.apache.parquet": "PARQUET",
    "application/x-parquet": "PARQUET",
    "application/vnd.apache.arrow.stream": "ARROW",
    "application/vnd.apache.arrow.file": "ARROW",
    XlsxWriter.content_type: "XLSX",
}


def open_writer(
    name: str,
    dataset: Dataset,
    fields: Sequence[Field],
    *,
    compression: str = "",
    spreadsheet_safe: bool = False,
    nested: str = "",
    bom: bool | None = None,
) -> DocumentWriter:
    """A writer for one export of ``fields``; FormatUnknown if the format does not exist.

    ``compression`` is GZIP, ZSTD or "", in any case; ``spreadsheet_safe`` disarms CSV cells that a
    spreadsheet would run as a formula; XLSX has no such cells. Raises ValueInvalid for another
    compression, and for ``spreadsheet_safe`` with a format that no spreadsheet opens. ``nested`` is
    JSON, in any case, for lists and maps as JSON text in Parquet and Arrow; raises ValueInvalid for
    any other value that is not empty, and with other formats. ``bom`` begins CSV with a
    byte order mark; None does so if the file is ``spreadsheet_safe``.
    """
    known = _known_format(name, WRITERS)
    if spreadsheet_safe and known not in _SAFE:
        reason = f"is for {' and '.join(_SAFE)} alone"
        raise ValueInvalid.of("spreadsheet_safe", reason)
    if nested and (nested.upper() != "JSON" or known not in _JSON_NESTED):
        raise ValueInvalid.of("nested", f"is JSON, and for {' and '.join(_JSON_NESTED)} alone")
    chosen = _SAFE if spreadsheet_safe else _JSON_NESTED if nested else WRITERS
    if bom and known != "CSV":
        raise ValueInvalid.of("bom", "is for CSV alone")
    writer = chosen[known](dataset, fields)
    if isinstance(writer, CsvWriter):
        writer.marked = spreadsheet_safe if bom is None else bom
    return compress_writer(writer, compression)


def open_reader(
    name: str,
    dataset: Dataset,
    fields: Sequence[Field],
    options: ReadOptions = FROM_FILE,
    *,
    spool_place: SpoolPlace | None = None,
) -> Reader:
    """A reader for one file that may hold ``fields``; FormatUnknown if the format does not exist.

    Compression that ``options`` does not name is detected by the file's first bytes. ValueInvalid
    for an option that is not understood, or that this format does not have. ``spool_place`` is for
    temporary files.
    """
    by = _compression(options.compression)
    known = _known_format(name, READERS)
    if options.delimiter and known != "CSV":
        raise ValueInvalid.of("delimiter", "is for CSV alone")
    made = READERS[known](dataset, fields, options)
    made.unpacker = Unpacker(by)
    made.spool_place = spool_place or SpoolPlace()
    return made


def load_ahead() -> None:
    """Load what the first export or import would wait for: the kernel now, and Arrow, which takes
    half a second, in a thread."""
    _warm_kernel()
    threading.Thread(target=_arrow, name="arrow", daemon=True).start()


def pick_format(
    format: str,
    accept: str | None,
    *,
    among: Collection[str] = (),
    media: Mapping[str, str] = MEDIA,
) -> str:
    """The name of the format that a call asks for: by name in any case, else by media type.

    ``accept`` is an ``Accept`` or ``Content-Type`` header. ``among`` are the names of the formats
    that there are; all, if it is empty. ``media`` are the formats by their media types; the
    first is chosen if neither is given, or if the header accepts anything. Raises FormatUnknown,
    which lists the formats, for an unknown name and for a header that names no media type of ours.
    """
    offered = [name for name in dict.fromkeys(media.values()) if not among or name in among]
    if format:
        return _known_format(format, offered)
    ranges = parse_accept(accept or "*/*")
    nothing = (0.0, 0)
    wanted: dict[str, tuple[float, int]] = {}
    for kind in [kind for kind, name in media.items() if name in offered]:
        # The most specific range decides (RFC 9110, 12.5.1): a quality of 0 excludes.
        kinds = (kind, kind.partition("/")[0] + "/*", "*/*")
        wanted[kind] = next((ranges[each] for each in kinds if each in ranges), nothing)
    best = max(wanted, key=wanted.__getitem__)  # of equal ones, the first
    if wanted[best] > nothing:
        return media[best]
    raise FormatUnknown(f"'{(accept or '')[:200]}' is not a media type of {_join_names(offered)}")


def describe_loss(format: str) -> str:
    """What a format of exports cannot hold exactly, in a sentence; "" if it holds all."""
    return WRITERS[format].loss if format in WRITERS else ""


def format_of_suffix(file_name: str) -> str:
    """The format that the suffix of a file's name shows, such as "x.csv" or "x.csv.gz"; or ""."""
    stem = file_name.lower()
    for packed in COMPRESSIONS.values():
        stem = stem.removesuffix(packed.suffix)
    return next((name for suffix, name in _SUFFIXES.items() if stem.endswith(suffix)), "")


def parse_accept(accept: str) -> dict[str, tuple[float, int]]:
    """The media ranges of an Accept header (RFC 9110, 12.5.1), each with its quality and, to rank
    those of equal quality, its place from the end. A range of quality 0 is (0, 0): it excludes.

    Malformed ranges are left out. A header of more than ACCEPT_BYTES has no range.
    """
    found = dict[str, tuple[float, int]]()
    if len(accept) > ACCEPT_BYTES:
        return found
    items = parse_accept_header(accept.lower())
    for place, (item, quality) in enumerate(items):
        media = item.partition(";")[0].strip()
        if media:
            rank = (float(quality), len(items) - place) if quality > 0 else (0.0, 0)
            found[media] = max(found.get(media, rank), rank)
    return found


def _known_format(name: str, formats: Collection[str]) -> str:
    if (upper := name.upper()) in formats:
        return upper
    raise FormatUnknown(f"unknown format '{name[:40]}': choose one of {_join_names(formats)}")


def _join_names(formats: Collection[str]) -> str:
    return ", ".join(formats)
