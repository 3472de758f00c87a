"""Checks that a message agrees with the path of its REST call.

The sidecar makes a message of path, query and body. If two of them name the same field, the path
does not always win. Whoever judges or logs a call by its path (a proxy, a firewall rule, a reader
of access logs) must be right, so the hub compares the two, by one rule for all methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from penstockd.errors import RequestMalformed, ValueInvalid, Violation

#: Headers by which the sidecar describes a REST call; it removes them from what callers send.
PATH, VERB = "x-envoy-original-path", "x-envoy-original-method"

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^{}]+))?\}")
_ESCAPED = re.compile(rb"%[0-9A-Fa-f]{2}")
_RESERVED = frozenset(bytes([byte]) for byte in b":/?#[]@!$&'()*+,;=")
_INTEGERS = frozenset(
    {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
    | {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
)

#: Whether a value of a message equals a part of a path, which is percent-encoded.
Same = Callable[[Any, str], bool]


@dataclass(frozen=True, slots=True)
class Bound:
    """A field that a path binds: its path in the message, and how the two are compared."""

    path: str
    steps: tuple[str, ...]
    same: Same

    def value(self, message: Any) -> Any:
        """The field's value in a message."""
        for step in self.steps:
            message = getattr(message, step)
        return message


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to reach a method by REST: a verb, a path, and the fields that it binds."""

    verb: str
    pattern: re.Pattern[str]
    bound: tuple[Bound, ...]


class Bindings:
    """All ways to reach a method by REST."""

    def __init__(self, method: MethodDescriptor) -> None:
        self.all_bindings = tuple(
            _make_binding(method, verb, path) for verb, path in http_rules(method)
        )
        #: Whether there is anything to compare.
        self.any = any(b.bound for b in self.all_bindings)
        if self.any and method.client_streaming:
            raise TypeError(f"{method.full_name}: a path cannot bind fields of a stream's messages")

    def check(self, metadata: Mapping[str, str], message: Any) -> None:
        """Raise ValueInvalid if a message and the path of its call name different things.

        A call that did not come by REST has no path. Raises RequestMalformed for a path that is not
        one of the method's.
        """
        asked = metadata.get(PATH)
        if asked is None:
            return
        path, verb = asked.partition("?")[0], metadata.get(VERB)
        for binding in self.all_bindings:
            if verb is not None and verb != binding.verb:
                continue
            if (match := binding.pattern.fullmatch(path)) is not None:
                for bound, text in zip(binding.bound, match.groups(), strict=True):
                    if not bound.same(bound.value(message), text):
                        raise _path_differs(bound.path)
                return
        raise RequestMalformed("the path does not belong to the method")


def http_rules(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    """Verb and path template of each way to reach a method by REST."""
    raw = method.GetOptions().SerializeToString()
    options = descriptor_pb2.MethodOptions.FromString(raw)
    if not options.HasExtension(annotations_pb2.http):  # type: ignore[arg-type,unused-ignore]
        return
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]  # type: ignore[index,unused-ignore]
    for each in (rule, *rule.additional_bindings):
        kind = each.WhichOneof("pattern")
        if kind == "custom":
            yield each.custom.kind, each.custom.path
        elif kind is not None:
            yield kind.upper(), getattr(each, kind)


def _make_binding(method: MethodDescriptor, verb: str, template: str) -> Binding:
    pattern, bound, at = "", [], 0
    for found in _VARIABLE.finditer(template):
        within = found[2] or "*"
        pattern += segment_pattern(template[at : found.start()]) + f"({segment_pattern(within)})"
        bound.append(_make_bound(method, found[1], whole_segment=within == "*"))
        at = found.end()
    pattern += segment_pattern(template[at:])
    return Binding(verb, re.compile(pattern + "/?"), tuple(bound))


def segment_pattern(template: str) -> str:
    """A regular expression for a part of a template without variables."""
    escaped = re.escape(template)
    return escaped.replace(r"\*\*", ".+").replace(r"\*", "[^/]+")


def _make_bound(method: MethodDescriptor, path: str, *, whole_segment: bool) -> Bound:
    steps, message = tuple(path.split(".")), method.input_type
    for step in steps[:-1]:
        inner = message.fields_by_name[step].message_type
        assert inner is not None, "a path goes through messages only"
        message = inner
    return Bound(path, steps, _choose_comparison(message.fields_by_name[steps[-1]], whole_segment))


def _choose_comparison(field: FieldDescriptor, whole_segment: bool) -> Same:
    """How a field's value is compared. Raises TypeError for kinds that no path should bind."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and field.type == field.TYPE_STRING:
        return _same_segment if whole_segment else same_segments
    if field.cpp_type in _INTEGERS:
        return _same_integer
    raise TypeError(f"{field.full_name}: a path binds texts and whole numbers only")


def _same_segment(value: str, text: str) -> bool:
    if "%" not in text:
        return value == text
    return value.encode() == unquote_to_bytes(text)


def same_segments(value: str, text: str) -> bool:
    """Compare several segments, in which the sidecar keeps reserved escapes, such as "%2F"."""
    return value.encode() == _ESCAPED.sub(_decode_escape, text.encode())


def _decode_escape(escaped: re.Match[bytes]) -> bytes:
    byte = unquote_to_bytes(escaped[0])
    return escaped[0] if byte in _RESERVED else byte


def _same_integer(value: int, text: str) -> bool:
    try:
        return value == int(unquote_to_bytes(text))
    except ValueError:
        return False


def _path_differs(path: str) -> ValueInvalid:
    violation = Violation(path, "differs from the path of the call")
    return ValueInvalid(f"{path}: differs from the path of the call", violations=[violation])
