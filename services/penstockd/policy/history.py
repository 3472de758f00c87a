"""Changes of the policy and their history: each transaction is one revision, stored in full."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from penstockd.catalog import Catalog
from penstockd.errors import (
    LastAdministrator,
    PolicyChanged,
    RecordNotFound,
    RollbackImpossible,
    ValueInvalid,
    Violation,
)
from penstockd.policy.admin import consumer_of, put_consumer, put_role, remove_roles, role_of
from penstockd.policy.checks import checked_role, draft_of
from penstockd.policy.model import Consumer, Permission, Role
from penstockd.policy.plan_admin import put_plan, remove_plans
from penstockd.policy.plans import Plan, plan_of
from penstockd.store.database import Connection, Database
from penstockd.store.tables import Tables

_ADMINISTRATORS = """
SELECT count(*), count(*) FILTER (WHERE EXISTS (
    SELECT FROM hub.credential AS d WHERE d.consumer_id = c.consumer_id AND NOT d.revoked
    AND (d.expire_time IS NULL OR d.expire_time > now())))
FROM hub.consumer AS c WHERE c.active AND EXISTS (
    SELECT FROM hub.consumer_role JOIN hub.role AS r USING (role_id)
    WHERE consumer_id = c.consumer_id AND $1 = ANY (r.permissions))
"""
_REVISION = """
SELECT revision, create_time, coalesce(consumer_id, ''), database_user, comment, request_id
FROM hub.policy_revision
"""


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a change of the policy, the call, and the reason."""

    consumer_id: str
    request_id: str
    comment: str = ""


@dataclass(slots=True)
class PolicyChange:
    """A change in progress. ``revision`` is the one in force before, then the new one at the end.

    ``told`` is recorded in the audit entry.
    """

    connection: Connection
    revision: int
    told: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision as the history lists it, made by either a consumer or a database user."""

    revision: int
    create_time: datetime
    consumer_id: str
    database_user: str
    comment: str
    request_id: str


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """All roles, consumers and plans of one revision, by id."""

    roles: Mapping[str, Role]
    consumers: Mapping[str, Consumer]
    plans: Mapping[str, Plan] = field(default_factory=dict)


@asynccontextmanager
async def open_policy_change(
    database: Database, author: Author, *, expected: int = 0, dry_run: bool = False
) -> AsyncIterator[PolicyChange]:
    """A transaction that changes the policy; one at a time, and each makes a new revision.

    With ``dry_run`` it is rolled back. Raises PolicyChanged if ``expected`` is given and is not the
    revision in force. Raises LastAdministrator if the change would remove the last consumer that
    may change access, or the last of them that has a valid credential.
    """
    async with database.transaction(dry=dry_run) as connection:
        revision = await connection.fetchval("SELECT revision FROM hub.policy FOR UPDATE")
        if expected and expected != revision:
            raise PolicyChanged(
                f"the policy is at revision {revision}, not {expected}",
                metadata={"policy_revision": str(revision)},
            )
        await connection.execute(
            "SELECT set_config('penstock.consumer', $1, true),"
            " set_config('penstock.request', $2, true),"
            " set_config('penstock.comment', $3, true)",
            author.consumer_id,
            author.request_id,
            author.comment,
        )
        before = await connection.fetchrow(_ADMINISTRATORS, Permission.ACCESS_WRITE.value)
        under_way = PolicyChange(connection, revision)
        yield under_way
        after = await connection.fetchrow(_ADMINISTRATORS, Permission.ACCESS_WRITE.value)
        assert before is not None and after is not None
        if any(had and not has for had, has in zip(before, after, strict=True)):
            raise LastAdministrator(
                "nobody would be left who may change access: no active consumer with the "
                f"permission {Permission.ACCESS_WRITE.value} and a credential"
            )
        under_way.revision = await connection.fetchval("SELECT revision FROM hub.policy")


async def policy_revision(connection: Connection) -> int:
    """The revision in force.

    Read it before the data that is shown with it: if the policy changes in between, the revision is
    outdated, and a write that expects it is refused.
    """
    revision: int = await connection.fetchval("SELECT revision FROM hub.policy")
    return revision


async def read_revisions(connection: Connection, before: int, limit: int) -> list[Revision]:
    """At most ``limit`` revisions before ``before`` (0: from the newest), newest first."""
    rows = await connection.fetch(
        _REVISION + "WHERE $1 = 0 OR revision < $1 ORDER BY revision DESC LIMIT $2", before, limit
    )
    return [Revision(*row) for row in rows]


async def read_revision(connection: Connection, revision: int) -> tuple[Revision, PolicyDocument]:
    """One revision with its document; 0 means the one in force. Raises RecordNotFound."""
    if not revision:
        revision = await connection.fetchval("SELECT revision FROM hub.policy")
    row = await connection.fetchrow(_REVISION + "WHERE revision = $1", revision)
    text = await connection.fetchval(
        "SELECT document FROM hub.policy_revision JOIN hub.policy_document USING (digest)"
        " WHERE revision = $1",
        revision,
    )
    if row is None:
        raise RecordNotFound(f"policy revision {revision} does not exist")
    return Revision(*row), parse_document(orjson.loads(text))


async def read_document_at(connection: Connection, time: datetime) -> PolicyDocument | None:
    """The policy that was in force at a time; None if the history begins later."""
    text = await connection.fetchval(
        "SELECT document FROM hub.policy_revision JOIN hub.policy_document USING (digest)"
        " WHERE create_time <= $1 ORDER BY revision DESC LIMIT 1",
        time,
    )
    return parse_document(orjson.loads(text)) if text is not None else None


async def policy_now(connection: Connection) -> PolicyDocument:
    """The policy as the connection's transaction sees it."""
    return parse_document(orjson.loads(await connection.fetchval("SELECT hub.policy_now()")))


def parse_document(stored: Mapping[str, Any]) -> PolicyDocument:
    """The roles, consumers and plans of a document as stored in the history."""
    return PolicyDocument(
        {name: role_of(name, role) for name, role in sorted(stored["roles"].items())},
        {name: consumer_of(name, c) for name, c in sorted(stored["consumers"].items())},
        {name: plan_of(name, p) for name, p in sorted(stored.get("plans", {}).items())},
    )


def rolled_back(now: PolicyDocument, then: PolicyDocument) -> PolicyDocument:
    """The policy after a rollback: see ``Policy.RollbackPolicy`` in the API.

    A rollback activates no inactive consumer: it may have been deactivated because its secret
    leaked, and an old policy must not undo that. Plans stay as they are (see ``plan_history``).
    """
    consumers = {}
    for name, consumer in then.consumers.items():
        current = now.consumers.get(name)
        if current is not None:
            consumers[name] = replace(current, roles=consumer.roles, claims=consumer.claims)
        else:
            plan = consumer.plan if consumer.plan in now.plans else ""
            consumers[name] = replace(consumer, plan=plan)
    for name, consumer in now.consumers.items():
        if name not in then.consumers:
            consumers[name] = replace(consumer, roles=frozenset())
    return PolicyDocument(then.roles, dict(sorted(consumers.items())), now.plans)


def check_document(
    document: PolicyDocument, revision: int, catalog: Catalog, tables: Tables
) -> None:
    """Raise RollbackImpossible, with everything that the model no longer has."""
    violations: list[Violation] = []
    for role in document.roles.values():
        try:
            checked_role(draft_of(role), catalog, tables, place=f"roles[{role.role_id}].")
        except ValueInvalid as exc:
            violations += exc.violations
    if violations:
        raise RollbackImpossible(
            f"revision {revision} cannot be applied any more: "
            f"{violations[0].field}: {violations[0].description}",
            violations=violations,
        )


async def write_document(
    connection: Connection, now: PolicyDocument, wanted: PolicyDocument
) -> None:
    """Make ``wanted`` the stored policy; it must contain all consumers of ``now``."""
    for role in wanted.roles.values():
        if now.roles.get(role.role_id) != role:
            await put_role(connection, role)
    for plan in wanted.plans.values():
        if now.plans.get(plan.plan_id) != plan:
            await put_plan(connection, plan)
    for consumer in wanted.consumers.values():
        if now.consumers.get(consumer.consumer_id) != consumer:
            await put_consumer(connection, consumer)
    await remove_roles(connection, now.roles.keys() - wanted.roles.keys())
    await remove_plans(connection, now.plans.keys() - wanted.plans.keys())
