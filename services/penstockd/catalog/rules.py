"""The model's rules for values beyond their types: those of ``buf.validate`` in the protos.

The protovalidate library checks single records. For the rows of batches and files the rules are
compiled, once, into plain checks (see ``checks``) with the same results, as a test proves. If a
dataset has a rule without such a form, the library checks its rows in bulk, too: slower, but not
less.

Rules apply to what is written: canonical values of the fields that a writer gives.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import protovalidate
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.catalog.checks import (
    IGNORE_ALWAYS,
    FieldRules,
    NoPlainForm,
    compile_rules,
    format_subscript,
)
from penstockd.catalog.model import VALUE_MESSAGES, Dataset, Field, ModelError
from penstockd.catalog.oneofs import OneofCheck, oneofs_of
from penstockd.catalog.record import Codec

EXTENSION = "buf.validate"


class Problem(NamedTuple):
    """A fault of a record: its place ("lines[0].quantity"; "" for the whole record), and a
    description."""

    path: str
    description: str


class RequiredRule(NamedTuple):
    """Whether a field is required, and how many characters or items it has at least."""

    required: bool
    least: int


class Rules:
    """The rules of one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._validator = protovalidate.Validator()
        self.by_path: dict[str, FieldRules] = {}
        #: Whether a rule has no plain form: then the library checks rows.
        self.slow = False
        #: Whether there are rules over several fields, by which a part of a record cannot be
        #: checked.
        self.over_several = False
        #: The rules of fields that need no look at a value: what a record must have.
        self.needs: dict[str, RequiredRule] = {}
        self.any = self._read(dataset)
        try:
            self._empty = self._violations(dataset.message_class()) if self.any else []
        except (protovalidate.CompilationError, protovalidate.EvaluationError) as exc:
            raise ModelError(f"{dataset.name}: a rule of buf.validate is wrong: {exc}") from exc

    @classmethod
    @functools.cache
    def of(cls, dataset: Dataset) -> Rules:
        """The rules of a dataset, compiled once. Raises ModelError for an invalid rule."""
        return cls(dataset)

    def _read(self, dataset: Dataset) -> bool:
        options = _OptionReader.of(dataset)
        if options is None:
            return False
        found = False
        for field in dataset.fields:
            if field.output_only:
                continue
            fd = descriptor_of(dataset, field)
            for one in field.walk():
                if need := _find_need(options.field(descriptor_of(dataset, one))):
                    self.needs[one.path] = need
            try:
                rules = compile_rules(fd, field, options)
            except NoPlainForm:
                self.slow = found = True
                continue
            if rules is not None:
                self.by_path[field.path] = rules
                found = True
        for message in _list_messages(dataset.message_type):
            if options.message(message):
                self.slow = self.over_several = found = True
            for fd in message.fields:
                if _nested_message(fd) is not None and options.field(fd) is not None:
                    self.slow = found = True  # of the nested message itself
        return found

    def most_items(self, path: str, most: int) -> tuple[int, str]:
        """The most items of a list or map (``most``, or fewer if its rules say so), and the
        description of the fault if it has more."""
        rules = self.by_path.get(path)
        for check in rules.checks if rules is not None else ():
            if check.name in ("max_items", "max_pairs") and check.limit <= most:
                return check.limit, check.message
        return most, f"must contain no more than {most} item(s)"

    def lacking(self, fields: Sequence[Field]) -> list[Problem]:
        """Problems of a new record in fields other than ``fields``, the only ones that are
        given."""
        given = [f.path for f in fields]
        return [p for p, at in self._empty if at and not _is_covered(given, at)]

    def row(self, fields: Sequence[Field], codec: Codec, stored: Sequence[Any]) -> list[Problem]:
        """The problems of the values of ``fields`` in a complete row, as stored, found by the
        library. ``codec`` is that of ``fields``."""
        if not self.any:
            return []
        return self.message(codec.message(stored), [f.path for f in fields])

    def message(self, message: Message, given: Sequence[str]) -> list[Problem]:
        """The problems of a message that concern the ``given`` paths."""
        if not self.any:
            return []
        found = self._violations(message)
        return [p for p, at in found if not at or _is_covered(given, at)]

    def _violations(self, message: Message) -> list[tuple[Problem, str]]:
        """The violations, each with the path of its field without subscripts."""
        return [_read_violation(v.proto) for v in self._validator.collect_violations(message)]


class RowRules:
    """The rules for rows of some fields, in bulk."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._rules = rules = Rules.of(dataset)
        self._fields = tuple(fields)
        self._checked = [
            (i, f, rules.by_path[f.path]) for i, f in enumerate(fields) if f.path in rules.by_path
        ]
        self._codec = Codec(dataset, fields) if rules.slow else None
        self._present = _index_parents(self._fields)
        self._oneofs = OneofCheck(dataset, fields) if oneofs_of(dataset) else None

    def problems(self, rows: Sequence[Sequence[Any]]) -> dict[int, list[Problem]]:
        """The problems of rows of canonical values, by index of the row."""
        found: dict[int, list[Problem]] = {}
        if self._oneofs is not None:
            for index, row in enumerate(rows):
                if several := [Problem(*p) for p in self._oneofs.problems(row)]:
                    found[index] = several
        if self._codec is not None:
            given = [f.path for f in self._fields]
            for index, row in enumerate(rows):
                if index in found:
                    continue  # a message cannot hold them
                message = self._codec.message(_as_stored(self._fields, row))
                if problems := self._rules.message(message, given):
                    found[index] = problems
            return found
        for i, field, rules in self._checked:
            siblings = self._present.get(i)
            for index, row in enumerate(rows):
                value = row[i]
                if value is None and (
                    not rules.required
                    or (siblings is not None and all(row[k] is None for k in siblings))
                ):
                    continue
                for path, description in rules.problems(value, field.path):
                    found.setdefault(index, []).append(Problem(path, description))
        return found


def descriptor_of(dataset: Dataset, field: Field) -> FieldDescriptor:
    """The descriptor from which a field, or a member of a list or map, was made."""
    message: Descriptor = dataset.message_type
    *parents, name = field.steps
    for step in parents:
        inner = message.fields_by_name[step].message_type
        assert inner is not None, "a path goes through messages only"
        if inner.GetOptions().map_entry:
            inner = inner.fields_by_name["value"].message_type
            assert inner is not None, "members are those of messages"
        message = inner
    return message.fields_by_name[name]


def rules_text(dataset: Dataset) -> str:
    """All rules of a dataset as one text, so that two models can be compared: a line for every
    oneof, and one for every field, message and oneof that has rules of its own, with their bytes in
    hex. Empty if there are none."""
    options = _OptionReader.of(dataset)
    lines = [
        f"{oneof.path} one of {' '.join(m[0].path for m in oneof.members if m)}"
        for oneof in oneofs_of(dataset)
    ]
    seen: set[str] = set()
    waiting = [dataset.message_type]
    while waiting:
        message = waiting.pop()
        if message.full_name in seen:
            continue
        seen.add(message.full_name)
        waiting += [fd.message_type for fd in message.fields if fd.message_type is not None]
        if options is not None:
            lines += options.texts(message)
    return "\n".join(sorted(lines))


class _OptionReader:
    """Reads rules from the options of descriptors, which the descriptor pool itself does not
    parse."""

    def __init__(self, pool: Any) -> None:
        self._field = pool.FindExtensionByName(f"{EXTENSION}.field")
        self._message = pool.FindExtensionByName(f"{EXTENSION}.message")
        self._oneof = pool.FindExtensionByName(f"{EXTENSION}.oneof")
        find = pool.FindMessageTypeByName
        self._classes: Mapping[str, type[Message]] = {
            name: message_factory.GetMessageClass(find(f"google.protobuf.{name}"))
            for name in ("FieldOptions", "MessageOptions", "OneofOptions")
        }

    @classmethod
    def of(cls, dataset: Dataset) -> _OptionReader | None:
        """The reader; None if no proto of the model imports rules."""
        try:
            return cls(dataset.message_type.file.pool)
        except KeyError:
            return None

    def field(self, fd: FieldDescriptor) -> Any:
        """The rules of a field, None if it has none."""
        return self._extension(fd, "FieldOptions", self._field)

    def message(self, message: Descriptor) -> bool:
        """Whether a message, or a oneof in it, has rules of its own."""
        return self._extension(message, "MessageOptions", self._message) is not None or any(
            self._extension(oneof, "OneofOptions", self._oneof) is not None
            for oneof in message.oneofs
        )

    def texts(self, message: Descriptor) -> Iterator[str]:
        """A line for the message and each of its fields and oneofs that has rules."""
        parts: list[tuple[Any, str, Any]] = [(message, "MessageOptions", self._message)]
        parts += [(oneof, "OneofOptions", self._oneof) for oneof in message.oneofs]
        parts += [(fd, "FieldOptions", self._field) for fd in message.fields]
        for descriptor, kind, extension in parts:
            rules = self._extension(descriptor, kind, extension)
            if rules is not None:
                data = rules.SerializeToString(deterministic=True)
                yield f"{descriptor.full_name} {data.hex()}"

    def _extension(self, descriptor: Any, kind: str, extension: Any) -> Any:
        raw = descriptor.GetOptions().SerializeToString()
        if not raw:
            return None
        options: Any = self._classes[kind].FromString(raw)
        return options.Extensions[extension] if options.HasExtension(extension) else None


def _find_need(rules: Any) -> RequiredRule | None:
    if rules is None or rules.ignore == IGNORE_ALWAYS:
        return None
    kind = rules.WhichOneof("type") or ""
    name = {"string": "min_len", "repeated": "min_items", "map": "min_pairs"}.get(kind)
    least = getattr(getattr(rules, kind), name) if name else 0
    return RequiredRule(rules.required, least) if rules.required or least else None


def _nested_message(fd: FieldDescriptor) -> Descriptor | None:
    message = fd.message_type
    if message is None or fd.is_repeated or message.full_name in VALUE_MESSAGES:
        return None
    return message


def _list_messages(message: Descriptor) -> Iterator[Descriptor]:
    """A record's message and those that are flattened into it."""
    yield message
    for fd in message.fields:
        nested = _nested_message(fd)
        if nested is not None:
            yield from _list_messages(nested)


def _index_parents(fields: Sequence[Field]) -> dict[int, list[int]]:
    """By field of a nested message: the indexes of all fields of that message."""
    found = {}
    for i, field in enumerate(fields):
        if len(field.steps) > 1:
            prefix = ".".join(field.steps[:-1]) + "."
            found[i] = [k for k, f in enumerate(fields) if f.path.startswith(prefix)]
    return found


def _is_covered(given: Sequence[str], at: str) -> bool:
    """Whether a field's problem concerns a value that was given."""
    return any(at == g or at.startswith(g + ".") or g.startswith(at + ".") for g in given)


def _read_violation(violation: Any) -> tuple[Problem, str]:
    path, names = "", []
    for element in violation.field.elements if violation.field else ():
        names.append(element.field_name)
        path += ("." if path else "") + element.field_name
        if element.subscript is not None:
            path += format_subscript(element.subscript.value)
    description = f"key {violation.message}" if violation.for_key else violation.message
    return Problem(path, description), ".".join(names)


def _as_stored(fields: tuple[Field, ...], row: Sequence[Any]) -> list[Any]:
    return [
        orjson.dumps(v).decode() if f.is_json and v is not None else v
        for f, v in zip(fields, row, strict=True)
    ]
