"""Keys as text: the one spelling of a record's key in paths, feeds, webhooks and the store.

The key of a dataset is one field, or several in the order of the schema. A whole number is spelled
with its digits. The parts of a key of several fields are joined by ``~``; within a string, ``~`` is
written ``%7E`` and ``%`` is written ``%25``, so that every key has one spelling and every spelling
means one key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

from google.protobuf.message import Message

from penstockd.catalog.model import MAX_KEY_BYTES, Dataset, Field, Kind
from penstockd.catalog.scalars import ValueRefused, text_parser

WHOLE_KINDS: Final = frozenset({Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64})
#: The kinds of fields that a key may have.
KEY_KINDS: Final = WHOLE_KINDS | {Kind.STRING}

JOINER: Final = "~"
#: The field of requests that contains the key as text if no field of the record does.
REQUEST_KEY: Final = "key"
#: Reads the key of a row of some fields.
ReadKey = Callable[[Sequence[Any]], str]

#: Control characters, and the ends of lines and paragraphs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPED_PART = re.compile("(?:[^%]|%25|%7E)*")
_WHOLE_NUMBER = re.compile("0|-?[1-9][0-9]{0,19}")


def join_key(parts: Sequence[Any]) -> str:
    """The text of the key with these values."""
    if len(parts) == 1:
        return str(parts[0])
    return JOINER.join([_escape_part(p) if isinstance(p, str) else str(p) for p in parts])


def split_key(dataset: Dataset, key: str) -> list[Any]:
    """The values of a key. Raises ValueRefused unless ``join_key`` spells them in this way."""
    fields = dataset.key_fields
    if not dataset.joins_key:
        return [key]
    texts = key.split(JOINER) if len(fields) > 1 else [key]
    if len(texts) != len(fields):
        names = JOINER.join(f.path for f in fields)
        raise ValueRefused(f"must be written {names}, with ~ and % in a part as %7E and %25")
    return [_read_part(field, text) for field, text in zip(fields, texts, strict=True)]


def key_reader(dataset: Dataset, fields: Sequence[Field]) -> ReadKey:
    """Reads the key of rows that have values of ``fields``, all fields of the key among them."""
    if not dataset.joins_key:
        read: ReadKey = itemgetter(fields.index(dataset.key))
        return read
    parts = parts_reader(dataset, fields)
    return lambda row: join_key(parts(row))


def parts_reader(
    dataset: Dataset, fields: Sequence[Field]
) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Reads the values of the key's fields from such rows."""
    first, *others = (fields.index(f) for f in dataset.key_fields)
    if not others:
        return lambda row: (row[first],)
    return itemgetter(first, *others)


def key_paths(dataset: Dataset) -> str:
    """The fields of the key, in the form of a list of fields."""
    return ",".join(f.path for f in dataset.key_fields)


def message_key(dataset: Dataset, record: Message) -> str:
    """The key of a record."""
    return join_key([getattr(record, f.path) for f in dataset.key_fields])


def key_problems(dataset: Dataset, parts: Sequence[Any]) -> list[tuple[str, str]]:
    """The faults of the values of a key, each with the path of its field.

    A key is part of a path, percent-encoded: it may contain any character but control characters,
    and must not be empty, too long, or a segment by which paths are normalised.
    """
    found = []
    for field, value in zip(dataset.key_fields, parts, strict=True):
        if isinstance(value, str) and (problem := _text_problem(value)):
            found.append((field.path, problem))
    if found:
        return found
    first, text = dataset.key_fields[0].path, join_key(parts)
    if len(text.encode()) > MAX_KEY_BYTES:
        return [(first, f"is longer than {MAX_KEY_BYTES} bytes")]
    if text in (".", ".."):
        return [(first, f"may not be '{text}'")]
    return []


def _text_problem(text: str) -> str:
    if not text:
        return "is required"
    if not text.isprintable() and _CONTROL.search(text):
        return "contains a control character, which a key must not have"
    return ""


def _escape_part(text: str) -> str:
    if "%" not in text and JOINER not in text:
        return text
    return text.replace("%", "%25").replace(JOINER, "%7E")


def _read_part(field: Field, text: str) -> Any:
    if field.kind is Kind.STRING:
        if not _ESCAPED_PART.fullmatch(text):
            raise ValueRefused("holds a % that is neither %25 nor %7E")
        return text.replace("%7E", JOINER).replace("%25", "%")
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueRefused(f"needs a whole number as {field.path}, written as 10 or -10")
    try:
        return text_parser(field)(text)
    except ValueRefused as exc:
        raise ValueRefused(f"{field.path} {exc.reason}") from None
