"""The errors of a refused query. Every text is for the client and names only what it sent.

They are here and not in ``penstockd.errors`` because they have a position in the query's text,
which nothing outside this package knows.
"""

from __future__ import annotations

from penstockd.errors import Invalid

_SHOWN = 100


class QueryError(Invalid):
    """A part of a query cannot be read or does not fit the dataset.

    ``position`` counts characters of the text from 0; None if the error has no single position.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        place = "" if position is None else f" (at character {position + 1})"
        super().__init__(message + place)
        self.position = position


class FilterError(QueryError):
    """The filter does not follow AIP-160, its limits or the types of its fields."""

    reason = "FILTER_INVALID"


class OrderError(QueryError):
    """``order_by`` cannot be read, or names a field without an order."""

    reason = "ORDER_INVALID"


class SelectionError(QueryError):
    """The selection of fields cannot be read."""


class PageTokenError(QueryError):
    """The page token was not issued here, or not for this query."""

    reason = "PAGE_TOKEN_INVALID"


class FieldUnknown(FilterError, OrderError, SelectionError):
    """The name of an unknown or hidden field; the error does not tell which.

    It is a subclass of all other errors of a query, so that a caller that expects, say, FilterError
    need not know it.
    """

    reason = "FIELD_UNKNOWN"

    def __init__(self, name: str, position: int | None = None) -> None:
        super().__init__(f"unknown field '{shorten_input(name)}'", position)


def shorten_input(text: str) -> str:
    """A client's text in the form for an error message: shortened if it is long."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
