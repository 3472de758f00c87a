"""What several grants together show of a field: decided here, for Views and for explanations."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstockd.catalog import Field, Kind
from penstockd.policy.masks import fits
from penstockd.policy.model import Decision, Grant, Mask


class Combination(enum.Enum):
    """How the masks of several grants became one."""

    ONLY = "only"  # one grant
    GENEROUS = "generous"  # all show the same rows: the most generous mask
    STRICT = "strict"  # they show different rows: the strictest mask
    MEMBERS = "members"  # a list or map of messages is shown as its members are
    ETAG = "etag"  # an etag counts hidden changes, so it is null but where it is made anew
    UNFIT = "unfit"  # the mask does not fit the kind of the field, so the field is hidden
    NONE = "none"  # no grant


@dataclass(frozen=True, slots=True)
class FieldDecision:
    """The mask of a field, what each grant says, and those grants that decided.

    ``members`` are the decisions that it was made of, where it was made of others.
    """

    mask: Mask
    says: tuple[tuple[Grant, Decision], ...]
    combination: Combination
    members: tuple[FieldDecision, ...] = ()

    @property
    def deciding(self) -> tuple[Grant, ...]:
        """The grants whose mask it is; all of them where the mask does not fit the field."""
        if self.combination is Combination.UNFIT:
            return tuple(g for g, d in self.says if d.mask is not Mask.HIDE)
        if self.combination is Combination.MEMBERS:
            return tuple({g.role: g for m in self.members for g in m.deciding}.values())
        if self.combination is Combination.ETAG:
            return tuple(g for g, d in self.says if d.mask not in (Mask.NULL, Mask.HIDE))
        return tuple(g for g, d in self.says if d.mask is self.mask)

    @property
    def hash_domain(self) -> str:
        """What keys the hashes of a field that is shown hashed: the domain of the grants that
        decided; of several, all of them together, so that neither is joined with."""
        return "\n".join(sorted({g.domain for g in self.deciding}))


def decide(field: Field, groups: Sequence[Sequence[Grant]]) -> FieldDecision:
    """The strictest of what each group of grants shows of a field.

    The grants of a group show a field as the most generous of them says where all show the same
    rows, and as the strictest says where they do not: a column of one grant never appears in a
    row that only another one shows. Without grants, and under a mask that does not fit its kind,
    a field is hidden.
    """
    found = [_of_group(field, group) for group in groups]
    decision = max(found, key=lambda d: d.mask.strictness, default=_NOTHING)
    if fits(field, decision.mask):
        return decision
    return FieldDecision(Mask.HIDE, decision.says, Combination.UNFIT)


def decide_all(
    field: Field, groups: Sequence[Sequence[Grant]]
) -> Iterator[tuple[Field, FieldDecision]]:
    """``decide`` of a field and of the members in it, in the order of ``Field.walk``.

    A list of messages is shown as its members are: in the clear where one of them shows anything,
    null where they are all null or hidden, and else hidden. A map must be clear itself, too, since
    its class is also that of its keys. A message that stands within itself is shown whole or not.
    """
    own = decide(field, groups)
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
