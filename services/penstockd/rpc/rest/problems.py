"""What is wrong with a call: all faults that are found, of which an answer names the first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from penstockd.answers.status import MAX_VIOLATIONS
from penstockd.errors import Refused, ValueInvalid, Violation
from penstockd.query import FieldUnknown

#: The most names that are compared with a misspelt one, and how alike they must be.
_MOST_NAMES, _LIKENESS = 500, 0.7
_SHOWN = 60  # characters of a name in messages
#: A bracket, or a name outside of brackets.
_NAME = re.compile(r"\[[^\]]*\]|(?P<name>[A-Za-z][A-Za-z0-9_]*)")


class Problems:
    """Collects the faults of one call."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        #: How many faults were noted.
        self.count = 0
        self._unknown: str | None = None

    def add(self, path: str, problem: str) -> None:
        """Note a fault of the member at ``path``; ``problem`` completes "the member …"."""
        self.count += 1
        if len(self._violations) < MAX_VIOLATIONS:
            self._violations.append(Violation(path, problem))

    def unknown(self, path: str, known: Iterable[str]) -> None:
        """Note a member that the caller does not have, and the known one that it resembles."""
        if not self.count:
            self._unknown = path
        # A body may have a million of them: only those that are named are compared.
        named = len(self._violations) < MAX_VIOLATIONS
        hint = suggest_name(path.rpartition(".")[2], known) if named else ""
        self.add(path, f"is not a field{hint}")

    def raise_any(self) -> None:
        """Raise the error for the faults, if there are any.

        FieldUnknown if the first is an unknown member, as everywhere: a hidden field must not be
        told from an unknown one. Otherwise ValueInvalid.
        """
        if not self.count:
            return
        error: Refused
        if self._unknown is not None:
            error = FieldUnknown(self._unknown)
        else:
            first = self._violations[0]
            error = ValueInvalid(f"{first.field} {first.description}".lstrip())
        error.violations = tuple(self._violations)
        if self.count > 1:
            error.metadata = {**error.metadata, "violations": str(self.count)}
        raise error


def join_path(path: str, name: str) -> str:
    """The path of a member of the object at ``path``; "" is the body. Long names are cut."""
    return f"{path}.{name[:80]}" if path else name[:80]


def json_path(path: str) -> str:
    """The path of a field as JSON writes it: ``billing_address.city`` is ``billingAddress.city``.

    Keys of maps, in brackets, stay as they are.
    """
    return _NAME.sub(_camel_name, path)


def _camel_name(found: re.Match[str]) -> str:
    if found["name"] is None:
        return found[0]
    first, *others = found["name"].split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def suggest_name(name: str, known: Iterable[str]) -> str:
    """A question such as ``; did you mean 'name'?`` if the name resembles a known one, else "".

    It compares a bounded number of names of bounded length.
    """
    candidates = list(known)[:_MOST_NAMES]
    found = difflib.get_close_matches(name[:_SHOWN], candidates, 1, _LIKENESS)
    return f"; did you mean {found[0]!r}?" if found else ""
