"""Compares two models: which fields are the same, and whether old values keep their meaning.

A field is identified by its numbers, as in protobuf: if its name differs but its numbers do not, it
was renamed. A field whose numbers are unknown, or no longer in use, is identified by its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstockd.catalog.manifest import MemberShape, StoredField, ValueShape

Messages = Mapping[str, Sequence[MemberShape]]
#: A message of the new model, and the number of one of its members.
Member = tuple[str, int]


@dataclass(frozen=True, slots=True)
class FieldMatches:
    """The fields of two models of a dataset: pairs of fields that are in both, and the others."""

    kept: Sequence[tuple[StoredField, StoredField]]
    added: Sequence[StoredField]
    removed: Sequence[StoredField]


def match_fields(before: Sequence[StoredField], after: Sequence[StoredField]) -> FieldMatches:
    """Match the fields of the new model with those of the old."""
    pairs: dict[str, StoredField] = {}  # by the new path
    by_number = {f.numbers: f for f in before if f.numbers}
    for field in after:
        if field.numbers in by_number:
            pairs[field.path] = by_number[field.numbers]
    taken = {f.path for f in pairs.values()}
    by_path = {f.path: f for f in before if f.path not in taken}
    for field in after:
        if field.path not in pairs and field.path in by_path:
            pairs[field.path] = by_path[field.path]
    taken = {f.path for f in pairs.values()}
    return FieldMatches(
        kept=[(pairs[f.path], f) for f in after if f.path in pairs],
        added=[f for f in after if f.path not in pairs],
        removed=[f for f in before if f.path not in taken],
    )


class ShapeComparison:
    """Compares the shapes of two models, with the messages of each."""

    def __init__(self, before: Messages, after: Messages) -> None:
        self.before = before
        self.after = after

    def holds_every(self, before: ValueShape, after: ValueShape) -> bool:
        """Whether every stored value of the old shape is, unchanged, a value of the new."""
        return self._holds(before, after, frozenset())

    def same_kinds(self, before: ValueShape, after: ValueShape) -> bool:
        """Whether protobuf bytes of the old shape read as the same values in the new."""
        return self._same(before, after, frozenset())

    def read_alike(self, before: StoredField, after: StoredField) -> bool:
        """Whether bytes that the old field wrote never read as another value of the new one.

        To protobuf a value and a message of the same number can be the same bytes.
        """
        old, new = before.numbers, after.numbers
        if old == new:
            # A field of another name is another field, which only has the number of the old one.
            same = before.path == after.path and self.same_kinds(before.shape, after.shape)
            return not old or same
        shared = min(len(old), len(new))
        return not shared or old[:shared] != new[:shared]

    def lost_members(self, before: ValueShape, after: ValueShape) -> list[str]:
        """The members of the messages in a list or map that the new model no longer has."""
        found: dict[str, None] = {}
        for old, new in self._message_pairs(before, after):
            known = {m.number for m in self.after[new]}
            gone = (m.json_name for m in self.before[old] if m.number not in known)
            found |= dict.fromkeys(gone)
        return list(found)

    def gained_members(self, before: ValueShape, after: ValueShape) -> frozenset[Member]:
        """The members of the messages in a list or map that the old model does not have."""
        found = set[Member]()
        for old, new in self._message_pairs(before, after):
            known = {m.number for m in self.before[old]}
            found |= {(new, m.number) for m in self.after[new] if m.number not in known}
        return frozenset(found)

    def revives_members(
        self, before: ValueShape, after: ValueShape, gained: frozenset[Member]
    ) -> bool:
        """Whether values of other members come back under one of the gained ones, whose number they
        had in the old model."""
        for old, new in self._message_pairs(before, after):
            known = {m.number: m for m in self.before[old]}
            for member in self.after[new]:
                then = known.get(member.number)
                if then is None or (new, member.number) not in gained:
                    continue
                named = then.json_name == member.json_name
                if not (named and self.same_kinds(then.shape, member.shape)):
                    return True
        return False

    def _message_pairs(self, before: ValueShape, after: ValueShape) -> Iterator[tuple[str, str]]:
        """The messages in a list or map, each with the one that the new model has in its place."""
        waiting, seen = [(before, after)], set()
        while waiting:
            old, new = waiting.pop()
            if old.kind in ("LIST", "MAP") and new.kind == old.kind:
                waiting.append((_element_shape(old), _element_shape(new)))
            elif old.kind == new.kind == "MESSAGE" and (old.message, new.message) not in seen:
                seen.add((old.message, new.message))
                yield old.message, new.message
                known = {m.number: m.shape for m in self.after[new.message]}
                waiting += [
                    (m.shape, known[m.number])
                    for m in self.before[old.message]
                    if m.number in known
                ]

    def _holds(
        self, before: ValueShape, after: ValueShape, above: frozenset[tuple[str, str]]
    ) -> bool:
        if (before.kind, before.map_key) != (after.kind, after.map_key):
            return False
        match after.kind:
            case "ENUM":
                return before.enum_values.items() <= after.enum_values.items()
            case "DECIMAL":
                whole = before.precision - before.scale <= after.precision - after.scale
                return whole and before.scale <= after.scale
            case "LIST" | "MAP":
                return self._holds(_element_shape(before), _element_shape(after), above)
            case "MESSAGE":
                return self._message_holds(before.message, after.message, above)
        return True

    def _message_holds(self, before: str, after: str, above: frozenset[tuple[str, str]]) -> bool:
        if (before, after) in above:
            return True
        within = above | {(before, after)}
        old = {m.number: m for m in self.before[before]}
        order = [m.number for m in self.after[after] if m.number in old]
        if order != [m.number for m in self.before[before]]:
            return False  # a member is gone, or the order of members differs
        for member in self.after[after]:
            known = old.get(member.number)
            if known is None and member.filled:
                return False
            if known is not None and (
                known.json_name != member.json_name
                or known.filled != member.filled
                or not self._holds(known.shape, member.shape, within)
            ):
                return False
        return True

    def _same(
        self, before: ValueShape, after: ValueShape, above: frozenset[tuple[str, str]]
    ) -> bool:
        if (before.kind, before.map_key) != (after.kind, after.map_key):
            return False
        if _written_otherwise(before.wire, after.wire) or _written_otherwise(
            before.key_wire, after.key_wire
        ):
            return False
        if after.kind in ("LIST", "MAP"):
            return self._same(_element_shape(before), _element_shape(after), above)
        if after.kind != "MESSAGE" or (before.message, after.message) in above:
            return True
        within = above | {(before.message, after.message)}
        old = {m.number: m.shape for m in self.before[before.message]}
        return all(
            self._same(old[m.number], m.shape, within)
            for m in self.after[after.message]
            if m.number in old
        )


def _written_otherwise(before: str | None, after: str | None) -> bool:
    """Whether two ways to write a number differ; an unknown way counts as the same."""
    return before != after and before is not None and after is not None


def _element_shape(shape: ValueShape) -> ValueShape:
    assert shape.element is not None, "a list or map has elements"
    return shape.element


def shape_name(shape: ValueShape) -> str:
    """A readable name of the shape, such as "decimal(12, 4)" or "list of string"."""
    match shape.kind:
        case "DECIMAL":
            return f"decimal({shape.precision}, {shape.scale})"
        case "LIST":
            return f"list of {shape_name(_element_shape(shape))}"
        case "MAP":
            return f"map of {shape_name(_element_shape(shape))}"
        case "MESSAGE":
            return shape.message.rsplit(".", 1)[-1]
    return shape.kind.lower()
