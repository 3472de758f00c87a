"""The differences between two policies, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstockd.policy.history import PolicyDocument
from penstockd.policy.model import Consumer, Grant, Mask, Role
from penstockd.policy.plan_difference import PartDifference, compare_limits, compare_plans


@dataclass(frozen=True, slots=True)
class PolicyDifference:
    """One part of a role or consumer that differs; "" stands for absent."""

    subject: str
    part: str
    before: str
    after: str

    @property
    def text(self) -> str:
        """As a line: "role bi: customers.email partial -> hidden"."""
        part = f"{self.part} " if self.part else ""
        if not self.before:
            return f"{self.subject}: {part}added{_format_value(self.after)}"
        if not self.after:
            return f"{self.subject}: {part}removed{_format_value(self.before)}"
        return f"{self.subject}: {part}{self.before} -> {self.after}"


def find_differences(before: PolicyDocument, after: PolicyDocument) -> list[PolicyDifference]:
    """All differences, first of roles, then of consumers and of plans, each in order of id."""
    found: list[PolicyDifference] = []
    for name in sorted(before.roles.keys() | after.roles.keys()):
        found += _compare_roles(f"role {name}", before.roles.get(name), after.roles.get(name))
    for name in sorted(before.consumers.keys() | after.consumers.keys()):
        subject = f"consumer {name}"
        found += _compare_consumers(subject, before.consumers.get(name), after.consumers.get(name))
    return found + _compare_every_plan(before, after)


def find_plan_differences(before: PolicyDocument, after: PolicyDocument) -> list[PolicyDifference]:
    """The differences of plans, then those of which consumer has which, in order of id."""
    found = _compare_every_plan(before, after)
    for name in sorted(before.consumers.keys() | after.consumers.keys()):
        old, new = before.consumers.get(name), after.consumers.get(name)
        found += _compare_consumer_plans(f"consumer {name}", old, new)
    return found


def _compare_every_plan(before: PolicyDocument, after: PolicyDocument) -> list[PolicyDifference]:
    return [
        PolicyDifference(f"plan {name}", *part)
        for name in sorted(before.plans.keys() | after.plans.keys())
        for part in compare_plans(before.plans.get(name), after.plans.get(name))
    ]


def _format_value(value: str) -> str:
    return "" if value in ("yes", "") else f" ({value})"


def _compare_roles(
    subject: str, before: Role | None, after: Role | None
) -> Iterator[PolicyDifference]:
    if before is None or after is None:
        yield PolicyDifference(subject, "", _say_presence(before), _say_presence(after))
    old, new = before or Role(""), after or Role("")
    yield from _compare_values(subject, "description", old.description, new.description)
    yield from _compare_values(
        subject, "permissions", _join_sorted(old.permissions), _join_sorted(new.permissions)
    )
    grants = {g.dataset: g for g in old.grants}, {g.dataset: g for g in new.grants}
    for dataset in sorted(grants[0].keys() | grants[1].keys()):
        yield from _compare_grants(subject, dataset, grants[0].get(dataset), grants[1].get(dataset))


def _compare_grants(
    subject: str, dataset: str, before: Grant | None, after: Grant | None
) -> Iterator[PolicyDifference]:
    old, new = before or _empty_grant(dataset), after or _empty_grant(dataset)
    yield from _compare_values(
        subject, f"{dataset} actions", _join_sorted(old.actions), _join_sorted(new.actions)
    )
    for held in sorted(old.class_masks.keys() | new.class_masks.keys()):
        masks = [g.class_masks.get(held, Mask.HIDE) for g in (old, new)]
        yield from _compare_values(subject, f"{dataset} class {held.name}", *map(_name_mask, masks))
    for path in sorted(old.field_masks.keys() | new.field_masks.keys()):
        texts = [
            _name_mask(g.field_masks[path]) if path in g.field_masks else "" for g in (old, new)
        ]
        yield from _compare_values(
            subject, f"{dataset}.{path}", texts[0] or "as its class", texts[1] or "as its class"
        )
    domains = [g.hash_domain or "of the role" for g in (old, new)]
    yield from _compare_values(subject, f"{dataset} hash domain", *domains)
    if before is not None and after is not None:
        rows = [g.row_filter or "all" for g in (old, new)]
        yield from _compare_values(subject, f"{dataset} rows", *rows)
    else:
        filters = [(g.row_filter or "all") if g is not None else "" for g in (before, after)]
        yield from _compare_values(subject, f"{dataset} rows", *filters)


def _compare_consumers(
    subject: str, before: Consumer | None, after: Consumer | None
) -> Iterator[PolicyDifference]:
    if before is None or after is None:
        yield PolicyDifference(subject, "", _say_presence(before), _say_presence(after))
    old = before or Consumer("", True, frozenset())
    new = after or Consumer("", True, frozenset())
    yield from _compare_values(subject, "title", old.title, new.title)
    yield from _compare_values(subject, "", _say_state(old), _say_state(new))
    yield from _compare_values(subject, "roles", _join_sorted(old.roles), _join_sorted(new.roles))
    for name in sorted(old.claims.keys() | new.claims.keys()):
        values = [_join_sorted(c.claims.get(name, ())) for c in (old, new)]
        yield from _compare_values(subject, f"claims.{name}", *values)
    yield from _compare_consumer_plans(subject, before, after)


def _compare_consumer_plans(
    subject: str, before: Consumer | None, after: Consumer | None
) -> Iterator[PolicyDifference]:
    old = before or Consumer("", True, frozenset())
    new = after or Consumer("", True, frozenset())
    yield from _compare_values(subject, "plan", old.plan, new.plan)
    parts: Iterable[PartDifference] = compare_limits(old.limits, new.limits)
    yield from (PolicyDifference(subject, f"limit {name}", *values) for name, *values in parts)


def _compare_values(subject: str, part: str, before: str, after: str) -> Iterator[PolicyDifference]:
    if before != after:
        yield PolicyDifference(subject, part, before, after)


def _say_presence(found: Role | Consumer | None) -> str:
    return "" if found is None else "yes"


def _say_state(consumer: Consumer) -> str:
    return "active" if consumer.active else "inactive"


def _name_mask(mask: Mask) -> str:
    return "hidden" if mask is Mask.HIDE else mask.value


def _join_sorted(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))


def _empty_grant(dataset: str) -> Grant:
    masks: Mapping[str, Mask] = {}
    return Grant("", dataset, frozenset(), {}, masks)
