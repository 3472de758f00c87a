"""The paths of the REST door: from verb and path to a method and the values that the path binds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from penstockd.errors import RequestMalformed, ValueInvalid

_VARIABLE = re.compile(r"\{([a-z0-9_.]+)(?:=([^{}]+))?\}")
_ESCAPED = re.compile(rb"%[0-9A-Fa-f]{2}")
_RESERVED = frozenset(bytes([byte]) for byte in b":/?#[]@!$&'()*+,;=")
_WHOLE = frozenset(
    {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
    | {FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64}
)
_NUMBER = re.compile(r"-?[0-9]{1,20}")
_BOUND = 1 << 63

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PathVariable:
    """A variable of a path: the field that it binds, by its proto names, and how it is read."""

    steps: tuple[str, ...]
    whole_number: bool
    #: Whether it is one segment; several keep reserved escapes, such as "%2F".
    one_segment: bool

    @property
    def path(self) -> str:
        """The path of the field in the request."""
        return ".".join(self.steps)

    def read(self, text: str) -> str | int:
        """The value of a part of a path. Raises RequestMalformed, and ValueInvalid for U+0000."""
        raw = unquote_to_bytes(text) if self.one_segment else _decode_plain(text)
        try:
            value = raw.decode()
        except UnicodeDecodeError:
            raise RequestMalformed(f"{self.path} in the path is not UTF-8") from None
        if (at := value.find("\0")) >= 0:
            problem = f"holds the forbidden character U+0000 at position {at + 1}"
            raise ValueInvalid.of(self.path, problem)
        if not self.whole_number:
            return value
        if not _NUMBER.fullmatch(value) or not -_BOUND <= int(value) < _BOUND:
            raise RequestMalformed(f"{self.path} in the path must be a whole number")
        return int(value)


@dataclass(frozen=True, slots=True)
class HttpRule:
    """One way to reach a method by HTTP: a verb, a path, and the field that is the body.

    ``body`` is "" without a body and "*" if the body is the whole request.
    """

    verb: str
    template: str
    body: str
    pattern: re.Pattern[str]
    variables: tuple[PathVariable, ...]

    @property
    def shape(self) -> str:
        """The template with all variables alike: equal for templates of the same paths."""
        return _VARIABLE.sub(lambda found: found[2] or "*", self.template)


@dataclass(frozen=True, slots=True)
class FoundPath(Generic[T]):
    """What serves a path: the target, the rule that matched, and the texts of its variables."""

    target: T
    rule: HttpRule
    texts: tuple[str, ...]


class Paths(Generic[T]):
    """All paths of the door. Where several templates match a path, the one with more fixed text
    wins."""

    def __init__(self, targets: Iterable[tuple[MethodDescriptor, T]]) -> None:
        rules = [(rule, target) for method, target in targets for rule in http_rules(method)]
        rules.sort(key=lambda pair: -len(_VARIABLE.sub("", pair[0].template)))
        self._rules: dict[str, list[tuple[HttpRule, T]]] = {}
        for rule, target in rules:
            self._rules.setdefault(_first_of(rule.template), []).append((rule, target))

    def find(self, verb: str, path: str) -> FoundPath[T] | None:
        """What serves a call."""
        for rule, target, match in self._matching(path):
            if rule.verb == verb:
                return FoundPath(target, rule, match.groups())
        return None

    def verbs(self, path: str, sees: Callable[[T], bool]) -> list[str]:
        """The verbs with which a caller who ``sees`` some targets can call a path, in order."""
        found = {rule.verb for rule, target, _ in self._matching(path) if sees(target)}
        if "GET" in found:
            found.add("HEAD")
        return sorted(found | {"OPTIONS"}) if found else []

    def every_rule(self) -> Iterator[tuple[HttpRule, T]]:
        """Every rule with its target."""
        for rules in self._rules.values():
            yield from rules

    def _matching(self, path: str) -> Iterator[tuple[HttpRule, T, re.Match[str]]]:
        for rule, target in self._rules.get(_first_of(path), ()):
            match = rule.pattern.fullmatch(path)
            if match is not None:
                yield rule, target, match


def _first_of(path: str) -> str:
    """The part of a path by which rules are grouped: up to the third slash, or to a colon."""
    return re.split("[/:]", path.removeprefix("/v1/"), maxsplit=1)[0]


def http_rules(method: MethodDescriptor) -> Iterator[HttpRule]:
    """The ways to reach a method by HTTP. Raises TypeError for what no path may bind."""
    raw = method.GetOptions().SerializeToString()
    options = descriptor_pb2.MethodOptions.FromString(raw)
    if not options.HasExtension(annotations_pb2.http):  # type: ignore[arg-type,unused-ignore]
        return
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]  # type: ignore[index,unused-ignore]
    for each in (rule, *rule.additional_bindings):
        kind = each.WhichOneof("pattern")
        if kind == "custom":
            yield _make_rule(method, each.custom.kind, each.custom.path, each.body)
        elif kind is not None:
            yield _make_rule(method, kind.upper(), getattr(each, kind), each.body)


def _make_rule(method: MethodDescriptor, verb: str, template: str, body: str) -> HttpRule:
    pattern, variables, at = "", [], 0
    for found in _VARIABLE.finditer(template):
        within = found[2] or "*"
        pattern += _pattern_of(template[at : found.start()]) + f"({_pattern_of(within)})"
        variables.append(_make_variable(method, found[1], one_segment=within == "*"))
        at = found.end()
    pattern += _pattern_of(template[at:])
    if variables and method.client_streaming:
        raise TypeError(f"{method.full_name}: a path cannot bind fields of a stream's messages")
    return HttpRule(verb, template, body, re.compile(pattern), tuple(variables))


def _pattern_of(template: str) -> str:
    """A regular expression for a part of a template without variables."""
    escaped = re.escape(template)
    return escaped.replace(r"\*\*", ".+").replace(r"\*", "[^/]+")


def _make_variable(method: MethodDescriptor, path: str, *, one_segment: bool) -> PathVariable:
    steps, message = tuple(path.split(".")), method.input_type
    for step in steps[:-1]:
        inner = message.fields_by_name[step].message_type
        assert inner is not None, "a path goes through messages only"
        message = inner
    field = message.fields_by_name[steps[-1]]
    if field.type == field.TYPE_STRING:
        return PathVariable(steps, False, one_segment)
    if field.cpp_type in _WHOLE:
        return PathVariable(steps, True, one_segment)
    raise TypeError(f"{field.full_name}: a path binds texts and whole numbers only")


def _decode_plain(text: str) -> bytes:
    """Decode the escapes of several segments, except those of reserved characters."""
    return _ESCAPED.sub(_decode_escape, text.encode())


def _decode_escape(escaped: re.Match[bytes]) -> bytes:
    byte = unquote_to_bytes(escaped[0])
    return escaped[0] if byte in _RESERVED else byte


def bound_values(found: FoundPath[Any]) -> Mapping[str, str | int]:
    """The values that a path binds, by the paths of their fields.

    Raises RequestMalformed for a part that is not UTF-8 or no number, ValueInvalid for U+0000.
    """
    pairs = zip(found.rule.variables, found.texts, strict=True)
    return {variable.path: variable.read(text) for variable, text in pairs}
