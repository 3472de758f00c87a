"""The whole policy at one revision, in memory: judging a call never waits for the store."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import orjson
import structlog

from penstockd.catalog import Catalog, FieldClass
from penstockd.errors import DatabaseUnavailable, PermissionDenied, PolicyStale
from penstockd.policy.model import Action, Consumer, Credential, Grant, Mask, Permission, Principal
from penstockd.policy.plan_admin import read_every_plan
from penstockd.policy.plans import Plan, PlanLimits, Terms, terms_of
from penstockd.policy.scopes import actions_in, is_known_scope
from penstockd.policy.view import Reads, View
from penstockd.query import FilterError, parse_rule
from penstockd.store.announcements import POLICY_CHANNEL, Announcements
from penstockd.store.database import Connection, Database, translate_errors
from penstockd.store.tables import Tables

#: How often the revision is checked when no announcement arrives, in seconds.
POLL_INTERVAL = 1.0
#: How long reading the revision and the policy may take, in seconds.
READ_TIMEOUT = 5.0
#: Calls are refused if the policy was not confirmed for this many seconds.
STALE_AFTER = 60
#: The most Views that a snapshot keeps, and the most Accesses.
MAX_VIEWS = 4096

_log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Access:
    """What roles and scopes allow on one dataset: grants, actions, and the claims they use."""

    grants: tuple[Grant, ...]
    actions: frozenset[Action]
    claims: tuple[str, ...]


@dataclass(frozen=True)
class PolicySnapshot:
    """Consumers, credentials, roles and grants at one revision, and the Views made of them.

    ``credentials`` also holds the issuers outside the hub, whose tokens authenticate callers too,
    under the names that the audit uses for them ("issuer:entra").

    Callers with the same roles, scopes and values of claims share a View: it is made once and then
    found in a dictionary.
    """

    revision: int
    consumers: Mapping[str, Consumer]
    credentials: Mapping[str, Credential]
    grants: Mapping[str, tuple[Grant, ...]]
    permissions: Mapping[str, frozenset[Permission]]
    catalog: Catalog
    tables: Tables
    mask_key: bytes
    plans: Mapping[str, Plan] = field(default_factory=dict)
    accesses: OrderedDict[Any, Access | None] = field(default_factory=OrderedDict)
    views: OrderedDict[Any, View] = field(default_factory=OrderedDict)
    _reads: Reads = field(default_factory=OrderedDict)
    _terms: dict[str, Terms | None] = field(default_factory=dict)

    def view(self, principal: Principal, dataset: str, *actions: Action) -> View:
        """The principal's View of a dataset for actions, all of which must be allowed.

        Raises PermissionDenied, with the same text whether or not the dataset exists, if no grant
        allows one of them, or the scopes of the principal's token exclude it.
        """
        access = self._access(principal, dataset)
        for action in actions:
            if access is None or action not in access.actions:
                raise PermissionDenied(f"you may not {action.value} {dataset}")
        assert access is not None, "a View is for one action at least"
        return self._view(principal, dataset, access, actions)

    def reply_view(self, principal: Principal, dataset: str, *actions: Action) -> View | None:
        """What a reply to ``actions`` may show: what both their View and the one for reading show.

        None if the principal may not read the dataset. The actions must be allowed (see ``view``).
        """
        access = self._access(principal, dataset)
        if access is None or Action.READ not in access.actions:
            return None
        on = actions if Action.READ in actions else (*actions, Action.READ)
        return self._view(principal, dataset, access, on)

    def visible(self, principal: Principal, dataset: str) -> View | None:
        """What the principal sees of a dataset: its View for reading if it may read, else one of
        all its grants.

        None if it may do nothing with the dataset.
        """
        access = self._access(principal, dataset)
        if access is None:
            return None
        on = (Action.READ,) if Action.READ in access.actions else ()
        return self._view(principal, dataset, access, on)

    def permits(self, principal: Principal, permission: Permission) -> bool:
        """Whether both a role and the scopes of the principal allow the permission on the hub."""
        if principal.scopes is not None and permission.value not in principal.scopes:
            return False
        return any(permission in self.permissions.get(r, ()) for r in principal.roles)

    def terms(self, consumer_id: str) -> Terms | None:
        """What a consumer may use; None if nothing limits it."""
        if consumer_id not in self._terms:
            consumer = self.consumers.get(consumer_id)
            self._terms[consumer_id] = (
                terms_of(self.plans.get(consumer.plan), consumer.limits) if consumer else None
            )
        return self._terms[consumer_id]

    def administers(self, consumer: Consumer) -> bool:
        """Whether a role of the consumer lets it change access."""
        return any(Permission.ACCESS_WRITE in self.permissions.get(r, ()) for r in consumer.roles)

    def grantable(self, principal: Principal, scope: str) -> bool:
        """Whether a token of the principal may carry the scope, which must allow something."""
        if not is_known_scope(scope, self.catalog):
            return False
        narrowed = replace(principal, scopes=frozenset({scope}))
        return any(self.permits(narrowed, p) for p in Permission) or any(
            self._access(narrowed, d.name) is not None for d in self.catalog
        )

    def _access(self, principal: Principal, dataset: str) -> Access | None:
        key = (principal.roles, principal.scopes, dataset)
        try:
            access = self.accesses[key]
            self.accesses.move_to_end(key)
        except KeyError:
            access = _cache_value(self.accesses, key, self._judge(principal, dataset))
        return access

    def _judge(self, principal: Principal, dataset: str) -> Access | None:
        left = frozenset(Action)
        if principal.scopes is not None:
            left = actions_in(principal.scopes, dataset)
        grants = tuple(
            g if g.actions <= left else replace(g, actions=g.actions & left)
            for role in sorted(principal.roles)
            for g in self.grants.get(role, ())
            if g.dataset == dataset and g.actions & left
        )
        if not grants or dataset not in self.catalog:
            return None
        claims = {name for g in grants for name in _claims_of(g)}
        actions = frozenset[Action]().union(*(g.actions for g in grants))
        return Access(grants, actions, tuple(sorted(claims)))

    def _view(
        self, principal: Principal, dataset: str, access: Access, on: tuple[Action, ...]
    ) -> View:
        values = tuple([principal.claims.get(name, ()) for name in access.claims])
        key = (principal.roles, principal.scopes, dataset, on, values)
        view = self.views.get(key)
        if view is not None:
            self.views.move_to_end(key)
            return view
        made = View(
            self.catalog[dataset],
            self.catalog,
            self.tables,
            access.grants,
            revision=self.revision,
            mask_key=self.mask_key,
            on=on,
            claims=dict(zip(access.claims, values, strict=True)),
            reads=self._reads,
        )
        return _cache_value(self.views, key, made)


def _cache_value(memory: OrderedDict[K, V], key: K, value: V) -> V:
    """Cache a value and evict the least recently used one if the cache is full."""
    memory[key] = value
    if len(memory) > MAX_VIEWS:
        memory.popitem(last=False)
    return value


def _claims_of(grant: Grant) -> tuple[str, ...]:
    """The claims that a grant's row filter uses; none if it cannot be parsed."""
    try:
        return parse_rule(grant.row_filter).claims
    except FilterError:
        return ()


_CONSUMERS = """
SELECT c.consumer_id, c.active, coalesce(array_agg(r.role_id) FILTER (WHERE r.role_id IS NOT NULL),
       '{}'), c.claims, coalesce(c.plan_id, ''), c.limits
FROM hub.consumer AS c LEFT JOIN hub.consumer_role AS r USING (consumer_id)
GROUP BY c.consumer_id
"""
_CREDENTIALS = """
SELECT c.credential_id, consumer_id, kind, coalesce(d.digest, c.digest), expire_time, revoked
FROM hub.credential AS c LEFT JOIN hub.credential_digest AS d USING (credential_id)
"""
_ISSUERS = "SELECT issuer_id, active FROM hub.issuer"
_PERMISSIONS = "SELECT role_id, permissions FROM hub.role"
_GRANTS = """
SELECT role_id, dataset, actions, class_masks, field_masks, row_filter, hash_domain FROM hub.grant
"""


async def load_policy(
    connection: Connection, catalog: Catalog, tables: Tables, mask_key: bytes
) -> PolicySnapshot:
    """The policy as the connection's transaction sees it, which must be a repeatable read."""
    revision = await connection.fetchval("SELECT revision FROM hub.policy")
    consumers = {
        row[0]: Consumer(
            row[0],
            row[1],
            frozenset(row[2]),
            {name: _claim_values(given) for name, given in orjson.loads(row[3]).items()},
            plan=row[4],
            limits=PlanLimits.of(orjson.loads(row[5])),
        )
        for row in await connection.fetch(_CONSUMERS)
    }
    credentials = {row[0]: Credential(*row) for row in await connection.fetch(_CREDENTIALS)}
    for issuer_id, active in await connection.fetch(_ISSUERS):
        name = f"issuer:{issuer_id}"
        # No secret has an empty digest: nobody can authenticate with this credential.
        credentials[name] = Credential(name, "", "issuer", b"", None, not active)
    grants: dict[str, tuple[Grant, ...]] = {}
    for row in await connection.fetch(_GRANTS):
        role, dataset, actions, classes, fields, row_filter, hash_domain = row
        grant = Grant(
            role=role,
            dataset=dataset,
            actions=frozenset(map(Action, actions)),
            class_masks={FieldClass[c]: Mask(m) for c, m in orjson.loads(classes).items()},
            field_masks={f: Mask(m) for f, m in orjson.loads(fields).items()},
            row_filter=row_filter,
            hash_domain=hash_domain,
        )
        grants[role] = (*grants.get(role, ()), grant)
    permissions = {
        role: frozenset(map(Permission, names))
        for role, names in await connection.fetch(_PERMISSIONS)
    }
    plans = await read_every_plan(connection)
    return PolicySnapshot(
        revision, consumers, credentials, grants, permissions, catalog, tables, mask_key, plans
    )


def _claim_values(claim: str | list[str]) -> tuple[str, ...]:
    """The values of a claim: one, or a list of them."""
    return (claim,) if isinstance(claim, str) else tuple(claim)


class Companion(Protocol):
    """Read and followed together with the policy: the trusted issuers."""

    revision: int

    async def read(self, connection: Connection) -> None:
        """Read all of it again, in the transaction of the connection."""
        ...


_REVISIONS = "SELECT p.revision, t.revision FROM hub.policy AS p, hub.trust AS t"


class Policy:
    """The current snapshot, kept up to date by announcement and by polling the revision.

    It has its own connection, so that it does not miss a revocation while calls use all the others.
    """

    def __init__(
        self,
        database: Database,
        announcements: Announcements,
        catalog: Catalog,
        tables: Tables,
        mask_key: Callable[[], bytes],
        *,
        companion: Companion | None = None,
        stale_after: float = STALE_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._announcements = database, announcements
        self._catalog, self._tables = catalog, tables
        self._mask_key, self._companion = mask_key, companion
        self._stale_after, self._clock = stale_after, clock
        self._newest: PolicySnapshot | None = None
        self._confirmed = 0.0
        self._connection: Connection | None = None
        self._reading = asyncio.Lock()
        self._known = False  # whether the last read came from the current connection's database

    @property
    def newest(self) -> PolicySnapshot:
        """The newest snapshot of this process, however old.

        Raises DatabaseUnavailable before the first.
        """
        if self._newest is None:
            raise DatabaseUnavailable("the policy has not been read yet")
        return self._newest

    @property
    def current(self) -> PolicySnapshot:
        """The newest snapshot, to judge calls by.

        Raises PolicyStale if the store has not confirmed it for STALE_AFTER seconds: access may
        have been revoked since. Raises DatabaseUnavailable before the first.
        """
        if self._clock() - self._confirmed > self._stale_after:
            raise PolicyStale(
                "access cannot be checked because its rules could not be read; try again"
            )
        return self.newest

    async def refresh(self) -> None:
        """Read the policy again if its revision changed. Raises DatabaseUnavailable."""
        async with self._reading:
            asked = self._clock()
            try:
                with translate_errors():
                    async with asyncio.timeout(READ_TIMEOUT):
                        await self._read(await self._connected())
            except BaseException:
                self.close()
                raise
            self._confirmed = asked

    async def follow(self) -> None:
        """Keep the snapshot current until cancelled, at most POLL_INTERVAL behind the store.

        Raises DatabaseUnavailable; the caller must then run it again, or calls are soon refused.
        """
        with self._announcements.subscribe(POLICY_CHANNEL) as mailbox:
            while True:
                await mailbox.take(POLL_INTERVAL)
                await self.refresh()

    def close(self) -> None:
        """Drop the connection; the next refresh makes another."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect()
            # The database may have been restored meanwhile and have reached the same revision.
            self._known = False
        return self._connection

    async def _read_trust(self, connection: Connection) -> None:
        assert self._companion is not None, "its revision was seen to change"
        await self._companion.read(connection)
        _log.info("trust_loaded", revision=self._companion.revision)

    def adopt(self, snapshot: PolicySnapshot) -> None:
        """Judge calls by this snapshot from now on."""
        self._newest = snapshot

    async def _read(self, connection: Connection) -> None:
        row = await connection.fetchrow(_REVISIONS)
        assert row is not None, "the migrations have put one row into each"
        policy_changed = not self._known or (
            self._newest is None or row[0] != self._newest.revision
        )
        trust_changed = self._companion is not None and (
            not self._known or row[1] != self._companion.revision
        )
        if not policy_changed and not trust_changed:
            return
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            # The trust goes first at the first reading, since the policy's masks need a key, and
            # last afterwards: digests of a new root secret come before the earlier one is retired.
            if trust_changed and self._newest is None:
                await self._read_trust(connection)
            waits = trust_changed and self._newest is not None
            if policy_changed:
                self.adopt(
                    await load_policy(connection, self._catalog, self._tables, self._mask_key())
                )
                _log.info("policy_loaded", revision=self.newest.revision)
            if waits:
                await self._read_trust(connection)
        self._known = True
