"""Reports of the hub's own as pages for reading and printing, and as cells that spreadsheets open.

A page is one file: it has its style with it, runs nothing and asks for nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from penstockd.formats import MEDIA, WRITERS
from penstockd.formats.writing import quote_cell


class FileKind(NamedTuple):
    """The media type of a file and the suffix of its name."""

    content_type: str
    suffix: str


HTML = "HTML"
#: The kinds of files in which a report leaves, by the names of their formats.
REPORT_FILES: Mapping[str, FileKind] = {
    **{n: FileKind(WRITERS[n].content_type, WRITERS[n].suffix) for n in ("JSON", "CSV", "XML")},
    HTML: FileKind("text/html; charset=utf-8", ".html"),
}
#: These formats by their media types.
REPORT_MEDIA: Mapping[str, str] = {
    **{media: name for media, name in MEDIA.items() if name in REPORT_FILES},
    "text/html": HTML,
}
#: What makes a spreadsheet run a cell as a formula, if the cell begins with it.
_ACTIVE = ("=", "+", "-", "@", "\t", "\r")
_STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 system-ui, sans-serif; color: #16202a; background: #fff; margin: 2rem auto;
  max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 1.75rem 0 .25rem; border-top: 1px solid #c9d2da;
  padding-top: .75rem; break-after: avoid; }
p { margin: .25rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .5rem; overflow-wrap: break-word;
  border: 1px solid #c9d2da; }
th { background: #eef2f5; }
tr { break-inside: avoid; }
thead { display: table-header-group; }
@page { margin: 14mm; }
@media print { body { font-size: 9.5pt; margin: 0; max-width: none; padding: 0; }
  .scroll { overflow: visible; } th { print-color-adjust: exact; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def begin_page(title: str, lines: Iterable[str]) -> str:
    """A page up to the end of its heading, which has a title and lines below it."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{_write_lines(lines)}"
    )


def end_page() -> str:
    """The end of a page."""
    return "</body>\n</html>\n"


def render_section(title: str, lines: Iterable[str]) -> str:
    """The heading of a section, and lines below it."""
    return f"<h2>{escape(title)}</h2>\n{_write_lines(lines)}"


def _write_lines(lines: Iterable[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>\n" for line in lines)


def render_table(
    caption: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> str:
    """A table; ``columns`` are the titles of the members of rows. Without rows there is none."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in columns.values())
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(write_value(row.get(n)))}</td>' for n in columns)}</tr>\n"
        for row in rows
    )
    titled = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{titled}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def write_value(value: Any) -> str:
    """A value of a document for a cell: lists are joined by spaces."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return " ".join(map(write_value, value))
    if isinstance(value, dt.datetime):
        return write_time(value)
    return str(value)


def write_time(time: dt.datetime) -> str:
    """A time as JSON has it, to the second."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_csv_row(values: Iterable[Any]) -> str:
    """A row of CSV. Text that a spreadsheet would run as a formula starts with an apostrophe."""
    return ",".join(quote_cell(_disarm_cell(value)) for value in values) + "\n"


def _disarm_cell(value: Any) -> str:
    text = write_value(value)
    return (
        f"'{text}" if isinstance(value, str | list | tuple) and text.startswith(_ACTIVE) else text
    )


def name_in_json(value: Any) -> Any:
    """A document with names and values as JSON of protobuf has them; what is None is left out."""
    return _convert_document(value, _to_camel)


def name_in_xml(value: Any) -> Any:
    """The same with the names of the model."""
    return _convert_document(value, str)


def _convert_document(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {
            rename(n): _convert_document(each, rename)
            for n, each in value.items()
            if each is not None
        }
    if isinstance(value, list | tuple):
        return [_convert_document(each, rename) for each in value]
    return write_time(value) if isinstance(value, dt.datetime) else value


def _to_camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
