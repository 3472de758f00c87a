"""All of the policy at one revision, held in memory: no call waits for the store to be judged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import structlog

from penstockd.catalog import Catalog, FieldClass
from penstockd.errors import DatabaseUnavailable, PermissionDenied, Refused
from penstockd.policy.model import Action, Consumer, Credential, Grant, Mask, Permission, Principal
from penstockd.policy.view import View
from penstockd.store.database import Connection, Database
from penstockd.store.tables import Tables

#: How often the revision is checked when no announcement arrives, in seconds.
POLL_INTERVAL = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PolicySnapshot:
    """Consumers, credentials, roles and grants at one revision, and the Views made of them."""

    revision: int
    consumers: Mapping[str, Consumer]
    credentials: Mapping[str, Credential]
    grants: Mapping[str, tuple[Grant, ...]]
    permissions: Mapping[str, frozenset[Permission]]
    catalog: Catalog
    tables: Tables
    mask_key: bytes
    _views: dict[tuple[frozenset[str], str], View] = field(default_factory=dict)

    def view(self, principal: Principal, dataset: str, action: Action) -> View:
        """The principal's View of a dataset.

        Raises PermissionDenied, with the same text whether the dataset exists or not, if no grant
        allows the action.
        """
        view = self.visible(principal, dataset)
        if view is None or not view.allows(action):
            raise PermissionDenied(f"you may not {action.value} {dataset}")
        return view

    def permits(self, principal: Principal, permission: Permission) -> bool:
        """Whether any role of the principal has the permission on the hub itself."""
        return any(permission in self.permissions.get(r, ()) for r in principal.roles)

    def require(self, principal: Principal, permission: Permission) -> None:
        """Raise PermissionDenied unless the principal has the permission."""
        if not self.permits(principal, permission):
            raise PermissionDenied(f"you need the permission {permission.value}")

    def visible(self, principal: Principal, dataset: str) -> View | None:
        """The principal's View of a dataset, None if it has no grant on it."""
        cached = self._views.get((principal.roles, dataset))
        if cached is not None:
            return cached
        grants = [
            g
            for role in sorted(principal.roles)
            for g in self.grants.get(role, ())
            if g.dataset == dataset
        ]
        if not grants or dataset not in self.catalog:
            return None
        view = View(
            self.catalog[dataset],
            self.catalog,
            self.tables,
            grants,
            revision=self.revision,
            mask_key=self.mask_key,
        )
        self._views[principal.roles, dataset] = view
        return view


_CONSUMERS = """
SELECT c.consumer_id, c.active, coalesce(array_agg(r.role_id) FILTER (WHERE r.role_id IS NOT NULL),
       '{}'), c.claims FROM hub.consumer AS c LEFT JOIN hub.consumer_role AS r USING (consumer_id)
GROUP BY c.consumer_id
"""
_CREDENTIALS = """
SELECT credential_id, consumer_id, kind, digest, expire_time, revoked FROM hub.credential
"""
_PERMISSIONS = "SELECT role_id, permissions FROM hub.role"
_GRANTS = """
SELECT role_id, dataset, actions, class_masks, field_masks, row_filter FROM hub.grant
"""


async def load_policy(
    connection: Connection, catalog: Catalog, tables: Tables, mask_key: bytes
) -> PolicySnapshot:
    """The policy as one transaction sees it; the connection must be in a snapshot transaction."""
    revision = await connection.fetchval("SELECT revision FROM hub.policy")
    consumers = {
        row[0]: Consumer(
            row[0],
            row[1],
            frozenset(row[2]),
            {name: tuple(values) for name, values in orjson.loads(row[3]).items()},
        )
        for row in await connection.fetch(_CONSUMERS)
    }
    credentials = {row[0]: Credential(*row) for row in await connection.fetch(_CREDENTIALS)}
    grants: dict[str, tuple[Grant, ...]] = {}
    for role, dataset, actions, classes, fields, row_filter in await connection.fetch(_GRANTS):
        grant = Grant(
            role=role,
            dataset=dataset,
            actions=frozenset(map(Action, actions)),
            class_masks={FieldClass[c]: Mask(m) for c, m in orjson.loads(classes).items()},
            field_masks={f: Mask(m) for f, m in orjson.loads(fields).items()},
            row_filter=row_filter,
        )
        grants[role] = (*grants.get(role, ()), grant)
    permissions = {
        role: frozenset(map(Permission, names))
        for role, names in await connection.fetch(_PERMISSIONS)
    }
    return PolicySnapshot(
        revision, consumers, credentials, grants, permissions, catalog, tables, mask_key
    )


class Policy:
    """The current snapshot, kept up to date by announcement and by polling the revision."""

    def __init__(
        self, database: Database, catalog: Catalog, tables: Tables, mask_key: bytes
    ) -> None:
        self._database, self._catalog, self._tables = database, catalog, tables
        self._mask_key = mask_key
        self._current: PolicySnapshot | None = None

    @property
    def current(self) -> PolicySnapshot:
        """The newest snapshot this process has. Raises DatabaseUnavailable before the first."""
        if self._current is None:
            raise DatabaseUnavailable("the policy has not been read yet")
        return self._current

    async def refresh(self) -> None:
        """Read the policy anew if its revision changed. Raises DatabaseUnavailable."""
        async with self._database.snapshot() as connection:
            revision = await connection.fetchval("SELECT revision FROM hub.policy")
            if self._current is None or revision != self._current.revision:
                self._current = await load_policy(
                    connection, self._catalog, self._tables, self._mask_key
                )
                _log.info("policy_loaded", revision=revision)

    async def follow(self) -> None:
        """Keep the snapshot current until cancelled: at most POLL_INTERVAL behind the store."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            try:
                await self.refresh()
            except (DatabaseUnavailable, Refused) as exc:
                _log.warning("policy_refresh_failed", error=str(exc))
