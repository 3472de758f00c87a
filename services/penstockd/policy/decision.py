"""Decides what several grants together show of a field, for Views and for explanations."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstockd.catalog import Field, Kind
from penstockd.policy.masks import fits_mask
from penstockd.policy.model import Decision, Grant, Mask


class Combination(enum.Enum):
    """How the masks of several grants became one."""

    ONLY = "only"  # one grant
    GENEROUS = "generous"  # all show the same rows: the most generous mask
    STRICT = "strict"  # they show different rows: the strictest mask
    MEMBERS = "members"  # the mask of a list or map of messages follows from its members
    ETAG = "etag"  # a stored etag counts hidden changes, so it is null unless it is derived
    UNFIT = "unfit"  # the mask does not fit the kind of the field, so the field is hidden
    NONE = "none"  # no grant


@dataclass(frozen=True, slots=True)
class FieldDecision:
    """The mask of a field, the decision of each grant, and the grants that decided.

    ``members`` are the members' decisions, if this one follows from them.
    """

    mask: Mask
    says: tuple[tuple[Grant, Decision], ...]
    combination: Combination
    members: tuple[FieldDecision, ...] = ()

    @property
    def deciding(self) -> tuple[Grant, ...]:
        """The grants with this mask; if it does not fit the field, all that do not hide it."""
        if self.combination is Combination.UNFIT:
            return tuple(g for g, d in self.says if d.mask is not Mask.HIDE)
        if self.combination is Combination.MEMBERS:
            return tuple({g.role: g for m in self.members for g in m.deciding}.values())
        if self.combination is Combination.ETAG:
            return tuple(g for g, d in self.says if d.mask not in (Mask.NULL, Mask.HIDE))
        return tuple(g for g, d in self.says if d.mask is self.mask)

    @property
    def hash_domain(self) -> str:
        """The domain for the hashes of a hashed field: that of the grants that decided. Several
        domains are combined, so that the hashes join with none of them."""
        return "\n".join(sorted({g.domain for g in self.deciding}))


def decide_field(field: Field, groups: Sequence[Sequence[Grant]]) -> FieldDecision:
    """The strictest of what each group of grants shows of a field.

    Within a group the most generous mask applies if all grants show the same rows, else the
    strictest: a column of one grant never appears in a row that only another grant shows. Without
    grants, or under a mask that does not fit its kind, a field is hidden.
    """
    found = [_of_group(field, group) for group in groups]
    decision = max(found, key=lambda d: d.mask.strictness, default=_NOTHING)
    if fits_mask(field, decision.mask):
        return decision
    return FieldDecision(Mask.HIDE, decision.says, Combination.UNFIT)


def decide_all(
    field: Field, groups: Sequence[Sequence[Grant]]
) -> Iterator[tuple[Field, FieldDecision]]:
    """``decide_field`` for a field and for its members, in the order of ``Field.walk``.

    A list of messages follows its members: it is clear if any of them shows anything, null if all
    are null or hidden and at least one is null, else hidden. A map must itself be clear, too, since
    its class also covers its keys. A message that contains itself is shown whole or hidden.
    """
    own = decide_field(field, groups)
    if not field.members:
        yield field, own
        return
    below = {m: list(decide_all(m, groups)) for m in field.members}
    within = tuple(found[0][1] for found in below.values())
    every = [d.mask for found in below.values() for _, d in found]
    mask = _of_members(field, own.mask, every, [d.mask for d in within])
    if mask is own.mask:
        yield field, own
    else:
        yield field, FieldDecision(mask, own.says, Combination.MEMBERS, within)
    if not field.recursive:
        for found in below.values():
            yield from found


def _of_members(field: Field, own: Mask, every: Sequence[Mask], within: Sequence[Mask]) -> Mask:
    if field.recursive:
        return Mask.CLEAR if {own, *every} == {Mask.CLEAR} else Mask.HIDE
    if field.kind is Kind.MAP and own is not Mask.CLEAR:
        return own
    if all(m in (Mask.NULL, Mask.HIDE) for m in within):
        return Mask.NULL if Mask.NULL in within else Mask.HIDE
    return Mask.CLEAR


_NOTHING = FieldDecision(Mask.HIDE, (), Combination.NONE)


def _of_group(field: Field, grants: Sequence[Grant]) -> FieldDecision:
    if not grants:
        return _NOTHING
    says = tuple((g, g.decide(field)) for g in grants)
    same_rows = len({g.row_filter for g in grants}) == 1
    masks = [decision.mask for _, decision in says]
    mask = (min if same_rows else max)(masks, key=lambda m: m.strictness)
    if len(grants) == 1:
        return FieldDecision(mask, says, Combination.ONLY)
    return FieldDecision(mask, says, Combination.GENEROUS if same_rows else Combination.STRICT)
