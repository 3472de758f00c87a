"""Options of the vocabulary that have no effect in their place, found and named.

An option that is silently ignored is worse than no option: a class that hides nothing looks like
one that does. The model is therefore refused wherever an option has no meaning.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstock.options.v1 import options_pb2
from penstockd.catalog.model import VALUE_MESSAGES, Kind, ModelError

_WHOLE_NUMBERS = (
    *(FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64),
    *(FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64),
)


class _OptionPlace(enum.Enum):
    """The place of a message."""

    RECORD = enum.auto()
    NESTED = enum.auto()  # in the record, as part of it
    ELEMENT = enum.auto()  # in a repeated field or map


def check_record(record: Descriptor) -> set[str]:
    """The messages in a dataset's record, the record included, by their full names.

    Raises ModelError for the first option in any of them that has no effect.
    """
    seen: set[tuple[str, _OptionPlace]] = set()
    _check_message(record, _OptionPlace.RECORD, seen)
    aliases: dict[str, str] = {}
    for fd, alias in _find_references(record):
        if alias in aliases:
            raise ModelError(
                f"{fd.full_name}: '{aliases[alias]}' has the reference '{alias}' already; name "
                "this one with `as`"
            )
        aliases[alias] = fd.name
    return {name for name, _ in seen}


def check_unreached(file: descriptor_pb2.FileDescriptorProto, reached: set[str]) -> None:
    """Raise ModelError for an option in a message that is in no dataset's record."""
    for name, message in _list_messages(file.package, file.message_type):
        if name in reached:
            continue
        if message.options.HasExtension(options_pb2.dataset):
            raise ModelError(
                f"{name}: the option 'dataset' has no effect here: it marks the one message at the "
                "top of a file under penstock/model/v1"
            )
        for field in message.field:
            if field.options.HasExtension(options_pb2.field):
                raise ModelError(
                    f"{name}.{field.name}: its options have no effect: no record of a dataset "
                    "holds this message"
                )


def _check_message(
    message: Descriptor, place: _OptionPlace, seen: set[tuple[str, _OptionPlace]]
) -> None:
    """Check a message and those within it, once for every place where each occurs."""
    if (message.full_name, place) in seen:
        return
    seen.add((message.full_name, place))
    for fd in message.fields:
        for problem in _find_problems(fd, place):
            raise ModelError(f"{fd.full_name}: {problem}")
        inner = _message_of(fd)
        if inner is not None:
            within = _OptionPlace.NESTED if place is _OptionPlace.RECORD else place
            _check_message(inner, _OptionPlace.ELEMENT if fd.is_repeated else within, seen)


def _find_problems(fd: FieldDescriptor, place: _OptionPlace) -> Iterator[str]:
    options = _find_options(fd)
    if options is None:
        return
    given = [option.name for option, _ in options.ListFields()]
    encoding = options.WhichOneof("encoding")
    if encoding and encoding not in given:
        given.append(encoding)
    for option in given:
        problem = _describe_problem(fd, place, option, options)
        if problem:
            yield f"the option '{option}' has no effect here: {problem}"


def _describe_problem(fd: FieldDescriptor, place: _OptionPlace, option: str, options: Any) -> str:
    held, text = _message_of(fd), fd.type == FieldDescriptor.TYPE_STRING
    whole = fd.cpp_type in _WHOLE_NUMBERS
    match option:
        case "class":
            return _class_problem(fd, held, options)
        case "key":
            plain = place is _OptionPlace.RECORD and (text or whole) and not fd.is_repeated
            return "" if plain else "a key is a string or a whole number at the top of the record"
        case "output_only":
            if options.key:
                return "the writer chooses the key"
            if place is _OptionPlace.ELEMENT:
                return "a list or map is written whole; mark the field that holds it"
            if held is not None and not fd.is_repeated:
                return "mark the fields within the message"
        case "decimal" | "date":
            if held is not None:
                return "mark the fields within the message"
            if option == "date" and not options.date:
                return "leave it out where the text is no date"
        case "indexed" | "unique":
            return _index_problem(fd, place, option, options)
        case "reference":
            if place is _OptionPlace.ELEMENT or not (text or whole) or fd.is_repeated:
                return (
                    "a reference is one string or whole number of the record, outside lists and "
                    "maps"
                )
            if options.WhichOneof("encoding"):
                return "the key of another record is no decimal and no date"
    return ""


def _index_problem(fd: FieldDescriptor, place: _OptionPlace, option: str, options: Any) -> str:
    if options.key and option == "unique":
        return "no two records have the same key, of which a part need not be unique"
    if options.key and len(_find_keys(fd)) == 1:
        return "a key has an index"
    if place is _OptionPlace.ELEMENT or fd.is_repeated:
        return "lists and maps have no index"
    if _message_of(fd) is not None:
        return "mark the fields within the message"
    if fd.message_type is not None and VALUE_MESSAGES[fd.message_type.full_name] is Kind.STRUCT:
        return "a Struct has no index"
    if options.output_only:
        return "the hub writes the field"
    if option == "indexed" and options.unique:
        return "a unique field has an index"
    if option == "indexed" and options.HasField("reference"):
        return "a reference has an index"
    return ""


def _find_keys(part: FieldDescriptor) -> list[FieldDescriptor]:
    """All fields of a key, of which one is given."""
    assert part.containing_type is not None, "a field of a message"
    found = ((fd, _find_options(fd)) for fd in part.containing_type.fields)
    return [fd for fd, options in found if options is not None and options.key]


def _class_problem(fd: FieldDescriptor, held: Descriptor | None, options: Any) -> str:
    if options.key and getattr(options, "class") != options_pb2.PUBLIC:
        return "the key is the name of a record and always shown: it can only be PUBLIC"
    is_map = fd.message_type is not None and fd.message_type.GetOptions().map_entry
    if held is None or is_map or not held.fields:  # it is also the class of a map's keys
        return ""
    if any(_inherits_class(inner, {held.full_name}) for inner in held.fields):
        return ""
    return "every field in the message has a class of its own"


def _inherits_class(fd: FieldDescriptor, seen: set[str]) -> bool:
    """Whether a field, or a field within it, takes the class of its parent."""
    options, held = _find_options(fd), _message_of(fd)
    if options is not None and getattr(options, "class"):
        return False
    if held is None or held.full_name in seen or not held.fields:
        return True
    return any(_inherits_class(inner, seen | {held.full_name}) for inner in held.fields)


def _find_references(message: Descriptor) -> Iterator[tuple[FieldDescriptor, str]]:
    for fd in message.fields:
        options, held = _find_options(fd), _message_of(fd)
        if options is not None and options.HasField("reference"):
            yield fd, getattr(options.reference, "as") or fd.name.removesuffix("_id")
        if held is not None and not fd.is_repeated:
            yield from _find_references(held)


def _message_of(fd: FieldDescriptor) -> Descriptor | None:
    """The message type of a field, of its elements or of its map's values."""
    of = fd.message_type
    if of is not None and of.GetOptions().map_entry:
        of = of.fields_by_name["value"].message_type
    return None if of is None or of.full_name in VALUE_MESSAGES else of


def _find_options(fd: FieldDescriptor) -> Any:
    options: Any = fd.GetOptions()
    known = options_pb2.field
    return options.Extensions[known] if options.HasExtension(known) else None


def _list_messages(scope: str, messages: Any) -> Iterator[tuple[str, Any]]:
    for message in messages:
        name = f"{scope}.{message.name}"
        yield name, message
        yield from _list_messages(name, message.nested_type)
