"""Rules of the model in the form that the kernel checks while it makes records: ``src/load.c``.

The kernel takes a value only if it certainly meets its rules. ``catalog.checks`` judges what the
kernel leaves, and reports what is bad.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from penstockd.catalog.checks import Check, FieldRules
from penstockd.catalog.model import Field, Kind
from penstockd.catalog.patterns import Pattern
from penstockd.native.abi import (
    LOAD_PART,
    LOAD_RULE_NUMBER,
    LOAD_RULE_WHOLE,
    LoadCheck,
    LoadRule,
)

_MOST = 2**63 - 1
_TEXT = (Kind.STRING, Kind.DECIMAL, Kind.DATE)
_WHOLE = (Kind.INT32, Kind.INT64, Kind.UINT32)
_ASCII = 0x7F


class _NotForTheKernel(Exception):
    """A rule that the kernel cannot check."""


@dataclass(frozen=True, slots=True)
class KernelRule:
    """One ``Rule`` of ``load.c``; if it has ``parts``, its argument is their place."""

    kind: LoadCheck
    low: int | float = 0
    high: int | float = 0
    arg: int = 0
    parts: bytes = b""

    def packed(self, parts_at: int) -> bytes:
        """Its bytes in the plan, with its parts at ``parts_at``."""
        layout = LOAD_RULE_NUMBER if isinstance(self.low, float) else LOAD_RULE_WHOLE
        arg = parts_at if self.parts else self.arg
        return layout.pack(*LoadRule(self.kind, arg, self.low, self.high))


def kernel_rules(field: Field, rules: FieldRules) -> list[KernelRule] | None:
    """The rules of a column that is not an enum; None if the kernel must not read it."""
    try:
        return list(_make_rules(field, rules))
    except _NotForTheKernel:
        return None


def _make_rules(field: Field, rules: FieldRules) -> Iterator[KernelRule]:
    if rules.skip_zero:
        yield KernelRule(LoadCheck.ZERO_PASSES)
    if field.kind in _TEXT:
        if rules.required and not rules.presence:
            yield KernelRule(LoadCheck.BYTES, 1, _MOST)
        for check in rules.checks:
            yield _text_rule(check)
    elif field.kind in (Kind.LIST, Kind.MAP):
        yield from _repeated_rules(field, rules)
    elif rules.required and not rules.presence:
        raise _NotForTheKernel
    elif field.kind in _WHOLE:
        for check in rules.checks:
            yield _range_rule(check, 1, -(2**63), _MOST)
    elif field.kind in (Kind.FLOAT, Kind.DOUBLE) and not rules.skip_zero:
        for check in rules.checks:
            if check.name != "finite":  # the kernel reads only finite numbers
                yield _range_rule(check, 0, -math.inf, math.inf)
    elif rules.checks:
        raise _NotForTheKernel


def _text_rule(check: Check) -> KernelRule:
    limit = check.limit
    match check.name:
        case "len":
            return KernelRule(LoadCheck.CHARACTERS, limit, limit)
        case "min_len":
            return KernelRule(LoadCheck.CHARACTERS, limit, _MOST)
        case "max_len":
            return KernelRule(LoadCheck.CHARACTERS, 0, limit)
        case "len_bytes":
            return KernelRule(LoadCheck.BYTES, limit, limit)
        case "min_bytes":
            return KernelRule(LoadCheck.BYTES, limit, _MOST)
        case "max_bytes":
            return KernelRule(LoadCheck.BYTES, 0, limit)
        case "email" | "email_empty":
            return KernelRule(LoadCheck.EMAIL)
        case "pattern":
            return _pattern_rule(limit)
        case "no_prefix" if len(limit) == 1 and limit.isascii():
            return KernelRule(LoadCheck.NO_PREFIX, arg=ord(limit))
    raise _NotForTheKernel


def _pattern_rule(text: str) -> KernelRule:
    parts = Pattern(text).parts
    packed = b""
    for part in parts:
        letters = 0
        for low, high in part.ranges:
            if high > _ASCII:
                raise _NotForTheKernel
            for code in range(low, high + 1):
                letters |= 1 << code
        words = [letters >> 32 * i & 0xFFFFFFFF for i in range(4)]
        packed += LOAD_PART.pack(*words, part.least, part.most)
    return KernelRule(LoadCheck.PATTERN, len(parts), parts=packed)


def _range_rule(check: Check, step: int, least: int | float, most: int | float) -> KernelRule:
    """A rule with inclusive bounds; an exclusive bound of whole numbers moves by one."""
    if check.name != "range":
        raise _NotForTheKernel
    over, low, under, high = check.limit
    if (over == "gt" or under == "lt") and not step:
        raise _NotForTheKernel
    first = least if over is None else low + (step if over == "gt" else 0)
    last = most if under is None else high - (step if under == "lt" else 0)
    if isinstance(least, int) and not (least <= first and last <= most):
        raise _NotForTheKernel
    return KernelRule(LoadCheck.RANGE, first, last)


def _repeated_rules(field: Field, rules: FieldRules) -> Iterator[KernelRule]:
    """The rules of a list or map; the kernel reads lists of strings, and others if empty."""
    low, high = 0, _MOST
    for check in rules.checks:
        if check.name in ("min_items", "min_pairs"):
            low = check.limit
        elif check.name in ("max_items", "max_pairs"):
            high = check.limit
        else:
            raise _NotForTheKernel
    if rules.required:
        low = max(low, 1)
    yield KernelRule(LoadCheck.ITEMS, low, high)
    strings = field.element is not None and field.element.kind is Kind.STRING
    if rules.items is None or field.kind is Kind.MAP or not strings:
        return
    if rules.items.skip_zero or rules.items.required:
        raise _NotForTheKernel
    for check in rules.items.checks:
        if check.name != "max_len":
            raise _NotForTheKernel
        yield KernelRule(LoadCheck.ITEM_CHARACTERS, 0, check.limit)
