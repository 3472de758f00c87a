"""Reads shapes backwards: turns the columns of a file into the fields of records again.

A column can be read back if each text can come from only one value of the field. Imports refuse
other columns, unless the definition says that imports skip them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from penstockd.calls import Call
from penstockd.catalog import Field, FieldClass, Kind
from penstockd.catalog.scalars import to_json, to_text
from penstockd.catalog.values import ValueRefused, default_value, text_parser, value_checker
from penstockd.errors import PermissionDenied, ValueInvalid, Violation
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.shapes.columns import ShapedView
from penstockd.shapes.formats import DIRECTIVES, split_time_format
from penstockd.shapes.model import NumberFormat, ShapeColumn, ShapeDefinition

Parse = Callable[[Any], Any]

_WHOLE = frozenset({Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64})
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
#: The characters that occur in texts of these kinds.
_ALPHABETS = {
    Kind.BOOL: "truefals",
    Kind.DATE: "0123456789-",
    **dict.fromkeys(_WHOLE, "0123456789-"),
}


class NotInvertible(ValueError):
    """A column cannot be read back; the text completes "cannot be read back: …"."""


@dataclass(frozen=True, slots=True)
class ReadColumn:
    """A column that an import reads: ``written`` describes it in files, ``target`` is the field
    that gets its values; None if the import skips the column.

    ``parse`` turns a value of the file, or None, into the field's canonical value. It raises
    ValueRefused.
    """

    written: Field
    target: Field | None
    parse: Parse


class ShapeInverse:
    """The columns of a shape as an import reads them."""

    def __init__(self, view: View, document: str) -> None:
        """Find how each column is read back in a View. Raises ValueInvalid for a shape that the
        View cannot fill."""
        shaped = ShapedView(view, document)
        definition = ShapeDefinition.parse(document)
        self.columns: list[ReadColumn] = []
        #: Why columns cannot be read back, by name; without skipped columns.
        self.problems: dict[str, str] = {}
        self._list = shaped.rows.list
        taken: dict[Field, str] = {}
        for column, made in zip(definition.columns, shaped.columns, strict=True):
            source = shaped.rows.names.get(column.field) if column.field else None
            if column.skip_on_import or (source is not None and source.output_only):
                self.columns.append(_skip_column(made.field))
                continue
            if self._list is not None:
                self.problems[column.name] = f"a row is an element of '{self._list.path}'"
                continue
            try:
                read = _invert_column(source, column, made.field)
                if read.target in taken:
                    raise NotInvertible(f"the column '{taken[read.target]}' has the same field")
            except NotInvertible as refused:
                self.problems[column.name] = str(refused)
                continue
            assert read.target is not None, "only skipped columns have none"
            taken[read.target] = column.name
            self.columns.append(read)

    def check(self, writable: Sequence[Field]) -> None:
        """Raise ValueInvalid. It names each column that cannot be read back or whose field is not
        writable, each key field without a column, and a list whose elements are the rows."""
        if self._list is not None:
            raise ValueInvalid.of(
                "shape.rows",
                f"cannot be read back: a row is an element of '{self._list.path}', and an import"
                " writes whole records",
            )
        found = [
            Violation(
                f"shape.columns[{name}]",
                f"cannot be read back: {why}; set skip_on_import to leave it out",
            )
            for name, why in self.problems.items()
        ]
        targets = {c.target: c.written.path for c in self.columns if c.target is not None}
        found += [
            Violation(f"shape.columns[{name}]", f"you may not write the field '{field.path}'")
            for field, name in targets.items()
            if field not in writable
        ]
        keys = [f for f in writable if f.in_key]
        found += [Violation("shape", text) for text in self.find_lack(keys).values()]
        if found:
            raise ValueInvalid(f"{found[0].field}: {found[0].description}", violations=found)

    def find_lack(self, keys: Sequence[Field]) -> Mapping[str, str]:
        """Why no record can be found by the columns, by ""; empty if they have all of the keys."""
        targets = {c.target for c in self.columns}
        lacks = [f"'{f.path}'" for f in keys if f not in targets]
        return {"": f"lacks a column for the key {' and '.join(lacks)}"} if lacks else {}


def _skip_column(made: Field) -> ReadColumn:
    # Nothing reads its cells: in formats with types they may have any type.
    written = Field(
        made.path, made.json_path, Kind.STRING, FieldClass.PUBLIC, nullable=True, output_only=True
    )
    return ReadColumn(written, None, lambda value: None)


def _invert_column(source: Field | None, column: ShapeColumn, made: Field) -> ReadColumn:
    """Raises NotInvertible."""
    if column.constant is not None:
        raise NotInvertible("it is a constant")
    if source is None:
        raise NotInvertible("it is computed")
    parse = _invert_steps(source, column)
    written = made
    if parse is None:
        parse = value_checker(source)
    elif made.kind is not Kind.STRING:
        raise AssertionError("every step makes text")
    if column.default is not None:
        parse = _invert_default(parse, made, column.default)
    absent = _fill_absent(source)

    def read(value: Any) -> Any:
        found = None if value is None else parse(value)
        return absent() if found is None else found

    return ReadColumn(written, source, read)


def _fill_absent(field: Field) -> Callable[[], Any]:
    if field.nullable:
        return lambda: None
    return lambda: default_value(field)


def _invert_steps(field: Field, column: ShapeColumn) -> Parse | None:
    """Text of the file -> canonical value; None if the column has no steps. Raises
    NotInvertible."""
    parse: Parse | None = None
    now = field
    if (separator := column.join) is not None:
        parse, now = _split_list(field, separator), _text_field(field)
    if column.values:
        parse = _chain_steps(_map_back(now, column.values, column.otherwise), parse)
    if column.number is not None:
        parse = _read_number(now, column.number)
    if column.time:
        parse = _read_time(now, column.time)
    return parse


def _chain_steps(first: Parse, then: Parse | None) -> Parse:
    return first if then is None else lambda value: then(first(value))


def _text_field(field: Field) -> Field:
    return Field(field.path, field.json_path, Kind.STRING, FieldClass.PUBLIC, nullable=True)


def _invert_default(parse: Parse, made: Field, default: str) -> Parse:
    """``parse``, but the default becomes None. Raises NotInvertible if it may also be a value."""
    try:
        value = text_parser(made)(default)
        parse(value)
    except ValueRefused:
        return lambda found: None if found == default else parse(found)
    raise NotInvertible(f"its default '{default[:40]}' may also be a value")


def _split_list(field: Field, separator: str) -> Parse:
    """The parser of a joined list. Raises NotInvertible if an element may contain the separator."""
    element = field.element
    assert element is not None, "only lists are joined"
    if element.kind is Kind.ENUM:
        alphabet = "".join(element.enum_values or ())
    elif element.kind in _ALPHABETS:
        alphabet = _ALPHABETS[element.kind]
    else:
        raise NotInvertible("its elements may contain the separator")
    if not separator or set(separator) & set(alphabet):
        raise NotInvertible("its separator may occur in an element")
    parse, check = text_parser(element), value_checker(field)

    def read(text: str) -> Any:
        parts = text.split(separator) if text else []
        return check([to_json(element, parse(part)) for part in parts])

    return read


def _map_back(field: Field, values: Mapping[str, str], otherwise: str | None) -> Parse:
    """The parser of mapped values. Raises NotInvertible if two values may have one text."""
    parse = text_parser(field)
    domain = _list_domain(field)
    if domain is not None:
        back: dict[str, str] = {}
        for value in domain:
            text = values.get(value, value if otherwise is None else otherwise)
            if text in back:
                raise NotInvertible(f"'{back[text]}' and '{value}' have the text '{text[:40]}'")
            back[text] = value

        def find(text: str) -> Any:
            if text not in back:
                raise ValueRefused(f"'{text[:40]}' is none of {', '.join(back)}"[:300])
            return parse(back[text])

        return find
    if otherwise is not None:
        raise NotInvertible(f"all other values have the text '{otherwise[:40]}'")
    back = {}
    for value, text in values.items():
        if text in back:
            raise NotInvertible(f"'{back[text]}' and '{value}' have the text '{text[:40]}'")
        if text not in values and (field.kind is Kind.STRING or _NUMBER.fullmatch(text)):
            raise NotInvertible(f"'{text[:40]}' may also be an unmapped value")
        back[text] = value

    def restore(text: str) -> Any:
        if text not in back and text in values:
            raise ValueRefused(f"'{text[:40]}' is written as '{values[text][:40]}'")
        return parse(back.get(text, text))

    return restore


def _list_domain(field: Field) -> Sequence[str] | None:
    """All values of a boolean or enum field, as text; None for fields of other kinds."""
    if field.kind is Kind.BOOL:
        return "true", "false"
    if field.kind is Kind.ENUM:
        names = {number: name for name, number in reversed([*(field.enum_values or {}).items()])}
        return [name for _, name in sorted(names.items())]
    return None


def _read_number(field: Field, format: NumberFormat) -> Parse:
    """The parser of a formatted number. Raises NotInvertible if the format loses digits or is
    ambiguous."""
    if field.kind in (Kind.FLOAT, Kind.DOUBLE):
        raise NotInvertible("its field has no fixed number of digits, so it is rounded")
    if field.kind is Kind.DECIMAL and field.scale > format.decimals:
        raise NotInvertible(f"it keeps {format.decimals} of {field.scale} digits after the point")
    point, group = format.decimal_separator, format.group_separator
    for text in (point, group):
        if set(text) & set("0123456789-"):
            raise NotInvertible("a separator may be part of a number")
    if group and (group in point or point in group):
        raise NotInvertible("its separators may be mistaken for each other")
    parse, whole = text_parser(field), field.kind in _WHOLE
    grouped = _grouped_number(point, group)

    def read(text: str) -> Any:
        if group and not grouped.fullmatch(text):
            raise ValueRefused(f"'{text[:40]}' is not a number in the shape's format")
        plain = text.replace(group, "") if group else text
        if point != ".":
            # A point has no meaning in this format: the text must not pass for a number.
            plain = plain.replace(".", "?").replace(point, ".", 1)
        if not _NUMBER.fullmatch(plain):
            raise ValueRefused(f"'{text[:40]}' is not a number in the shape's format")
        if "." in plain:
            plain = plain.rstrip("0").rstrip(".")
        if whole and "." in plain:
            raise ValueRefused(f"'{text[:40]}' is not a whole number")
        return parse(plain)

    return read


def _grouped_number(point: str, group: str) -> re.Pattern[str]:
    """A number with all of its groups, or with none: a group's separator that stands elsewhere may
    be meant as a point."""
    mark, joint = re.escape(group), re.escape(point)
    return re.compile(rf"-?(?:[0-9]{{1,3}}(?:{mark}[0-9]{{3}})*|[0-9]+)(?:{joint}[0-9]+)?")


def _read_time(field: Field, format: str) -> Parse:
    """The parser of a formatted date or time. Raises NotInvertible if the format lacks a part."""
    parts = split_time_format(format)
    used = [part for part in parts if part in DIRECTIVES]
    needed = {"%Y", "%m", "%d"} if field.kind is Kind.DATE else set(DIRECTIVES)
    if missing := sorted(needed - set(used)):
        raise NotInvertible(f"its format lacks {', '.join(missing)}")
    if len(set(used)) < len(used):
        raise NotInvertible("its format contains a part twice")
    widths = {"%Y": 4, "%f": 6}
    pattern = "".join(
        f"([0-9]{{{widths.get(part, 2)}}})"
        if part in DIRECTIVES
        else re.escape("%" if part == "%%" else part)
        for part in parts
    )
    expected = re.compile(pattern)

    def read(text: str) -> Any:
        found = expected.fullmatch(text)
        if found is None:
            raise ValueRefused(f"'{text[:40]}' does not have the format {format[:40]}")
        numbers = dict(zip(used, map(int, found.groups()), strict=True))
        try:
            day = date(numbers["%Y"], numbers["%m"], numbers["%d"])
            if field.kind is Kind.DATE:
                return text_parser(field)(day.isoformat())
            clock = time(numbers["%H"], numbers["%M"], numbers["%S"], numbers["%f"], UTC)
            moment = datetime.combine(day, clock)
        except ValueRefused:
            raise
        except ValueError as error:
            raise ValueRefused(f"'{text[:40]}' is not a date: {error}") from None
        return text_parser(field)(to_text(field, moment))

    return read


def list_import_problems(call: Call, dataset: str, document: str) -> Mapping[str, str]:
    """Why imports refuse columns of a shape, by name, judged by the caller's View for reading; why
    they refuse the shape as a whole, by "".

    Empty if that View cannot fill the shape, or the caller cannot read the dataset.
    """
    try:
        view = call.policy.view(call.principal, dataset, Action.READ)
        inverse = ShapeInverse(view, document)
    except (PermissionDenied, ValueInvalid):
        return {}
    whole = {} if inverse.problems else inverse.find_lack(view.dataset.key_fields)
    return {**inverse.problems, **whole}
