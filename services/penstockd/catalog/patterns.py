"""Regular expressions of the simplest kind, which mean the same in every engine.

``^``, a sequence of characters and classes, each with or without a count, and ``$``: no groups, no
alternatives. Each part must end where the next one begins, so that every text is matched in one
pass; a pattern that leaves a choice is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LAST = 0x10FFFF
#: A count without an upper bound.
MANY = 1 << 30
_PART = re.compile(
    r"(?P<set>\[\^?(?:\\.|[^\]\\])+\]|\\.|[^\\^$.|?*+()\[\]{}])"
    r"(?P<count>\{\d{1,4}(?:,\d{0,4})?\}|[?*+])?(?P<lazy>[?+])?"
)
_MEMBER = re.compile(r"(\\.|[^\\])(?:-(\\.|[^\\]))?", re.DOTALL)
_COUNTS = {"": (1, 1), "?": (0, 1), "*": (0, MANY), "+": (1, MANY)}

Ranges = tuple[tuple[int, int], ...]


class PatternError(Exception):
    """An expression that is not of the simplest kind."""


@dataclass(frozen=True, slots=True)
class Part:
    """A number of characters from a set, given as ranges of code points."""

    ranges: Ranges
    least: int
    most: int

    def meets(self, other: Part) -> bool:
        """Whether both sets have a character in common."""
        return any(a <= d and c <= b for a, b in self.ranges for c, d in other.ranges)


class Pattern:
    """A compiled expression. Raises PatternError if it is not of the simplest kind."""

    def __init__(self, text: str) -> None:
        if not (text.startswith("^") and text.endswith("$")) or text.endswith("\\$"):
            raise PatternError
        self.parts = tuple(_parse_parts(text[1:-1]))
        for i, part in enumerate(self.parts):
            if part.least == part.most:
                continue
            for following in self.parts[i + 1 :]:
                if part.meets(following):
                    raise PatternError
                if following.least:
                    break
        self.matches = re.compile("".join(map(_format_part, self.parts)) + r"\Z").match

    def __repr__(self) -> str:
        return f"Pattern({self.parts})"


def _parse_parts(body: str) -> list[Part]:
    found, at = [], 0
    while at < len(body):
        match = _PART.match(body, at)
        if match is None or match["lazy"]:
            raise PatternError
        count = match["count"] or ""
        if count.startswith("{"):
            low, comma, high = count[1:-1].partition(",")
            least, most = int(low), int(high) if high else MANY if comma else int(low)
            if most < least or (least > 1000) or (most != MANY and most > 1000):
                raise PatternError  # the library refuses such counts, too
        else:
            least, most = _COUNTS[count]
        found.append(Part(_parse_ranges(match["set"]), least, most))
        at = match.end()
    return found


def _parse_ranges(text: str) -> Ranges:
    if not text.startswith("["):
        return _parse_character(text)
    inner = text[1:-1]
    negated = inner.startswith("^")
    inner = inner.removeprefix("^")
    if not inner or "[:" in inner:
        raise PatternError
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < len(inner):
        match = _MEMBER.match(inner, at)
        assert match is not None
        first = _parse_character(match[1])
        if match[2] is not None:
            last = _parse_character(match[2])
            if len(first) > 1 or len(last) > 1 or first[0][0] != first[0][1]:
                raise PatternError
            if last[0][0] != last[0][1] or last[0][0] < first[0][0]:
                raise PatternError
            ranges.append((first[0][0], last[0][0]))
        else:
            ranges += first
        at = match.end()
    return _complement_ranges(ranges) if negated else tuple(sorted(ranges))


def _parse_character(text: str) -> Ranges:
    """A character or an escape."""
    if len(text) == 1:
        return ((ord(text), ord(text)),)
    kind = text[1]
    if kind == "d":
        return ((48, 57),)
    if kind in "tnr":
        code = {"t": 9, "n": 10, "r": 13}[kind]
        return ((code, code),)
    if kind.isalnum() or not kind.isascii():
        raise PatternError
    return ((ord(kind), ord(kind)),)


def _complement_ranges(ranges: list[tuple[int, int]]) -> Ranges:
    found, at = [], 0
    for low, high in sorted(ranges):
        if low > at:
            found.append((at, low - 1))
        at = max(at, high + 1)
    if at <= _LAST:
        found.append((at, _LAST))
    return tuple(found)


def _format_part(part: Part) -> str:
    inner = "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in part.ranges)
    most = "" if part.most == MANY else part.most
    return f"[{inner}]{{{part.least},{most}}}"
