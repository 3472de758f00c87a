"""Update masks of the hub's own resources: paths of fields, which lead into messages and into the
entries of maps. A key that is no plain word stands in backticks (AIP-161): ``claims.`a.b` ``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from penstockd.query.errors import FieldUnknown

T = TypeVar("T")

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_STEP = re.compile(r"(?:`((?:[^`]|``)*)`|([^.`]+))(?:\.|\Z)")


def quote_step(name: str) -> str:
    """A key of a map as a step of a path."""
    return name if _PLAIN.fullmatch(name) else "`" + name.replace("`", "``") + "`"


def split_path(path: str) -> list[str]:
    """The steps of a path. Raises FieldUnknown for what is no path."""
    steps, at = [], 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise FieldUnknown(path[:200])
        steps.append(found[2] if found[1] is None else found[1].replace("``", "`"))
        at = found.end()
    return steps


def put_paths(before: T, given: T, mask: Sequence[str]) -> T:
    """``before`` with what ``mask`` names as it is in ``given``: a whole field, a member of a
    message, an entry of a map, which is removed if it is not given. Raises FieldUnknown."""
    for path in mask:
        before = _put_steps(before, given, split_path(path), path)
    return before


def _put_steps(before: Any, given: Any, steps: Sequence[str], path: str) -> Any:
    name, *rest = steps
    if isinstance(before, Mapping):
        kept = {key: value for key, value in before.items() if key != name}
        if rest:
            raise FieldUnknown(path)
        return {**kept, name: given[name]} if name in given else kept
    known = dataclasses.is_dataclass(before) and any(
        field.name == name for field in dataclasses.fields(before)
    )
    if not known:
        raise FieldUnknown(path)
    value = getattr(given, name)
    if rest:
        value = _put_steps(getattr(before, name), value, rest, path)
    return dataclasses.replace(before, **{name: value})


def put_entries(name: str, given: Any, message: Any, mask: Sequence[str]) -> None:
    """Set a map of texts of a message as far as ``mask`` names it: all of it, or entries."""
    held, values = getattr(message, name), getattr(given, name)
    for top, *key in map(split_path, mask):
        if top != name:
            continue
        if not key:
            held.clear()
            held.update(values)
        elif key[0] in values:
            held[key[0]] = values[key[0]]
        else:
            held.pop(key[0], None)
