"""Explains why a principal may do something with a dataset, from the View's own decisions.

Nothing is decided here. Masks come from ``decision`` through the View, rows from the View's rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstockd.catalog import Dataset, Field
from penstockd.errors import PermissionDenied
from penstockd.policy.decision import Combination, FieldDecision, decide_field
from penstockd.policy.model import Action, Decision, Grant, Mask, MaskRule, Principal
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.policy.view import View
from penstockd.query import parse_rule
from penstockd.store.database import Database


@dataclass(frozen=True, slots=True)
class FieldAnswer:
    """What a reader sees of a field, why, and whether it may set the field."""

    field: Field
    decision: FieldDecision
    writable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """A grant for reading, and the values of the claims that its row filter uses."""

    grant: Grant
    claims: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a principal may do with a dataset. ``view`` is None if it may not read."""

    dataset: Dataset
    view: View | None
    actions: Mapping[Action, tuple[str, ...]]
    fields: tuple[FieldAnswer, ...]
    rows: tuple[RowAnswer, ...]

    @property
    def all_rows(self) -> bool:
        """Whether some grant shows every row."""
        return any(not r.grant.row_filter for r in self.rows)

    @property
    def row_reason(self) -> str:
        """The visible rows, as a sentence."""
        if not self.rows:
            return f"no rows: no grant allows reading {self.dataset.name}"
        everything = [r.grant.role for r in self.rows if not r.grant.row_filter]
        if everything:
            return f"all rows: {_name_roles(everything)} has no row filter"
        if len(self.rows) == 1:
            return f"the rows that the filter of role {self.rows[0].grant.role} lets through"
        names = _name_roles([r.grant.role for r in self.rows])
        return f"the rows that any filter of {names} lets through"


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """Whether one record is visible, and the roles whose rules show it."""

    key: str
    exists: bool
    visible: bool
    roles: Sequence[str]
    reason: str


async def explain_record(database: Database, explanation: Explanation, key: str) -> RecordAnswer:
    """Whether the principal of an explanation sees a record, and why."""
    if explanation.view is None:
        return RecordAnswer(key, False, False, (), record_reason(False, True, (), explanation))
    grants = [r.grant for r in explanation.rows]
    statement = explanation.view.showing(grants)
    async with database.connection() as connection:
        row = await connection.fetchrow(statement.text, *statement.arguments(key=key))
    shown = tuple(row)[1:] if row is not None else ()
    roles = [g.role for g, holds in zip(grants, shown, strict=False) if holds]
    reason = record_reason(bool(roles), row is not None, roles, explanation)
    return RecordAnswer(key, row is not None, bool(roles), roles, reason)


def explain_policy(policy: PolicySnapshot, principal: Principal, dataset: Dataset) -> Explanation:
    """What the principal may do with the dataset, field by field and rule by rule."""
    views = {action: _find_view(policy, principal, dataset, action) for action in Action}
    reading = views[Action.READ]
    writable = {
        f
        for action in (Action.CREATE, Action.UPDATE)
        if (view := views[action]) is not None
        for f in view.writable
    }
    actions = {
        action: tuple(g.role for g in view.grants if action in g.actions) if view else ()
        for action, view in views.items()
    }
    readers = [g for g in reading.grants if Action.READ in g.actions] if reading else []
    return Explanation(
        dataset,
        reading,
        actions,
        tuple(
            _answer_field(f, reading, top in writable) for top in dataset.fields for f in top.walk()
        ),
        tuple(RowAnswer(g, _claims_of(g, principal)) for g in readers),
    )


def record_reason(visible: bool, exists: bool, roles: Sequence[str], answer: Explanation) -> str:
    """Why a record is visible or not, as a sentence."""
    if not exists:
        return "there is no such record"
    if visible:
        return f"visible: {_name_roles(roles)} shows it"
    if answer.view is None:
        return f"hidden: no grant allows reading {answer.dataset.name}"
    return "hidden: no row filter lets it through"


def _find_view(
    policy: PolicySnapshot, principal: Principal, dataset: Dataset, action: Action
) -> View | None:
    try:
        return policy.view(principal, dataset.name, action)
    except PermissionDenied:
        return None


def _claims_of(grant: Grant, principal: Principal) -> Mapping[str, tuple[str, ...]]:
    return {name: tuple(principal.claims.get(name, ())) for name in _claim_names(grant)}


def _claim_names(grant: Grant) -> Sequence[str]:
    return parse_rule(grant.row_filter).claims


def _answer_field(field: Field, view: View | None, writable: bool) -> FieldAnswer:
    decision = view.decision(field) if view is not None else decide_field(field, [])
    return FieldAnswer(field, decision, writable, _give_reason(field, decision))


def _give_reason(field: Field, decision: FieldDecision) -> str:
    """The decision as a sentence: "role bi shows it partial: field_masks names email"."""
    shown = "hides it" if decision.mask is Mask.HIDE else f"shows it {decision.mask.value}"
    if decision.combination is Combination.NONE:
        return "hidden: no grant allows reading the dataset"
    if decision.combination is Combination.ETAG:
        return "made of what is shown by get and list, else null: some fields are hidden or masked"
    if decision.combination is Combination.MEMBERS:
        return _reason_of_members(decision)
    grant, said = next(
        (g, d) for g, d in decision.says if g in decision.deciding or len(decision.says) == 1
    )
    why = f"role {grant.role} {shown}: {_give_cause(said)}"
    if decision.combination is Combination.UNFIT:
        return (
            f"hidden: role {grant.role} asks for {said.mask.value}, which does not fit "
            f"{field.kind.name} ({_give_cause(said)})"
        )
    if decision.combination is Combination.ONLY:
        return why
    roles = _name_roles([g.role for g, _ in decision.says])
    if decision.combination is Combination.GENEROUS:
        return f"{why}; the most generous of {roles}, which show the same rows"
    return f"{why}; the strictest of {roles}, which show different rows"


def _reason_of_members(decision: FieldDecision) -> str:
    shown = sum(m.mask not in (Mask.NULL, Mask.HIDE) for m in decision.members)
    if not shown:
        return f"shown {decision.mask.value}: none of its members is shown"
    return f"shown for its members: {shown} of {len(decision.members)} are"


def _give_cause(said: Decision) -> str:
    if said.rule is MaskRule.KEY:
        return "the key is always clear"
    if said.rule in (MaskRule.FIELD, MaskRule.MESSAGE):
        return f"field_masks names {said.names}"
    if said.rule is MaskRule.CLASS:
        return f"class_masks names {said.names}"
    return f"nothing names it or its class {said.names}"


def _name_roles(names: Sequence[str]) -> str:
    return f"role {names[0]}" if len(names) == 1 else f"roles {', '.join(names)}"
