"""The effect of another policy on past calls and on current rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from penstockd.catalog import Dataset, Field
from penstockd.errors import PermissionDenied
from penstockd.policy.history import PolicyDocument
from penstockd.policy.model import Action, Consumer, Mask, Principal
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.policy.view import View
from penstockd.query import (
    OrderBy,
    QueryError,
    compile_filter,
    parse_fields,
    parse_filter,
    parse_rule,
)
from penstockd.query.resolve import resolve_comparison
from penstockd.query.syntax import list_comparisons

#: The actions of a dataset's methods, by the start of their names; all other methods read.
_ACTIONS: Final[Mapping[str, tuple[Action, ...]]] = {
    "Create": (Action.CREATE,),
    "Update": (Action.UPDATE,),
    "Delete": (Action.DELETE,),
    "BatchUpsert": (Action.CREATE, Action.UPDATE),
    "Import": (Action.CREATE, Action.UPDATE),
}


def list_actions(method: str) -> tuple[Action, ...]:
    """The actions that a method on a dataset needs, by its name without its service."""
    for start, actions in _ACTIONS.items():
        if method.startswith(start):
            return actions
    return (Action.READ,)


@dataclass(frozen=True, slots=True)
class Calls:
    """One consumer's successful calls with the same arguments, as recorded in the audit."""

    consumer_id: str
    dataset: str
    method: str
    fields: str
    filter: str
    order_by: str
    update_mask: str
    allow_missing: bool
    count: int
    last: datetime

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions that the calls needed."""
        actions = list_actions(self.method)
        if self.allow_missing and actions != (Action.READ,):
            return tuple(dict.fromkeys((*actions, Action.CREATE)))
        return actions


@dataclass(frozen=True, slots=True)
class ConsumerSight:
    """What a consumer may see and do in a dataset; ``rules`` are the row filters by action."""

    view: View | None
    actions: frozenset[Action]
    masks: Mapping[str, Mask]
    writable: frozenset[str]
    rules: Mapping[Action, frozenset[str]]
    claims: Mapping[str, tuple[str, ...]]


@dataclass(slots=True)
class FieldEffect:
    """A field whose mask or writability would change, and the calls that named it."""

    field: Field
    before: Mask
    after: Mask
    writable_before: bool
    writable_after: bool
    count: int = 0
    last: datetime | None = None


@dataclass(slots=True)
class DatasetEffect:
    """The effects on one consumer's use of a dataset. Rows are (now, lost, gained)."""

    dataset: str
    lost_actions: tuple[Action, ...]
    gained_actions: tuple[Action, ...]
    fields: dict[str, FieldEffect]
    rows: tuple[int, int, int] = (0, 0, 0)
    calls: int = 0
    denied: int = 0
    failing: int = 0
    last_failing: datetime | None = None
    last: datetime | None = None


@dataclass(slots=True)
class ConsumerEffect:
    """The effects on one consumer: those on the datasets that it called, and the names of the
    others."""

    consumer_id: str
    datasets: dict[str, DatasetEffect] = field(default_factory=dict)
    uncalled: list[str] = field(default_factory=list)


class Rehearsal:
    """Compares two policies: how moving from one to the other affects consumers and their calls."""

    def __init__(self, before: PolicySnapshot, after: PolicySnapshot) -> None:
        self._before, self._after = before, after
        self._sights: dict[Any, ConsumerSight] = {}
        self._effects = {e.consumer_id: e for e in self._affected()}

    @property
    def effects(self) -> list[ConsumerEffect]:
        """The consumers for which something changes, in order of id, with the calls added so far.

        ``uncalled`` lists the datasets without calls.
        """
        found = []
        for name in sorted(self._effects):
            effect = self._effects[name]
            called = {d: e for d, e in effect.datasets.items() if e.calls}
            uncalled = sorted(effect.datasets.keys() - called.keys())
            found.append(ConsumerEffect(name, dict(sorted(called.items())), uncalled))
        return found

    def datasets(self) -> dict[str, list[str]]:
        """The datasets in which something changes, by consumer."""
        return {name: sorted(effect.datasets) for name, effect in self._effects.items()}

    def views(self, consumer_id: str, dataset: str) -> tuple[View | None, View | None]:
        """A consumer's View of a dataset before and after."""
        return (
            self._sight(self._before, consumer_id, dataset).view,
            self._sight(self._after, consumer_id, dataset).view,
        )

    def add(self, calls: Calls) -> None:
        """Count calls of a consumer to a dataset, both of which ``datasets`` must name."""
        effect = self._effects[calls.consumer_id].datasets[calls.dataset]
        effect.calls += calls.count
        effect.last = _later_of(effect.last, calls.last)
        old = self._view(self._before, calls)
        new = self._view(self._after, calls)
        if old is None:
            return  # the current policy would deny it, too
        for path in _named_fields(calls, old):
            if path in effect.fields:
                effect.fields[path].count += calls.count
                effect.fields[path].last = _later_of(effect.fields[path].last, calls.last)
        if new is None:
            effect.denied += calls.count
        elif not (_query_problems(calls, new) - _query_problems(calls, old)):
            return
        else:
            effect.failing += calls.count
        effect.last_failing = _later_of(effect.last_failing, calls.last)

    def _affected(self) -> Iterator[ConsumerEffect]:
        for name, consumer in sorted(self._before.consumers.items()):
            if not consumer.active or name not in self._after.consumers:
                continue
            effect = ConsumerEffect(name)
            for dataset in self._before.catalog:
                before = self._sight(self._before, name, dataset.name)
                after = self._sight(self._after, name, dataset.name)
                found = _compare_sights(dataset, before, after)
                if found is not None:
                    effect.datasets[dataset.name] = found
            if effect.datasets:
                yield effect

    def _sight(self, policy: PolicySnapshot, consumer_id: str, dataset: str) -> ConsumerSight:
        """A consumer's access under one policy; consumers with equal roles and claims share it."""
        consumer = policy.consumers[consumer_id]
        claims = tuple(sorted(consumer.claims.items()))
        key = (policy is self._after, dataset, consumer.roles, claims)
        if key not in self._sights:
            self._sights[key] = _consumer_sight(policy, _make_principal(consumer), dataset)
        return self._sights[key]

    def _view(self, policy: PolicySnapshot, calls: Calls) -> View | None:
        principal = _make_principal(policy.consumers[calls.consumer_id])
        try:
            return policy.view(principal, calls.dataset, *calls.actions)
        except PermissionDenied:
            return None


def with_document(policy: PolicySnapshot, document: PolicyDocument) -> PolicySnapshot:
    """The snapshot with its roles and consumers replaced by those of a document."""
    return replace(
        policy,
        consumers=document.consumers,
        grants={name: role.grants for name, role in document.roles.items()},
        permissions={name: role.permissions for name, role in document.roles.items()},
        **{name: type(getattr(policy, name))() for name in ("accesses", "views", "_reads")},
    )


def _consumer_sight(policy: PolicySnapshot, principal: Principal, dataset: str) -> ConsumerSight:
    view = policy.visible(principal, dataset)
    if view is None:
        return ConsumerSight(None, frozenset(), {}, frozenset(), {}, {})
    writable = {
        leaf.path
        for action in (Action.CREATE, Action.UPDATE)
        if view.allows(action)
        for leaf in policy.view(principal, dataset, action).writable
    }
    rules = {
        action: frozenset(g.row_filter for g in view.grants if action in g.actions)
        for action in view.actions
    }
    used = {name for g in view.grants for name in parse_rule(g.row_filter).claims}
    return ConsumerSight(
        view,
        view.actions,
        _shown_masks(view) if view.allows(Action.READ) else {},
        frozenset(writable),
        {a: frozenset({""}) if "" in filters else filters for a, filters in rules.items()},
        {name: tuple(principal.claims.get(name, ())) for name in used},
    )


def _shown_masks(view: View) -> Mapping[str, Mask]:
    """The masks of what is shown, including members of repeated messages and maps."""
    every = (f for top in view.fields() for f in top.walk())
    return {f.path: view.mask(f) for f in every if view.mask(f) is not Mask.HIDE}


def _make_principal(consumer: Consumer) -> Principal:
    return Principal(consumer.consumer_id, "", consumer.roles, consumer.claims)


def _compare_sights(
    dataset: Dataset, before: ConsumerSight, after: ConsumerSight
) -> DatasetEffect | None:
    """The differences for a consumer, except the row counts; None if there are none."""
    fields = {}
    for leaf in dataset.every_field:
        old, new = (s.masks.get(leaf.path, Mask.HIDE) for s in (before, after))
        could, can = leaf.path in before.writable, leaf.path in after.writable
        if (old, could) != (new, can):
            fields[leaf.path] = FieldEffect(leaf, old, new, could, can)
    lost, gained = before.actions - after.actions, after.actions - before.actions
    same_rows = (before.rules, before.claims) == (after.rules, after.claims)
    if same_rows and not (fields or lost or gained):
        return None
    return DatasetEffect(dataset.name, _order_actions(lost), _order_actions(gained), fields)


def _order_actions(actions: frozenset[Action]) -> tuple[Action, ...]:
    return tuple(a for a in Action if a in actions)


def _later_of(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _named_fields(calls: Calls, view: View) -> set[str]:
    """The paths of the fields that calls named, as the View resolves the names now.

    Names that the View no longer knows are skipped: the current policy would refuse them, too.
    """
    found: set[str] = set()
    for text in (calls.fields, calls.update_mask):
        if text.strip() not in ("", "*"):
            with contextlib.suppress(QueryError):
                found.update(f.path for f in parse_fields(text, view))
    for name in (part.split()[0] for part in calls.order_by.split(",") if part.strip()):
        if (leaf := view.field(name)) is not None:
            found.add(leaf.path)
    with contextlib.suppress(QueryError):
        for comparison in list_comparisons(parse_filter(calls.filter)):
            with contextlib.suppress(QueryError):
                found.update(t.field.path for t in resolve_comparison(comparison, view))
    return found


def _query_problems(calls: Calls, view: View) -> set[str]:
    """The parts of the query that the hub refuses under this View."""
    refused: set[str] = set()
    parts: tuple[tuple[str, Callable[[], object]], ...] = (
        ("fields", lambda: parse_fields(calls.fields, view)),
        ("filter", lambda: compile_filter(parse_filter(calls.filter), view)),
        ("order_by", lambda: OrderBy.parse(calls.order_by, view, view.dataset.key_fields)),
        ("update_mask", lambda: parse_fields(calls.update_mask, view)),
    )
    for part, read in parts:
        try:
            read()
        except QueryError:
            refused.add(part)
    if calls.update_mask.strip() and "update_mask" not in refused:
        writable = {f.path for f in view.writable}
        wanted = parse_fields(calls.update_mask, view)
        if any(not f.output_only and f.path not in writable for f in wanted):
            refused.add("update_mask")
    return refused
