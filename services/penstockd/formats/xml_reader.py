"""XML input: one element per record, as in exports. Document types are refused outright.

The parser is expat, fed piece by piece: only the current row of the document is kept. It opens no
file and no address, and since a document type is refused where it begins, the only entities are the
five predefined ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.parsers import expat

from penstockd.catalog.leniency import Leniency
from penstockd.catalog.model import Dataset, Field
from penstockd.catalog.values import (
    ValueRefused,
    default_value,
    implicit_defaults,
    json_parser,
    text_parser,
    to_text,
)
from penstockd.formats.options import FROM_FILE, ReadOptions
from penstockd.formats.reading import ROW_LIMIT, BadRow, Reader, RowBatch, check_receipt
from penstockd.formats.xml_tree import FILLED, Tree, XmlNode, nil_names, node_of, read_nil
from penstockd.native.errors import FormatError

#: Nested elements, including the root.
DEPTH_LIMIT = 100

_ROOT, _ROW = 1, 2  # depths
_SHOWN = 200  # characters of a name to show
_UNFINISHED = {
    expat.errors.codes[text]
    for text in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
}
_ENCODINGS = ("utf-8", "utf-16", "us-ascii", "iso-8859-1")


class XmlReader(Reader):
    """``<customers><customer>…</customer>…</customers>``; members in any order, each once.

    An absent element is NULL, or the default of a field that cannot be NULL, and so is one with
    ``xsi:nil="true"``, whose prefix the root or the element itself declares; an empty one is an
    empty text. An empty element of a nested message makes the message present. A processing
    instruction or comment ``penstock-receipt`` may follow the root.
    """

    names_no_encoding = False

    def __init__(
        self, dataset: Dataset, fields: Sequence[Field], options: ReadOptions = FROM_FILE
    ) -> None:
        super().__init__(dataset, fields, options)
        self._columns = [_XmlColumn(f, self.leniency) for f in self.fields]
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.buffer_size = 1 << 16
        parser.ordered_attributes = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        parser.ProcessingInstructionHandler = self._instruction
        parser.CommentHandler = self._comment
        parser.XmlDeclHandler = self._declaration
        self._fed = 0  # bytes fed to the parser
        self._row_at = 0  # where the current row begins
        self._depth = 0  # of the current element
        self._skip = 0  # depth of an element that is skipped with all its content
        self._record = self._level = _XmlMessage(self.offered, self.fields, 0)
        self._above: list[_XmlMessage] = []
        self._cells: list[Any] = []
        self._leaf = -1  # the place of the field that is being read
        self._pieces: list[str] = []
        self._tree: Tree | None = None  # of the repeated field that is being read
        self._nils: frozenset[str] = frozenset()  # the names of xsi:nil
        self._null, self._null_path = False, ""  # whether the current element is null, and its path
        self._refused: BadRow | None = None
        self._ended = self._receipt = False
        self._read = RowBatch([], [])

    def _take(self, data: bytes, final: bool) -> tuple[int, RowBatch | None]:
        self._fed += len(data)
        try:
            self._parser.Parse(data, final)
        except expat.ExpatError as error:
            raise self._malformed(error, final) from None
        if self._depth >= _ROW:
            self._check_size()
        if self._fed - self._parser.CurrentByteIndex > ROW_LIMIT + len(data):
            raise FormatError("has a tag or comment longer than 1 MiB", row=self.rows + 1)
        read, self._read = self._read, RowBatch([], [])
        return len(data), self._converted(read)

    def _malformed(self, error: expat.ExpatError, final: bool) -> FormatError:
        if final and error.code in _UNFINISHED:
            reason = "the file ends before the end of the document"
            return FormatError(reason, self._at(), truncated=True)
        what = expat.errors.messages[error.code]
        place = f"line {error.lineno}, column {error.offset + 1}"
        return FormatError(f"is not well-formed XML: {what} at {place}", self._at())

    def _at(self) -> int | None:
        """The number of the current row, or of the next one; None outside the root."""
        if self._depth >= _ROW:
            return self.rows
        return self.rows + 1 if self._depth else None

    def _check_size(self) -> None:
        if self._parser.CurrentByteIndex - self._row_at > ROW_LIMIT:
            raise FormatError("is longer than 1 MiB", row=self.rows)

    # --- the parser's callbacks -------------------------------------------------------------

    def _start(self, name: str, attributes: list[str]) -> None:
        self._depth = depth = self._depth + 1
        if depth > DEPTH_LIMIT:
            raise FormatError(f"is nested deeper than {DEPTH_LIMIT} elements", self._at())
        if self._skip:
            return
        if depth <= _ROW:
            self._start_outer(name, attributes)
        elif self._tree is not None:
            try:
                if not self._tree.start(name, attributes):
                    self._skip = depth
            except ValueRefused as refused:
                self._refuse(self.fields[self._leaf].path, refused.reason)
        elif self._null:
            self._refuse(self._null_path, FILLED)
        elif self._leaf >= 0:
            self._refuse(self.fields[self._leaf].path, f"holds an element <{name[:_SHOWN]}>")
        else:
            self._start_member(name, attributes)

    def _start_member(self, name: str, attributes: list[str]) -> None:
        """An element of a record, or of a message in it."""
        null = False
        if attributes:
            null, attributes = read_nil(attributes, self._nils)
        member = self._level.members.get(name)
        if attributes and not self._ignores(name):
            self._refuse(self._path(name), f"has an attribute '{attributes[0][:_SHOWN]}'")
        elif member is not None and (self._level, name) in self._nulls:
            self._refuse(self._path(name), "is given twice")
        elif null and member is not None and not self._is_given(name, member):
            self._nulls.add((self._level, name))
            self._null, self._null_path = True, self._path(name)
        elif type(member) is int and self._cells[member] is None:
            self._leaf = member
        else:
            self._start_other(name, member)

    def _is_given(self, name: str, member: int | XmlNode | _XmlMessage) -> bool:
        place = self._level.places.get(name, -1)
        return member in self._present or (place >= 0 and self._cells[place] is not None)

    def _start_other(self, name: str, member: int | XmlNode | _XmlMessage | None) -> None:
        """An element of a record that is not a simple value, is given twice or is unknown."""
        level = self._level
        place = level.places.get(name, -1)
        if place >= 0 and self._cells[place] is not None:
            self._refuse(self._path(name), "is given twice")
        elif isinstance(member, _XmlMessage):
            if member in self._present:
                self._refuse(self._path(name), "is given twice")
                return
            self._present.add(member)
            self._above.append(level)
            self._level = member
        elif isinstance(member, XmlNode):
            path = self.fields[place].path
            self._leaf = place
            self._tree = Tree(member, path, self.leniency.unknown, self._nils)
        elif name in level.passed:
            self._skip = self._depth
        elif self.leniency.unknown is not None:
            self.leniency.unknown.note(self._path(name))
            self._skip = self._depth
        else:
            self._refuse(self._path(name), "is not a field of the dataset")

    def _ignores(self, name: str) -> bool:
        """Whether an element is ignored because no field has its name."""
        known = name in self._level.members or name in self._level.passed
        return not known and self.leniency.unknown is not None

    def _start_outer(self, name: str, attributes: list[str]) -> None:
        """The root, or a record in it."""
        row = self._depth == _ROW
        wanted = self.dataset.singular if row else self.dataset.name
        if name != wanted:
            what = "is" if row else "the root element is"
            number = self.rows + 1 if row else None
            raise FormatError(f"{what} <{name[:_SHOWN]}>, not <{wanted}>", number)
        if not row:
            self._nils = nil_names(attributes)
        else:
            self.rows += 1
            self._row_at = self._parser.CurrentByteIndex
            self._cells, self._refused = [None] * len(self._columns), None
            self._present: set[object] = set()
            self._nulls: set[tuple[_XmlMessage, str]] = set()
            if attributes:
                self._refuse("", f"has an attribute '{attributes[0][:_SHOWN]}'")

    def _text(self, text: str) -> None:
        if self._skip:
            return
        if self._null:
            self._refuse(self._null_path, FILLED)
        elif self._leaf < 0:
            if not text.isspace():
                if self._depth < _ROW:
                    raise FormatError("there is text outside the records", row=self.rows + 1)
                self._refuse(self._level.path, "has text beside its elements")
        elif self._tree is None:
            self._pieces.append(text)
        else:
            try:
                self._tree.text(text)
            except ValueRefused as refused:
                self._refuse(self.fields[self._leaf].path, refused.reason)

    def _end(self, _: str) -> None:
        self._depth = depth = self._depth - 1
        if self._skip:
            if depth >= self._skip:
                return
            self._skip = 0
            if depth > _ROOT:
                return
        elif self._null:
            self._null = False
            return
        elif self._leaf >= 0:
            self._end_value()
            return
        if depth == _ROOT:
            self._end_row()
        elif depth == 0:
            self._ended = True
        else:
            for place, value in self._level.defaults:
                if self._cells[place] is None:
                    self._cells[place] = value
            self._level = self._above.pop()

    def _end_value(self) -> None:
        """The current field has ended, or a part of it."""
        if self._tree is None:
            self._cells[self._leaf] = "".join(self._pieces)
            self._pieces.clear()
        elif self._tree.end():
            self._cells[self._leaf] = self._tree.value
            self._tree = None
        else:
            return
        self._leaf = -1

    def _end_row(self) -> None:
        self._check_size()
        if self._refused is not None:
            self._read.bad.append(self._refused)
            return
        assert isinstance(self._read.numbers, list)
        self._read.numbers.append(self.rows)
        self._read.rows.append(self._cells)

    def _refuse(self, path: str, reason: str) -> None:
        """Mark the row as bad and skip the rest of it."""
        self._refused = BadRow(self.rows, path, reason)
        self._skip = _ROW
        self._leaf, self._tree, self._null = -1, None, False
        self._pieces.clear()
        self._level = self._record
        self._above.clear()

    def _path(self, name: str) -> str:
        path = self._level.path
        return f"{path}.{name}"[:_SHOWN] if path else name[:_SHOWN]

    def _doctype(self, *_: object) -> None:
        raise FormatError("the file declares a document type, which is not accepted")

    def _declaration(self, _: str, encoding: str | None, __: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise FormatError(f"the file's encoding is '{encoding[:40]}': use UTF-8")

    def _instruction(self, target: str, data: str) -> None:
        if self._receipt:
            raise FormatError("something follows the receipt")
        if target == "penstock-receipt":
            if not self._ended:
                raise FormatError("the receipt comes before the end of the root element")
            self._receipt = True
            check_receipt(data, self.rows)

    def _comment(self, text: str) -> None:
        target, _, data = text.strip().partition(" ")
        if target == "penstock-receipt":
            self._instruction(target, data)

    # --- values ----------------------------------------------------------------------------

    def _converted(self, read: RowBatch) -> RowBatch:
        if not read.rows:
            return read
        try:
            columns = [
                column.convert(cells)
                for column, cells in zip(self._columns, zip(*read.rows, strict=True), strict=True)
            ]
        except ValueRefused:  # some row is bad; _rowwise finds which one and why
            return self._rowwise(read)
        return RowBatch(read.numbers, list(map(list, zip(*columns, strict=True))), read.bad)

    def _rowwise(self, read: RowBatch) -> RowBatch:
        good, rows, bad = [], [], read.bad
        for number, cells in zip(read.numbers, read.rows, strict=True):
            row = []
            for column, cell in zip(self._columns, cells, strict=True):
                try:
                    row.append(column.parse(cell))
                except ValueRefused as refused:
                    bad.append(BadRow(number, column.field.path, refused.reason))
                    break
            else:
                good.append(number)
                rows.append(row)
        return RowBatch(good, rows, sorted(bad, key=lambda b: b.row))


class _XmlMessage:
    """The meaning of the elements of a record, or of a message in it."""

    def __init__(self, offered: Sequence[Field], fields: Sequence[Field], depth: int) -> None:
        self.path = ".".join(offered[0].steps[:depth]) if offered else ""
        #: By name: the place of a simple field, the node of a repeated one, or a message.
        self.members: dict[str, int | XmlNode | _XmlMessage] = {}
        self.places: dict[str, int] = {}
        self.passed: set[str] = set()
        #: Default cells of the leaves that a present message always has.
        self.defaults: list[tuple[int, Any]] = []
        implicit = implicit_defaults(fields)
        below: dict[str, list[Field]] = {}
        for field in offered:
            name = field.steps[depth]
            if len(field.steps) > depth + 1:
                below.setdefault(name, []).append(field)
            elif field.output_only:
                self.passed.add(name)
            else:
                place = self.places[name] = fields.index(field)
                self.members[name] = node_of(field) if field.repeated else place
                if place in implicit:
                    value = implicit[place]
                    cell = value if field.repeated else to_text(field, value)
                    self.defaults.append((place, cell))
        for name, members in below.items():
            self.members[name] = _XmlMessage(members, fields, depth + 1)


class _XmlColumn:
    """Converts a field's cells to values; a cell is a text, a repeated field's tree, or None."""

    def __init__(self, field: Field, leniency: Leniency) -> None:
        self.field = field
        make = json_parser if field.repeated else text_parser
        self._parse = make(field, leniency)

    def parse(self, cell: Any) -> Any:
        """The value of one cell; raises ValueRefused."""
        if cell is not None:
            return self._parse(cell)
        return None if self.field.nullable else default_value(self.field)

    def convert(self, cells: Sequence[Any]) -> list[Any]:
        """The values of many cells; raises ValueRefused."""
        if None in cells:
            return [self.parse(c) for c in cells]
        return list(map(self._parse, cells))
