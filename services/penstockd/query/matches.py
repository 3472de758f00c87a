"""What a test asks of a value, for both evaluators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstockd.query.syntax import Literal


@dataclass(frozen=True, slots=True)
class Compare:
    """The field is set and its value stands in this relation to ``value``."""

    comparator: str
    value: Any


@dataclass(frozen=True, slots=True)
class TextPattern:
    """The field is set and its text begins with, ends with or contains ``text``; ``negated``: does
    not."""

    text: str
    leading: bool
    trailing: bool
    negated: bool

    @property
    def like(self) -> str:
        """The pattern of SQL's LIKE, without the negation."""
        escaped = self.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return ("%" if self.leading else "") + escaped + ("%" if self.trailing else "")

    def fits(self, value: str) -> bool:
        """Whether a text passes, without the negation."""
        if self.leading and self.trailing:
            return self.text in value
        return value.endswith(self.text) if self.leading else value.startswith(self.text)


@dataclass(frozen=True, slots=True)
class Present:
    """A value is set and, where there is a ``default``, another one."""

    default: Any = None


Match = Compare | TextPattern | Present


def make_pattern(literal: Literal, *, negated: bool) -> TextPattern:
    """The pattern of a literal with a wildcard."""
    text = literal.text[1:] if literal.leading else literal.text
    trailing = literal.trailing and bool(text)  # one star alone is both ends
    return TextPattern(text[:-1] if trailing else text, literal.leading, trailing, negated)
