"""Reviews of access as files. Each is written in pieces, one for each consumer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import orjson

from penstockd.formats.pages import (
    HTML,
    begin_page,
    end_page,
    name_in_json,
    name_in_xml,
    render_section,
    render_table,
    write_csv_row,
    write_time,
    write_value,
)
from penstockd.formats.record_xml import XML_DECLARATION, xml_of

#: The name of the files, without a suffix.
NAME = "access-review"
TITLE = "Access review"
Document = Mapping[str, Any]


class ReviewFile(Protocol):
    """Writes a review: what it is about, its consumers, and its end."""

    def begin(self, head: Document) -> str:
        """The beginning of the file."""

    def add(self, consumer: Document) -> str:
        """The piece about a consumer."""

    def end(self) -> str:
        """The end of the file."""


class JsonReview:
    """One object: what the review is about, and the list ``consumers``."""

    def __init__(self) -> None:
        self._parted = False

    def begin(self, head: Document) -> str:
        """The beginning, up to the list."""
        return f'{orjson.dumps(name_in_json(head)).decode().removesuffix("}")},"consumers":['

    def add(self, consumer: Document) -> str:
        """One consumer."""
        comma, self._parted = "," if self._parted else "", True
        return f"{comma}\n{orjson.dumps(name_in_json(consumer)).decode()}"

    def end(self) -> str:
        """The end of the list."""
        return "\n]}\n"


class XmlReview:
    """Elements with the names of the model."""

    def begin(self, head: Document) -> str:
        """What the review is about."""
        return f"{XML_DECLARATION}\n<access_review>{xml_of(name_in_xml(head))}<consumers>\n"

    def add(self, consumer: Document) -> str:
        """One consumer."""
        return f"<item>{xml_of(name_in_xml(consumer))}</item>\n"

    def end(self) -> str:
        """The end."""
        return "</consumers></access_review>\n"


#: The columns of CSV. A row is about what ``item`` says, and other columns are empty.
CSV_COLUMNS = (
    *("consumer", "item", "title", "state", "roles", "permissions", "dataset", "actions"),
    *("may_see", "received", "no_longer", "row_filters", "surfaces", "last_use_time"),
    *("credential", "kind", "create_time", "age_days", "expire_time", "role", "action"),
    *("method", "status", "calls"),
)
#: The lists of a consumer's document, and what their rows are called.
_ITEMS = {
    "datasets": "dataset",
    "credentials": "credential",
    "unused_grants": "unused_grant",
    "denied": "denied",
}


class CsvReview:
    """A row for each consumer, then one for each of its datasets, credentials and so on."""

    def begin(self, head: Document) -> str:
        """The header."""
        return write_csv_row(CSV_COLUMNS)

    def add(self, consumer: Document) -> str:
        """The rows of a consumer."""
        return "".join(
            write_csv_row(row.get(name) for name in CSV_COLUMNS) for row in _list_rows(consumer)
        )

    def end(self) -> str:
        """Nothing."""
        return ""


def _list_rows(consumer: Document) -> Iterator[dict[str, Any]]:
    own = {name: value for name, value in consumer.items() if name not in _ITEMS}
    yield {**own, "item": "consumer", "calls": own["denied_calls"]}
    for place, item in _ITEMS.items():
        for row in consumer[place]:
            yield {"consumer": consumer["consumer"], "item": item, **row}


_TABLES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "datasets": ("Datasets", {
        "dataset": "Dataset", "actions": "May do", "may_see": "May see", "received": "Received",
        "no_longer": "Received, may see no longer", "row_filters": "Only rows",
        "surfaces": "Through", "last_use_time": "Last use",
    }),
    "credentials": ("Credentials", {
        "credential": "Credential", "kind": "Kind", "state": "State", "create_time": "Issued",
        "age_days": "Age in days", "last_use_time": "Last use", "expire_time": "Ends",
    }),
    "unused_grants": ("Unused grants", {
        "role": "Role", "dataset": "Dataset", "action": "Action", "last_use_time": "Last use",
    }),
    "denied": ("Denied attempts", {
        "dataset": "Dataset", "method": "Method", "status": "Reason", "calls": "Calls",
    }),
}  # fmt: skip


class HtmlReview:
    """A page for reading and printing, with a section for each consumer."""

    def begin(self, head: Document) -> str:
        """The heading."""
        return begin_page(TITLE, _introduce_review(head))

    def add(self, consumer: Document) -> str:
        """The section of a consumer."""
        title = consumer["consumer"]
        if consumer["title"]:
            title += f" ({consumer['title']})"
        tables = [render_table(*_TABLES[place], consumer[place]) for place in _TABLES]
        return render_section(title, _summarise_consumer(consumer)) + "".join(tables)

    def end(self) -> str:
        """The end."""
        return end_page()


def _introduce_review(head: Document) -> Iterator[str]:
    yield f"Made {write_time(head['review_time'])}, policy revision {head['policy_revision']}."
    yield (
        f"What was received and denied: since {write_time(head['start_time'])}; every call before"
        f" {write_time(head['fresh_time'])} is counted."
    )
    yield f"Unused grants: in force and not used since {write_time(head['unused_since_time'])}."


def _summarise_consumer(consumer: Document) -> Iterable[str]:
    last = write_value(consumer["last_use_time"]) or "none"
    yield f"State: {consumer['state']}. Last use: {last}."
    for name in ("roles", "permissions", "surfaces"):
        yield f"{name.capitalize()}: {', '.join(consumer[name]) or 'none'}."
    yield f"Denied attempts: {consumer['denied_calls']}."


#: The writers of files, by the names of their formats.
REVIEWS: Mapping[str, type[ReviewFile]] = {
    "JSON": JsonReview,
    "CSV": CsvReview,
    "XML": XmlReview,
    HTML: HtmlReview,
}
