"""The types of access control, as stored, before they are applied to a dataset."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from penstockd.catalog import Field, FieldClass
from penstockd.policy.plans import PlanLimits


class Action(enum.StrEnum):
    """What a grant can allow. READ covers lists and exports; an import needs CREATE and UPDATE."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Permission(enum.StrEnum):
    """What a role can allow on the hub itself, beyond datasets.

    ACCESS_READ shows consumers, credentials (never their secrets), roles, grants and history, and
    explains them; ACCESS_WRITE changes them; AUDIT_READ searches the audit and reads the receipts
    of others; AUDIT_EXPORT exports the audit. PLANS_READ shows plans and their history,
    PLANS_WRITE changes plans. USAGE_READ shows the usage of all consumers, MONITORING_READ how the
    hub's nodes are.
    WEBHOOKS_READ shows the consumer's own webhooks and what was sent to them; WEBHOOKS_WRITE
    creates such webhooks, and so sends data to the addresses that they name.
    """

    ACCESS_READ = "access.read"
    ACCESS_WRITE = "access.write"
    AUDIT_READ = "audit.read"
    AUDIT_EXPORT = "audit.export"
    MONITORING_READ = "monitoring.read"
    PLANS_READ = "plans.read"
    PLANS_WRITE = "plans.write"
    USAGE_READ = "usage.read"
    WEBHOOKS_READ = "webhooks.read"
    WEBHOOKS_WRITE = "webhooks.write"


class Mask(enum.StrEnum):
    """What a reader gets in place of a value, from most to least.

    CLEAR: the value. PARTIAL: the first character and the domain of an e-mail address
    (``a***@example.com``), nothing of any other text (``***``). HASH: an HMAC-SHA-256, equal for
    equal values within a hash domain. NULL: no value, though the field exists. HIDE: the field
    does not exist.
    """

    CLEAR = "clear"
    PARTIAL = "partial"
    HASH = "hash"
    NULL = "null"
    HIDE = "hide"

    @property
    def strictness(self) -> int:
        """0 for CLEAR, rising to HIDE."""
        return list(Mask).index(self)


class MaskRule(enum.Enum):
    """The part of a grant that decides on a field: its path, a message that contains it, its
    class."""

    KEY = "key"
    FIELD = "field"
    MESSAGE = "message"
    CLASS = "class"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Decision:
    """One grant's decision on a field. ``names`` is the path or class that its rule names."""

    mask: Mask
    rule: MaskRule
    names: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What a role may do with one dataset. A grant allows nothing that it does not state.

    A field's mask is the one for its path, else for the message path that contains it, else for its
    class; a class that is not listed is hidden. ``row_filter`` is AIP-160, over all fields and
    through declared references; empty means all rows. ``hash_domain`` keys the hashes that the
    grant shows; empty means the role's id.
    """

    role: str
    dataset: str
    actions: frozenset[Action]
    class_masks: Mapping[FieldClass, Mask]
    field_masks: Mapping[str, Mask]
    row_filter: str = ""
    hash_domain: str = ""

    @property
    def domain(self) -> str:
        """The hash domain: only readers that share it can join by hashes."""
        return self.hash_domain or self.role

    def mask(self, field: Field) -> Mask:
        """The mask that this grant puts on a field."""
        return self.decide(field).mask

    def decide(self, field: Field) -> Decision:
        """The mask that this grant puts on a field, and why.

        The key is always clear, since it is the record's name.
        """
        if field.in_key:
            return Decision(Mask.CLEAR, MaskRule.KEY, field.path)
        path = field.path
        while path:
            if path in self.field_masks:
                rule = MaskRule.FIELD if path == field.path else MaskRule.MESSAGE
                return Decision(self.field_masks[path], rule, path)
            path = path.rpartition(".")[0]
        held = field.field_class
        if held in self.class_masks:
            return Decision(self.class_masks[held], MaskRule.CLASS, held.name)
        return Decision(Mask.HIDE, MaskRule.DEFAULT, held.name)


@dataclass(frozen=True, slots=True)
class Role:
    """What its holders may do: grants are for datasets, permissions for the hub itself."""

    role_id: str
    description: str = ""
    grants: tuple[Grant, ...] = ()
    permissions: frozenset[Permission] = frozenset()


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret with which a consumer authenticates; only the secret's digest is stored."""

    credential_id: str
    consumer_id: str
    kind: str
    digest: bytes
    expire_time: datetime | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class Consumer:
    """An integration that calls the hub. Row filters use its claims, each a list of texts.

    ``plan`` is the id of its plan, "" for none; ``limits`` are its own, over those of the plan.
    """

    consumer_id: str
    active: bool
    roles: frozenset[str]
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    title: str = ""
    plan: str = ""
    limits: PlanLimits = field(default_factory=PlanLimits)


@dataclass(frozen=True, slots=True)
class Principal:
    """A consumer as authenticated on one call.

    ``claims`` are the consumer's own and its token's. ``scopes`` narrow what the roles allow; None
    does not narrow it. ``expires`` is when its token does, in seconds since 1970; streams end then.
    """

    consumer_id: str
    credential_id: str
    roles: frozenset[str]
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scopes: frozenset[str] | None = None
    expires: float = math.inf
