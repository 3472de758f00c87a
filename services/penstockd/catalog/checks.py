"""The plain forms of rules: closures over canonical values, and rules that the kernel can check.

They give the same results as the protovalidate library, word for word. A rule without a plain form
raises NoPlainForm; the library checks it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.unknown_fields import UnknownFieldSet

from penstock.options.v1 import options_pb2
from penstockd.catalog.model import VALUE_MESSAGES, Field, Kind
from penstockd.catalog.patterns import Pattern, PatternError
from penstockd.floats import name_odd_float

Holds = Callable[[Any], bool]

IGNORE_ALWAYS = 3
_IGNORE_IF_ZERO = 1
_EMAIL = re.compile(
    r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
)
_NO_PREFIX = re.compile(r"!this\.startsWith\('([^'\\]+)'\)")
_REQUIRED = "value is required"


class NoPlainForm(Exception):
    """Only the library can check this rule."""


class RuleOptions(Protocol):
    """Reads the rules in descriptors."""

    def field(self, fd: FieldDescriptor) -> Any:
        """The ``buf.validate.FieldRules`` of a field, or None."""

    def message(self, message: Descriptor) -> bool:
        """Whether a message has rules of its own."""


@dataclass(frozen=True, slots=True)
class Check:
    """One rule for one value; ``name`` is its field in the rules, ``limit`` the content of that
    field."""

    name: str
    limit: Any
    holds: Holds
    message: str


@dataclass(frozen=True, slots=True)
class FieldRules:
    """All rules of a field, of the elements of a repeated one, or of the keys of a map.

    ``view`` turns a canonical value into the one that the rules apply to; None if it is the same.
    """

    checks: tuple[Check, ...] = ()
    required: bool = False
    presence: bool = False
    skip_zero: bool = False
    view: Callable[[Any], Any] | None = None
    items: FieldRules | None = None
    keys: FieldRules | None = None
    members: tuple[tuple[str, str, FieldRules], ...] = ()  # JSON name, path, rules

    def problems(self, value: Any, path: str) -> Iterator[tuple[str, str]]:
        """The path and description of each fault of a value; None stands for an unset value."""
        if value is None:
            if self.required:
                yield path, _REQUIRED
            return
        seen = value if self.view is None else self.view(value)
        if self.required and not self.presence and _is_zero(seen):
            yield path, _REQUIRED
            return
        if self.skip_zero and _is_zero(seen):
            return
        for check in self.checks:
            if not check.holds(seen):
                yield path, check.message
        if self.keys is not None:
            for key in value:
                for _, description in self.keys.problems(key, path):
                    yield path + format_subscript(key), f"key {description}"
        if self.items is not None:
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for at, item in pairs:
                yield from self.items.problems(item, path + format_subscript(at))
        for name, member, rules in self.members:
            yield from rules.problems(value.get(name), f"{path}.{member}")


def format_subscript(at: Any) -> str:
    """The way in which a path names an element of a list or map."""
    return f"[{str(at).lower() if isinstance(at, bool) else repr(at)}]"


def compile_rules(fd: FieldDescriptor, field: Field, options: RuleOptions) -> FieldRules | None:
    """The rules of a field and of its content; None if there are none. Raises NoPlainForm."""
    rules = options.field(fd)
    within = None
    if field.element_message is not None and _has_rules(field.element_message, options, set()):
        within = _message_rules(field.element_message, options, ())
    if rules is None:
        return None if within is None else FieldRules(presence=True, items=within)
    if not field.repeated:
        return _value_rules(rules, _view_of(field), presence=field.presence)
    kind = rules.WhichOneof("type")
    if kind not in (None, "repeated", "map"):
        raise NoPlainForm
    _refuse_odd(rules, {"required", "ignore", kind or ""})
    if rules.ignore == IGNORE_ALWAYS:
        return None
    items, keys, checks = within, None, []
    if kind is not None:
        own = getattr(rules, kind)
        _refuse_odd(own, {*_COUNTS[kind], "items", "keys", "values"})
        checks = [
            Check(name, limit, *make(limit))
            for name, make in _COUNTS[kind].items()
            if (limit := getattr(own, name)) or own.HasField(name)
        ]
        element = own.items if kind == "repeated" else own.values
        if own.HasField("items" if kind == "repeated" else "values"):
            if field.element is None:
                raise NoPlainForm
            items = _value_rules(element, _json_view(field.element), presence=True)
        if kind == "map" and own.HasField("keys"):
            entry = fd.message_type
            assert entry is not None, "a map's elements are messages"
            if entry.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING:
                raise NoPlainForm
            keys = _value_rules(own.keys, None, presence=True)
    return FieldRules(
        tuple(checks), rules.required, False, rules.ignore == _IGNORE_IF_ZERO, None, items, keys
    )


def _has_rules(message: Descriptor, options: RuleOptions, seen: set[str]) -> bool:
    """Whether a message, or one within it, has rules. It may contain itself."""
    if message.full_name in seen:
        return False
    seen.add(message.full_name)
    if options.message(message) or any(options.field(fd) is not None for fd in message.fields):
        return True
    inner = [fd.message_type for fd in message.fields if fd.message_type is not None]
    return any(_has_rules(one, options, seen) for one in inner)


def _message_rules(
    message: Descriptor, options: RuleOptions, above: tuple[str, ...]
) -> FieldRules | None:
    """The rules within one element of a repeated field, which is proto JSON."""
    from penstockd.catalog.load import load_leaf
    from penstockd.catalog.model import FieldClass

    if message.full_name in above:
        raise NoPlainForm  # it may contain itself
    if options.message(message):
        raise NoPlainForm
    members = []
    for fd in message.fields:
        rules = options.field(fd)
        nested = fd.message_type
        if nested is not None and nested.full_name not in VALUE_MESSAGES:
            if rules is not None:
                raise NoPlainForm
            if not _has_rules(nested, options, set()):
                continue
            if nested.GetOptions().map_entry:
                raise NoPlainForm  # for the messages in a map within an element
            found = _message_rules(nested, options, (*above, message.full_name))
            if found is not None and fd.is_repeated:
                found = FieldRules(presence=True, items=found)
            if found is not None:
                members.append((fd.json_name, fd.name, found))
            continue
        if rules is None:
            continue
        own: Any = fd.GetOptions()
        held = load_leaf(
            fd, own.Extensions[options_pb2.field], fd.name, fd.json_name,
            FieldClass.PUBLIC, False, {},
        )  # fmt: skip
        if held.repeated:
            found = compile_rules(fd, held, options)
        else:
            found = _value_rules(rules, _json_view(held), presence=fd.has_presence)
        if found is not None:
            members.append((fd.json_name, fd.name, found))
    return FieldRules(presence=True, members=tuple(members)) if members else None


def _value_rules(
    rules: Any, view: Callable[[Any], Any] | None, *, presence: bool
) -> FieldRules | None:
    """The rules of a single value."""
    kind = rules.WhichOneof("type")
    _refuse_odd(rules, {"required", "ignore", "cel", kind or ""})
    if rules.ignore == IGNORE_ALWAYS:
        return None
    checks = [_compile_expression(rule) for rule in rules.cel]
    if kind in _TABLES:
        own = getattr(rules, kind)
        _refuse_odd(own, {*_TABLES[kind], "example"})
        checks += _TABLES[kind]["*"](own) if "*" in _TABLES[kind] else ()
        for name, make in _TABLES[kind].items():
            if make is not None and name != "*" and _has_rule(own, name):
                limit = getattr(own, name)
                checks.append(Check(name, limit, *make(limit)))
    elif kind is not None:
        raise NoPlainForm
    return FieldRules(
        tuple(checks),
        rules.required,
        presence,
        not presence and rules.ignore == _IGNORE_IF_ZERO,
        view,
    )


def _compile_expression(rule: Any) -> Check:
    """Compile the only CEL expression that has a plain form, such as a decimal that is not
    negative."""
    match = _NO_PREFIX.fullmatch(rule.expression)
    if match is None or not rule.message or len(UnknownFieldSet(rule)):
        raise NoPlainForm
    prefix = match[1]
    return Check("no_prefix", prefix, lambda v: not v.startswith(prefix), rule.message)


def _has_rule(own: Any, name: str) -> bool:
    fd = own.DESCRIPTOR.fields_by_name[name]
    if fd.is_repeated:
        return len(getattr(own, name)) > 0
    # A flag that is false requires nothing.
    return bool(own.HasField(name)) and not (name in _FLAGS and not getattr(own, name))


_FLAGS = ("email", "finite", "defined_only", "unique")


def _refuse_odd(message: Any, known: set[str]) -> None:
    """Raise NoPlainForm if a message of rules contains anything that is unknown here."""
    if len(UnknownFieldSet(message)):
        raise NoPlainForm
    for fd, value in message.ListFields():
        if fd.is_extension or (fd.name not in known and not (fd.name in _FLAGS and not value)):
            raise NoPlainForm


def _view_of(field: Field) -> Callable[[Any], Any] | None:
    match field.kind:
        case Kind.DECIMAL:
            return lambda value: format(value, "f")
        case Kind.DATE:
            return lambda value: value.isoformat()
        case Kind.ENUM:
            return dict(field.enum_values or {}).__getitem__
    return None


def _json_view(field: Field) -> Callable[[Any], Any] | None:
    """The view for a value within a repeated field, which is proto JSON."""
    match field.kind:
        case Kind.ENUM:
            return dict(field.enum_values or {}).__getitem__
        case Kind.INT64 | Kind.UINT64:
            return int
        case Kind.FLOAT | Kind.DOUBLE:
            return float
        case Kind.TIMESTAMP | Kind.BYTES:
            raise NoPlainForm
    return None


def _is_zero(value: Any) -> bool:
    if isinstance(value, float):
        # -0.0 is not the default.
        return value == 0 and math.copysign(1, value) > 0
    return not value


# --- what each rule checks, and the library's words for it ---


def _print_list(values: Sequence[Any]) -> str:
    return "[" + ", ".join(_print_number(v) for v in values) + "]"


def _print_number(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if not math.isfinite(value):
            return name_odd_float(value)
        return repr(value) if value % 1 or abs(value) >= 1e15 else str(int(value))
    return str(value)


Make = Callable[[Any], tuple[Holds, str]]


def _match_pattern(limit: str) -> tuple[Holds, str]:
    try:
        pattern = Pattern(limit)
    except PatternError:
        raise NoPlainForm from None
    return lambda v: pattern.matches(v) is not None, f"does not match regex pattern `{limit}`"


def _count_bytes(value: str) -> int:
    return len(value.encode())


_STRING: Mapping[str, Make] = {
    "const": lambda n: (lambda v: v == n, f"must equal `{n}`"),
    "len": lambda n: (lambda v: len(v) == n, f"must be {n} characters"),
    "min_len": lambda n: (lambda v: len(v) >= n, f"must be at least {n} characters"),
    "max_len": lambda n: (lambda v: len(v) <= n, f"must be at most {n} characters"),
    "len_bytes": lambda n: (lambda v: _count_bytes(v) == n, f"must be {n} bytes"),
    "min_bytes": lambda n: (lambda v: _count_bytes(v) >= n, f"must be at least {n} bytes"),
    "max_bytes": lambda n: (lambda v: _count_bytes(v) <= n, f"must be at most {n} bytes"),
    "pattern": _match_pattern,
    "prefix": lambda n: (lambda v: v.startswith(n), f"does not have prefix `{n}`"),
    "suffix": lambda n: (lambda v: v.endswith(n), f"does not have suffix `{n}`"),
    "contains": lambda n: (lambda v: n in v, f"does not contain substring `{n}`"),
    "not_contains": lambda n: (lambda v: n not in v, f"contains substring `{n}`"),
    "in": lambda n: (lambda v: v in n, f"must be in list {_print_list(n)}"),
    "not_in": lambda n: (lambda v: v not in n, f"must not be in list {_print_list(n)}"),
    "email": lambda n: (
        lambda v: not v or _EMAIL.fullmatch(v) is not None,
        "must be a valid email address",
    ),
}


def _email_empty(own: Any) -> Iterator[Check]:
    if own.WhichOneof("well_known") == "email" and own.email:
        yield Check("email_empty", None, bool, "value is empty, which is not a valid email address")


def _bound_checks(own: Any) -> Iterator[Check]:
    """Upper and lower bounds. Together they are a range, or the outside of one if they are
    crossed."""
    over, under = own.WhichOneof("greater_than"), own.WhichOneof("less_than")
    if over is None and under is None:
        return
    low = getattr(own, over) if over else None
    high = getattr(own, under) if under else None
    above: Holds = (lambda v: v > low) if over == "gt" else (lambda v: v >= low)
    below: Holds = (lambda v: v < high) if under == "lt" else (lambda v: v <= high)
    more = f"greater than {'' if over == 'gt' else 'or equal to '}{_print_number(low)}"
    less = f"less than {'' if under == 'lt' else 'or equal to '}{_print_number(high)}"
    if under is None:
        yield Check("range", (over, low, None, None), above, f"must be {more}")
    elif over is None:
        yield Check("range", (None, None, under, high), below, f"must be {less}")
    elif _is_crossed(high, low):
        yield Check("outside", None, lambda v: above(v) or below(v), f"must be {more} or {less}")
    else:
        yield Check(
            "range", (over, low, under, high), lambda v: above(v) and below(v),
            f"must be {more} and {less}",
        )  # fmt: skip


def _is_crossed(high: Any, low: Any) -> bool:
    return bool(high < low)


_SAME: Mapping[str, Make] = {
    "const": lambda n: (lambda v: v == n, f"must equal {_print_number(n)}"),
    "in": lambda n: (lambda v: v in n, f"must be in list {_print_list(n)}"),
    "not_in": lambda n: (lambda v: v not in n, f"must not be in list {_print_list(n)}"),
}
_BOUNDS: Mapping[str, Any] = {"*": _bound_checks, "gt": None, "gte": None, "lt": None, "lte": None}
_FINITE: Mapping[str, Make] = {"finite": lambda n: (math.isfinite, "must be finite")}
_TABLES: Mapping[str, Mapping[str, Any]] = {
    "string": {"*": _email_empty, **_STRING},
    "bool": {"const": _SAME["const"]},
    # Values that the enum lacks were refused earlier.
    "enum": {**_SAME, "defined_only": lambda n: (lambda v: True, "")},
    **{
        kind: {**_BOUNDS, **_SAME}
        for kind in (
            *("int32", "int64", "uint32", "uint64", "sint32", "sint64"),
            *("fixed32", "fixed64", "sfixed32", "sfixed64"),
        )
    },
    "float": {**_BOUNDS, **_SAME, **_FINITE},
    "double": {**_BOUNDS, **_SAME, **_FINITE},
}
_COUNTS: Mapping[str, Mapping[str, Make]] = {
    "repeated": {
        "min_items": lambda n: (lambda v: len(v) >= n, f"must contain at least {n} item(s)"),
        "max_items": lambda n: (lambda v: len(v) <= n, f"must contain no more than {n} item(s)"),
    },
    "map": {
        "min_pairs": lambda n: (lambda v: len(v) >= n, f"map must be at least {n} entries"),
        "max_pairs": lambda n: (lambda v: len(v) <= n, f"map must be at most {n} entries"),
    },
}
