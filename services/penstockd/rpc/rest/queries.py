"""Query parameters of calls, strictly: each is a field of the method's request."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.catalog.scalars import ValueRefused
from penstockd.errors import RequestMalformed
from penstockd.rpc.rest.problems import Problems, join_path, suggest_name
from penstockd.rpc.rest.values import fill_message, follow_steps, known_message, text_value

#: The most parameters of a call, and of messages within messages that a name may lead through.
MOST_PARAMETERS, MOST_DEPTH = 500, 4
_MASK = "update_mask"
#: After so many faults, no similar names are looked for.
_HINTS = 20


def parse_query(text: str) -> list[tuple[str, str]]:
    """The parameters of a query, in order. A plus is a space. Raises RequestMalformed."""
    if not text:
        return []
    try:
        return parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
        )
    except UnicodeDecodeError:
        raise RequestMalformed("the query is not UTF-8") from None
    except ValueError:
        raise RequestMalformed(f"the query has more than {MOST_PARAMETERS} parameters") from None


class QueryReader:
    """Reads the query of one method's calls."""

    def __init__(self, request: Descriptor, taken: Collection[str]) -> None:
        """``taken`` are the paths of fields that path or body set, which the query may not."""
        fields = list(_list_fields(request, "", "", MOST_DEPTH, taken))
        self._fields = {names: (steps, field) for steps, field, *every in fields for names in every}
        self._names = [every[0] for _, _, *every in fields]

    def read(
        self, given: Sequence[tuple[str, str]], message: Message, body: Collection[str] = ()
    ) -> None:
        """Put parameters into a request, of which the body has set the fields ``body``.

        Raises ValueInvalid, which names all parameters that are wrong.
        """
        problems, found = Problems(), set[FieldDescriptor]()
        for name, text in given:
            if name not in self._fields:
                # Looking for similar names takes time, so it is done for the first few.
                hint = suggest_name(name, self._names) if problems.count < _HINTS else ""
                problems.add(join_path("", name), f"is not a parameter of this method{hint}")
                continue
            try:
                self._read_one(name, text, message, body, found)
            except ValueRefused as refused:
                problems.add(join_path("", name), refused.reason)
        problems.raise_any()

    def _read_one(
        self,
        name: str,
        text: str,
        message: Message,
        body: Collection[str],
        found: set[FieldDescriptor],
    ) -> None:
        """Raises ValueRefused."""
        steps, field = self._fields[name]
        if field in found and not field.is_repeated:
            raise ValueRefused("is given more than once")
        found.add(field)
        holder = follow_steps(message, steps)
        before = str(getattr(holder, field.name))
        _put_text(holder, field, text)
        in_body = (*steps, field.name)[0] in body
        if in_body and (field.is_repeated or str(getattr(holder, field.name)) != before):
            raise ValueRefused("differs from the body")


def _list_fields(
    kind: Descriptor, path: str, json_path: str, depth: int, taken: Collection[str]
) -> Iterator[tuple[Any, ...]]:
    """For each field that a parameter can set: the steps to its holder, the field, its JSON path,
    and its proto path."""
    for field in kind.fields:
        name, json_name = path + field.name, json_path + field.json_name
        if name in taken:
            continue
        inner = field.message_type
        if inner is None or known_message(inner) is not None:
            yield tuple(path.split(".")[:-1]), field, json_name, name
        elif not field.is_repeated and depth > 1 and inner.full_name.startswith("penstock."):
            yield from _list_fields(inner, name + ".", json_name + ".", depth - 1, taken)


def _put_text(holder: Any, field: FieldDescriptor, text: str) -> None:
    if field.message_type is not None:
        read = known_message(field.message_type)
        assert read is not None, "others are not parameters"
        if field.name == _MASK and not text.replace(",", "").strip():
            raise ValueRefused("is empty")  # a call without a mask would mean another thing
        fill_message(getattr(holder, field.name), read(text))
    elif field.is_repeated:
        getattr(holder, field.name).append(text_value(field)(text))
    else:
        setattr(holder, field.name, text_value(field)(text))


@functools.lru_cache(4096)
def query_reader(request: Descriptor, taken: tuple[str, ...]) -> QueryReader:
    """The reader of a method's queries, made once."""
    return QueryReader(request, taken)


def split_target(target: str) -> tuple[str, str]:
    """The path and the query of a call."""
    path, _, query = target.partition("?")
    return path, query
