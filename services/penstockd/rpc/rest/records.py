"""Records in the bodies of calls: read as imports read them, by the names that the caller sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from google.protobuf.message import Message

from penstockd.catalog.leniency import STRICT, TRUNCATING, Leniency
from penstockd.catalog.merging import MergePatch
from penstockd.catalog.model import Field, Kind
from penstockd.catalog.oneofs import OneofCheck
from penstockd.catalog.record import Codec
from penstockd.catalog.scalars import ValueRefused, type_name
from penstockd.catalog.values import Parser, json_parser
from penstockd.policy.view import View
from penstockd.rpc.rest.problems import Problems, join_path
from penstockd.rpc.rest.values import follow_steps
from penstockd.store.rows import stored_row
from penstockd.writes.incoming import check_fields

#: Kinds whose values are texts in a message, which the command checks once more.
_TEXTS = (Kind.STRING, Kind.DECIMAL, Kind.DATE)
#: Kinds whose values are objects, which merge patches change in part.
_MERGING = (Kind.MAP, Kind.STRUCT)


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """What a body says of a record."""

    #: None if it cannot be made.
    message: Message | None = None
    #: The paths of the fields that the body names.
    present: Sequence[str] = ()
    #: How maps and Structs change, by the paths of their fields. The message has what they make of
    #: nothing.
    merges: Mapping[str, MergePatch] = dataclass_field(default_factory=dict)


@dataclass(slots=True)
class _RecordReading:
    """One record on its way in: the values, the paths of the fields that it names, and texts that
    are no values of their fields."""

    row: list[Any]
    problems: Problems
    #: Whether the record is one of several: then each that is wrong may be refused by itself.
    among: bool
    #: Whether maps and Structs merge with what is stored (RFC 7396).
    patches: bool
    present: list[str] = dataclass_field(default_factory=list)
    texts: dict[Field, str] = dataclass_field(default_factory=dict)
    merges: dict[str, MergePatch] = dataclass_field(default_factory=dict)

    def value(self, field: Field, given: Any, parse: Parser) -> Any:
        """The value that a member gives its field; of what merges, as far as it is given. Raises
        ValueRefused."""
        if not self.patches or type(given) is not dict or field.kind not in _MERGING:
            return parse(given)
        patch = self.merges[field.path] = MergePatch.of(field, given, parse)
        return patch.merged()

    def refuse(self, field: Field, value: Any, path: str, reason: str) -> None:
        """Note that a value is wrong. A wrong text of one of several records stays for the command,
        which names it together with what else is wrong with the record."""
        if self.among and field.kind in _TEXTS and type(value) is str and "\0" not in value:
            self.texts[field] = value
        else:
            self.problems.add(path, reason)


class RecordBodies:
    """Reads records of a dataset as far as a View shows their fields. Made by ``View.prepared``.

    A hidden field is unknown. Fields that the hub writes itself are ignored (AIP-203), apart from
    the etag, which states what the caller expects (AIP-154).
    """

    #: What is accepted beyond the rules.
    leniency = STRICT

    def __init__(self, view: View) -> None:
        self._fields = view.dataset.fields
        self._codec = Codec(view.dataset, self._fields)
        places = {f: i for i, f in enumerate(self._fields)}
        self._oneofs = OneofCheck(view.dataset, self._fields)
        self._members = _RecordMembers(view.fields(), places, view, self.leniency, 0)

    def read(
        self, value: Any, problems: Problems, path: str, *, patches: bool = False
    ) -> ReadRecord:
        """The record of an object; if it cannot be made, ``problems`` has the reasons.

        With ``patches`` it is a merge patch. Raises PermissionDenied for a field that the caller
        sees, but not whole.
        """
        row: list[Any] = [None] * len(self._fields)
        reading, before = _RecordReading(row, problems, bool(path), patches), problems.count
        self._members.fill(value, reading, path)
        for place, problem in self._oneofs.problems(row):
            problems.add(join_path(path, place), problem)
        if problems.count > before:
            return ReadRecord(None, reading.present)
        message = self._codec.message(stored_row(self._fields, row))
        for field, text in reading.texts.items():
            _put_text(message, field, text)
        return ReadRecord(message, reading.present, reading.merges)


class TruncatingBodies(RecordBodies):
    """The same, but digits of a second after the sixth are cut off."""

    leniency = TRUNCATING


class BlindReader:
    """Reads nothing of a record of which the caller sees nothing: the command refuses the call."""

    def read(
        self, value: Any, problems: Problems, path: str, *, patches: bool = False
    ) -> ReadRecord:
        """No record, and no fault."""
        return ReadRecord()


class _RecordMembers:
    """The members of a message at one level of a record."""

    def __init__(
        self,
        fields: Sequence[Field],
        places: dict[Field, int],
        view: View,
        leniency: Leniency,
        depth: int,
    ) -> None:
        self._view = view
        self.prefix = ".".join(fields[0].steps[:depth]) if fields else ""
        self._leaves: dict[str, tuple[int, Field, Parser | None]] = {}
        self._nested: dict[str, tuple[str, _RecordMembers]] = {}
        self._names: list[str] = []
        below: dict[tuple[str, str], list[Field]] = {}
        for field in fields:
            names = field.json_steps[depth], field.steps[depth]
            if len(field.steps) > depth + 1:
                below.setdefault(names, []).append(field)
                continue
            read = field.is_etag or (view.is_whole(field) and not field.output_only)
            parse = json_parser(field, leniency) if read else None
            self._leaves |= dict.fromkeys(names, (places[field], field, parse))
            self._names.append(names[0])
        for names, members in below.items():
            nested = _RecordMembers(members, places, view, leniency, depth + 1)
            self._nested |= dict.fromkeys(names, (names[1], nested))
            self._names.append(names[0])

    def fill(self, value: Any, reading: _RecordReading, path: str) -> None:
        """Take the members of an object."""
        if type(value) is not dict:
            reading.problems.add(path, f"must be an object, not {type_name(value)}")
            return
        given: set[str] = set()
        for name, inner in value.items():
            at = join_path(path, name)
            leaf, nested = self._leaves.get(name), self._nested.get(name)
            if leaf is not None:
                own = leaf[1].steps[-1]
            elif nested is not None:
                own = nested[0]
            else:
                reading.problems.unknown(at, self._names)
                continue
            if own in given:
                reading.problems.add(at, "is given twice, by both of its names")
                continue
            given.add(own)
            if leaf is not None:
                self._fill_leaf(leaf, inner, reading, at)
            elif nested is not None:
                if inner is None:
                    reading.present.append(nested[1].prefix)
                else:
                    nested[1].fill(inner, reading, at)

    def _fill_leaf(
        self,
        leaf: tuple[int, Field, Parser | None],
        value: Any,
        reading: _RecordReading,
        path: str,
    ) -> None:
        place, field, parse = leaf
        reading.present.append(field.path)
        if value is None:
            return
        if parse is None:
            check_fields(self._view, [field.path])  # refuses what is not the hub's own to write
            return
        try:
            reading.row[place] = reading.value(field, value, parse)
        except ValueRefused as refused:
            reading.refuse(field, value, path, refused.reason)


def _put_text(message: Any, field: Field, text: str) -> None:
    setattr(follow_steps(message, field.steps[:-1]), field.steps[-1], text)
