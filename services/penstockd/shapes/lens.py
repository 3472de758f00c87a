"""Records of the change log in the columns of a shape: for feeds and webhooks.

The columns are computed from what the consumer's Lens shows of a record, and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from penstockd.catalog import Catalog, Field, Kind
from penstockd.catalog.values import ValueRefused, to_json, value_checker
from penstockd.errors import RecordUnreadable, ShapeUnfit
from penstockd.policy.lens import Lens
from penstockd.policy.members import Stripping
from penstockd.policy.model import Mask
from penstockd.policy.view import View
from penstockd.shapes.rows import refuse_list_rows
from penstockd.shapes.using import ChosenShape

#: The most bytes of one record in the columns of a shape, as JSON.
MAX_RECORD = 512 * 1024


class ShapedLens(Lens):
    """A Lens of the fields that a shape reads, and the shape's columns of what it shows.

    ``shape`` is pinned: a later version is another Lens, whose ``view_id`` differs.
    """

    def __init__(self, view: View, catalog: Catalog, shape: ChosenShape, filter: str = "") -> None:
        """Raise FilterError, and ValueInvalid for a shape that the View cannot fill or whose rows
        are no records."""
        self.shape, self.shaped = shape, shape.in_view(view)
        refuse_list_rows(shape.name, self.shaped.rows)
        # A shape of constants reads no field: with the key instead, its records still come and go.
        reads = self.shaped.reads or view.dataset.key_fields[:1]
        super().__init__(view, catalog, filter=filter, only=reads, form=shape.document)
        self._readers = [_make_reader(view, field) for field in reads]

    def in_view(self, view: View) -> Lens:
        """The same version of the shape in another View of the dataset."""
        return ShapedLens(view, self._catalog, self.shape, self._written[1])

    @property
    def rule_fields(self) -> str:
        """What it shows of a record, as the text of a selection (see ``Call.rule``)."""
        return self.shaped.rule_fields

    def values(self, key: str, image: bytes) -> dict[str, Any]:
        """The columns of a projected image, as JSON data; None where a column is not set.

        Raises RecordUnreadable, and ShapeUnfit if they are too large.
        """
        row = self._codec.row(self._parse(image))
        read = {}
        for field, reader, value in zip(self.fields, self._readers, row, strict=True):
            try:
                read[field.path] = None if value is None else reader(value)
            except ValueRefused:
                raise RecordUnreadable(self.dataset.name, key, field.path, repr(value)) from None
        columns = self.shaped.columns
        found = {c.field.path: to_json(c.field, c.run(read)) for c in columns}
        if _may_exceed(found) and len(orjson.dumps(found)) > MAX_RECORD:
            raise ShapeUnfit(
                f"the record '{key}' has more than {MAX_RECORD >> 10} KiB in the shape"
                f" '{self.shape.name}'"
            )
        return found

    def changed_columns(self, paths: Sequence[str]) -> list[str]:
        """The columns that read one of these fields, in the shape's order."""
        wanted = set(paths)
        columns = self.shaped.columns
        return [c.field.path for c in columns if any(f.path in wanted for f in c.reads)]


def _may_exceed(values: dict[str, Any]) -> bool:
    """Whether values may be larger than MAX_RECORD; only texts, lists and maps can."""
    return sum(len(v) for v in values.values() if isinstance(v, str)) > MAX_RECORD // 8 or any(
        isinstance(v, list | dict) for v in values.values()
    )


def _make_reader(view: View, field: Field) -> Callable[[Any], Any]:
    """A function that turns a value of a projected message into the canonical value that the View's
    SQL gives."""
    if view.mask(field) is Mask.NULL:
        return lambda value: None
    if field.kind is Kind.STRING:
        return lambda value: value
    check = value_checker(field)
    if field.repeated:
        check = _make_lenient(field, check)
    if field.kind in (Kind.ENUM, Kind.DECIMAL):
        return lambda value: _read_earlier(field, check, value)
    if view.stripping(field) is None:
        return check
    # Members are masked already, but the JSON shows removed members as defaults: strip these.
    removed = {f: _left_out(view.mask(f)) for f in field.walk()}
    stripping = Stripping(field, removed, view.hash_key)
    return lambda value: stripping.json(check(value))


def _read_earlier(field: Field, check: Callable[[Any], Any], value: Any) -> Any:
    """The value of an image, which may be of an earlier model: an enum's number that has no name
    any more is text, and a decimal keeps its digits. Raises ValueRefused."""
    try:
        return check(value)
    except ValueRefused:
        if field.kind is Kind.ENUM:
            return str(value)
        try:
            found = Decimal(value)
        except InvalidOperation:
            found = Decimal("NaN")
        if not found.is_finite():
            raise
        return found


def _make_lenient(field: Field, check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``check`` for a list or map of an image, which may be of an earlier model: an element that
    the model refuses now stays as the image has it, as in feeds without a shape."""

    def read_one(part: Any) -> Any:
        try:
            return check(part)
        except ValueRefused:
            return part

    def read(value: Any) -> Any:
        try:
            return check(value)
        except ValueRefused:
            if field.kind is Kind.MAP:
                parts = [read_one({key: held}) for key, held in value.items()]
                return {key: held for part in parts for key, held in part.items()}
            return [held for item in value for held in read_one([item])]

    return read


def _left_out(mask: Mask) -> Mask:
    return mask if mask in (Mask.HIDE, Mask.NULL) else Mask.CLEAR
