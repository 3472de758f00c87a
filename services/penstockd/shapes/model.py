"""What a shape is: a named, versioned list of columns over one dataset."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from penstockd.errors import ValueInvalid, Violation
from penstockd.query.syntax import is_storable

#: The most columns of a shape, bytes of its definition, and characters of a column's name
#: and of the title.
MAX_COLUMNS, MAX_DEFINITION, MAX_NAME, MAX_TITLE = 200, 64 * 1024, 100, 200

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
#: Characters that a name must not have: of control, of direction, invisible ones.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufeff\ufffe\uffff]"
)
#: What a spreadsheet would run as a formula, also behind a separator.
_FORMULA = re.compile(r"(?:^|[;,\t])[\s\"'`]*[=+\-@]")


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How a number is written as text: rounded half away from zero to ``decimals`` digits."""

    decimals: int = 0
    decimal_separator: str = "."
    group_separator: str = ""


@dataclass(frozen=True, slots=True)
class ShapeColumn:
    """One column: exactly one of ``field``, ``constant``, ``expression`` and ``row_number`` (the
    number of the element within its record, from 1) says where its value comes from; the rest is
    applied in this order: ``join``, ``values`` with ``otherwise``, ``number`` or ``time``,
    ``default``. None means that a step is left out. Imports ignore a column with
    ``skip_on_import``.
    """

    name: str
    field: str = ""
    expression: str = ""
    constant: str | None = None
    join: str | None = None
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    otherwise: str | None = None
    number: NumberFormat | None = None
    time: str = ""
    default: str | None = None
    skip_on_import: bool = False
    row_number: bool = False


@dataclass(frozen=True, slots=True)
class ListRows:
    """Each element of the list ``field`` is a row. A record without elements has one row, in which
    the columns of elements are not set; with ``skip_empty`` it has none."""

    field: str
    skip_empty: bool = False


@dataclass(frozen=True, slots=True)
class ShapeDefinition:
    """The dataset and the columns of a shape, in the order of the receiver's file. A record is a
    row, unless ``rows`` says otherwise."""

    dataset: str
    columns: Sequence[ShapeColumn]
    title: str = ""
    rows: ListRows | None = None

    def document(self) -> bytes:
        """The definition as JSON; equal definitions have equal bytes."""
        data = dataclasses.asdict(self)
        # Earlier versions saved definitions without these.
        if self.rows is None:
            del data["rows"]
        for column in data["columns"]:
            for name in ("skip_on_import", "row_number"):
                if not column[name]:
                    del column[name]
        return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)

    @classmethod
    def parse(cls, document: str | bytes) -> ShapeDefinition:
        """The definition that ``document`` made."""
        data = orjson.loads(document)
        columns = [_load_column(column) for column in data["columns"]]
        rows = data.get("rows")
        return cls(data["dataset"], columns, data["title"], ListRows(**rows) if rows else None)


def _load_column(data: dict[str, Any]) -> ShapeColumn:
    number = data.pop("number")
    return ShapeColumn(**data, number=None if number is None else NumberFormat(**number))


def check_shape_id(shape_id: str) -> str:
    """The id, if a shape can have it. Raises ValueInvalid."""
    if not _ID.fullmatch(shape_id):
        reason = "must be lower-case letters, digits and '-', 63 at most"
        raise ValueInvalid.of("shape.shape_id", reason)
    return shape_id


def parse_reference(text: str) -> tuple[str, int]:
    """The id and version of ``id`` or ``id@version``; 0 is the latest. Raises ValueInvalid."""
    shape_id, at, version = text.partition("@")
    if at and not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise ValueInvalid.of("shape", "is an id, or an id, '@' and a version")
    return shape_id, int(version or 0)


def check_definition(definition: ShapeDefinition) -> None:
    """Raise ValueInvalid for a definition that no View could serve, with each violation."""
    found: list[Violation] = []
    if not definition.columns:
        found.append(Violation("columns", "a shape needs at least one"))
    if len(definition.columns) > MAX_COLUMNS:
        found.append(Violation("columns", f"a shape may have {MAX_COLUMNS} at most"))
    names: set[str] = set()
    for at, column in enumerate(definition.columns[:MAX_COLUMNS]):
        place = f"columns[{at}]"
        found += [Violation(f"{place}.{name}", text) for name, text in _find_faults(column)]
        # Readers such as SQL engines do not tell names apart by case.
        name = unicodedata.normalize("NFC", column.name).casefold()
        if name in names:
            found.append(Violation(f"{place}.name", f"'{column.name}' is the name of two columns"))
        names.add(name)
    if definition.rows is not None and not definition.rows.field:
        found.append(Violation("rows.field", "names the list whose elements become rows"))
    if not is_storable(definition.title) or len(definition.title) > MAX_TITLE:
        found.append(Violation("title", f"may have {MAX_TITLE} characters that values can hold"))
    if len(definition.document()) > MAX_DEFINITION:
        found.append(Violation("columns", f"a definition may have {MAX_DEFINITION} bytes at most"))
    if found:
        raise ValueInvalid(f"{found[0].field}: {found[0].description}", violations=found)


def _find_faults(column: ShapeColumn) -> list[tuple[str, str]]:
    """The members of a column that cannot be, and why."""
    faults = []
    plain = unicodedata.normalize("NFKC", column.name)
    if not column.name or len(column.name) > MAX_NAME or _UNSEEN.search(column.name):
        faults.append(("name", f"must have 1 to {MAX_NAME} characters, all of them visible"))
    elif column.name != column.name.strip():
        faults.append(("name", "cannot begin or end with a blank"))
    elif "." in column.name:
        faults.append(("name", "cannot contain a dot, which would nest it in JSON"))
    elif _FORMULA.search(plain):
        faults.append(("name", "cannot begin with =, +, - or @, which spreadsheets would run"))
    sources = [bool(column.field), bool(column.expression), column.constant is not None]
    if sum([*sources, column.row_number]) != 1:
        faults.append(("field", "write one of field, constant, expression and row_number"))
    if column.otherwise is not None and not column.values:
        faults.append(("otherwise", "goes with values"))
    if column.number is not None:
        if column.time or column.values:
            faults.append(("number", "does not go with time or values"))
        if not 0 <= column.number.decimals <= 20:
            faults.append(("number.decimals", "must be 0 to 20"))
    if column.time and column.values:
        faults.append(("time", "does not go with values"))
    if column.constant is not None and _has_steps(column):
        faults.append(("constant", "does not go with other steps"))
    return [*faults, *_find_unfit_texts(column)]


def _find_unfit_texts(column: ShapeColumn) -> list[tuple[str, str]]:
    """The members of a column whose texts no value can hold, or which are too long."""
    number = column.number or NumberFormat()
    texts = {
        "constant": column.constant,
        "join": column.join,
        "otherwise": column.otherwise,
        "time": column.time,
        "default": column.default,
        "values": "".join([*column.values, *column.values.values()]),
        "number": number.decimal_separator + number.group_separator,
    }
    faults = [
        (member, "has a character that no value can hold")
        for member, text in texts.items()
        if text and not is_storable(text)
    ]
    for member in ("join", "otherwise", "time", "number"):
        if len(texts[member] or "") > MAX_NAME:
            faults.append((member, f"may have {MAX_NAME} characters at most"))
    return faults


def _has_steps(column: ShapeColumn) -> bool:
    steps = (column.join, column.number, column.default)
    return bool(column.values or column.time) or any(step is not None for step in steps)


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """A column that differs between two versions. Positions count from 1; 0 and None stand for a
    version that lacks it."""

    name: str
    from_position: int
    to_position: int
    before: ShapeColumn | None
    after: ShapeColumn | None


def compare_columns(earlier: ShapeDefinition, later: ShapeDefinition) -> Sequence[ColumnDifference]:
    """The columns that differ: those of the later version in its order, then those it lacks.

    A column that only moved because others were added or removed does not differ.
    """
    before = {c.name: (at, c) for at, c in enumerate(earlier.columns, 1)}
    after = {c.name: (at, c) for at, c in enumerate(later.columns, 1)}
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    moved = {a for a, b in zip(kept_after, kept_before, strict=True) if a != b}
    found = []
    for name in [*after, *(n for n in before if n not in after)]:
        from_position, old = before.get(name, (0, None))
        to_position, new = after.get(name, (0, None))
        if old != new or name in moved:
            found.append(ColumnDifference(name, from_position, to_position, old, new))
    return found
