"""Checks roles and consumers as written, before they are in force."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from penstockd.catalog import Catalog, Dataset, FieldClass
from penstockd.errors import Invalid, ValueInvalid, Violation
from penstockd.policy.masks import fits_mask
from penstockd.policy.model import Action, Consumer, Grant, Mask, Permission, Role
from penstockd.policy.row_filters import check_grant
from penstockd.query.rules import CLAIM_NAME, MAX_VALUE_LENGTH, MAX_VALUES
from penstockd.query.syntax import is_storable
from penstockd.store.tables import Tables

#: The ids that consumers and roles may have: they are part of paths, tokens and log lines.
IDENTIFIER: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
MAX_TEXT: Final = 1000
MAX_CLAIMS: Final = 50
MAX_ROLES: Final = 100

T = TypeVar("T")

_CLASSES: Final = {c.name: c for c in FieldClass}


@dataclass(frozen=True, slots=True)
class GrantDraft:
    """A grant as text, as files and requests state it."""

    dataset: str
    actions: Sequence[str] = ()
    class_masks: Mapping[str, str] = field(default_factory=dict)
    field_masks: Mapping[str, str] = field(default_factory=dict)
    row_filter: str = ""
    hash_domain: str = ""


@dataclass(frozen=True, slots=True)
class RoleDraft:
    """A role as text."""

    role_id: str
    description: str = ""
    grants: Sequence[GrantDraft] = ()
    permissions: Sequence[str] = ()


def draft_of(role: Role) -> RoleDraft:
    """A role as the draft that ``checked_role`` reads."""
    grants = [
        GrantDraft(
            g.dataset,
            sorted(g.actions),
            {c.name: m.value for c, m in g.class_masks.items()},
            {path: m.value for path, m in g.field_masks.items()},
            g.row_filter,
            g.hash_domain,
        )
        for g in role.grants
    ]
    return RoleDraft(role.role_id, role.description, grants, sorted(role.permissions))


def checked_role(draft: RoleDraft, catalog: Catalog, tables: Tables, place: str = "role.") -> Role:
    """The role of a draft. Raises ValueInvalid with a violation for every fault in it.

    ``place`` is the prefix of the violations' fields.
    """
    check = ViolationList(place)
    check.identifier("role_id", draft.role_id)
    check.text("description", draft.description)
    permissions = [
        found
        for i, name in enumerate(draft.permissions)
        if (found := check.one_of(f"permissions[{i}]", name, {p.value: p for p in Permission}))
    ]
    grants = []
    for i, grant in enumerate(draft.grants):
        at = f"grants[{i}]."
        if grant.dataset not in catalog:
            check.add(at + "dataset", f"there is no dataset '{grant.dataset}'")
        elif any(g.dataset == grant.dataset for g in draft.grants[:i]):
            check.add(at + "dataset", f"'{grant.dataset}' already has a grant in this role")
        else:
            grants.append(_check_grant(check, at, draft.role_id, grant, catalog, tables))
    check.finish(f"role '{draft.role_id}' cannot be applied")
    return Role(draft.role_id, draft.description, tuple(grants), frozenset(permissions))


def check_consumer(
    consumer: Consumer, roles: Container[str], place: str = "", *, plans: Container[str] = ()
) -> None:
    """Raise ValueInvalid if a consumer is invalid; ``roles`` and ``plans`` are those that exist.

    Its limits are checked apart (see ``plan_checks``).
    """
    check = ViolationList(place)
    check.identifier("consumer_id", consumer.consumer_id)
    check.text("title", consumer.title)
    for role in sorted(consumer.roles):
        if role not in roles:
            check.add("roles", f"there is no role '{role}'")
    if len(consumer.roles) > MAX_ROLES:
        check.add("roles", f"are more than {MAX_ROLES}")
    if consumer.plan and consumer.plan not in plans:
        check.add("plan", f"there is no plan '{consumer.plan}'")
    check_claims(consumer.claims, check)
    check.finish(f"consumer '{consumer.consumer_id}' is invalid")


def check_claims(claims: Mapping[str, Sequence[str]], check: ViolationList | None = None) -> None:
    """Raise ValueInvalid for claims that no row filter could use, or add to ``check`` if given."""
    found = check or ViolationList("")
    if len(claims) > MAX_CLAIMS:
        found.add("claims", f"are more than {MAX_CLAIMS}")
    for name, values in claims.items():
        at = f"claims[{name}]"
        if not CLAIM_NAME.fullmatch(name):
            found.add(at, "is not a name of a claim: only lower-case letters, digits and _")
        if len(values) > MAX_VALUES:
            found.add(at, f"has more than {MAX_VALUES} values")
        if any(not 0 < len(v) <= MAX_VALUE_LENGTH or not is_storable(v) for v in values):
            found.add(at, "has a value that is empty, too long, or not text")
    if check is None:
        found.finish("the claims cannot be used")


def check_comment(comment: str) -> None:
    """Raise ValueInvalid for a comment that the history cannot keep."""
    check = ViolationList("")
    check.text("comment", comment)
    check.finish("the comment cannot be kept")


class ViolationList:
    """Collects violations."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.violations: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Add a violation."""
        self.violations.append(Violation(self._place + field, description))

    def identifier(self, field: str, value: str) -> None:
        """Check an id (see IDENTIFIER)."""
        if not IDENTIFIER.fullmatch(value):
            self.add(
                field,
                "is required"
                if not value
                else "must be lower-case letters, digits, '-', '_' and '.', 63 at most, and start "
                "with a letter or digit",
            )

    def text(self, field: str, value: str) -> None:
        """Check a text for people."""
        if len(value) > MAX_TEXT:
            self.add(field, f"is longer than {MAX_TEXT} characters")
        elif not is_storable(value):
            self.add(field, "holds a character that is not text")

    def one_of(self, field: str, value: str, known: Mapping[str, T]) -> T | None:
        """The known value of a name; None if there is none."""
        if value not in known:
            self.add(field, f"'{value}' is not one of {', '.join(known)}")
        return known.get(value)

    def finish(self, message: str) -> None:
        """Raise ValueInvalid if there are violations."""
        if self.violations:
            first = self.violations[0]
            text = f"{message}: {first.field}: {first.description}"
            raise ValueInvalid(text, violations=self.violations)


def _check_grant(
    check: ViolationList, at: str, role: str, draft: GrantDraft, catalog: Catalog, tables: Tables
) -> Grant:
    dataset = catalog[draft.dataset]
    if not draft.actions:
        check.add(at + "actions", "must not be empty: the grant would allow nothing")
    known = {a.value: a for a in Action}
    actions = [check.one_of(f"{at}actions[{i}]", a, known) for i, a in enumerate(draft.actions)]
    masks = {m.value: m for m in Mask}
    classes = {}
    for name, mask in draft.class_masks.items():
        held = check.one_of(f"{at}class_masks[{name}]", name, _CLASSES)
        found = check.one_of(f"{at}class_masks[{name}]", mask, masks)
        if held is not None and found is not None:
            classes[held] = found
    fields = {}
    for path, mask in draft.field_masks.items():
        found = check.one_of(f"{at}field_masks[{path}]", mask, masks)
        if found is not None:
            fields[path] = found
            for problem in _mask_problems(dataset, path, found):
                check.add(f"{at}field_masks[{path}]", problem)
    grant = Grant(
        role,
        dataset.name,
        frozenset(a for a in actions if a is not None),
        classes,
        fields,
        draft.row_filter,
        draft.hash_domain,
    )
    if draft.hash_domain:
        check.identifier(at + "hash_domain", draft.hash_domain)
    try:
        check_grant(grant, catalog, tables)
    except Invalid as exc:
        check.add(at + "row_filter", exc.message)
    return grant


def _mask_problems(dataset: Dataset, path: str, mask: Mask) -> Iterator[str]:
    """The reason why a mask cannot apply to a field, or to the fields of a message."""
    every = dataset.every_field
    held = [f for f in every if f.path == path or f.path.startswith(path + ".")]
    if not held:
        by_json = next((f for f in every if f.json_path == path), None)
        meant = f"; it is written '{by_json.path}' here" if by_json is not None else ""
        yield f"{dataset.name} has no field '{path}'{meant}"
    for leaf in held:
        if leaf.in_key and mask is not Mask.CLEAR:
            yield "the key is always clear"
        elif not fits_mask(leaf, mask):
            yield f"{mask.value} is for text, and {leaf.path} is {leaf.kind.name}"
