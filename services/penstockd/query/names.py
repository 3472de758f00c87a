"""The names that a query may use. A View implements them; hidden fields do not exist in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement

from penstockd.catalog import Field

#: Turns a predicate on a referenced record into one on the record that refers to it, as
#: ``EXISTS (SELECT … WHERE <the reference> AND <the predicate>)``. It must never be NULL.
Wrap = Callable[[ColumnElement[bool]], ColumnElement[bool]]


class Names(Protocol):
    """The fields of one dataset as one caller sees them."""

    def fields(self) -> Sequence[Field]:
        """The visible fields, in the order of the schema."""
        ...

    def field(self, path: str) -> Field | None:
        """The visible field with this ``path`` or ``json_path``; None if there is none.

        If a mask changes the kind of value that the caller sees (a hash of a number is text), the
        returned field has that ``kind``.
        """
        ...

    def members(self, field: Field) -> Sequence[Field]:
        """The visible members of a field that is a list or map of messages."""
        ...

    def column(self, field: Field) -> ColumnElement[Any]:
        """What the caller sees of the field, as SQL: a column or a masking expression.

        Its SQL type is the one for ``field.kind``; jsonb for LIST and MAP. A plain ``Column`` of a
        field that is not ``nullable`` is never NULL; an expression may be.
        """
        ...

    def follow(self, alias: str) -> tuple[Names, Wrap] | None:
        """The names of the dataset that a reference leads to, and the way there.

        For row rules (``customer.status = ACTIVE``). The views that callers query return None.
        """
        ...
