"""The demo's roles, plans and consumers: an administrator, a CRM and a BI tool."""

from __future__ import annotations

from collections.abc import Iterator

from penstockd.auth.credentials import API_KEY, CLIENT_SECRET, Credentials
from penstockd.catalog import Catalog, FieldClass
from penstockd.policy.admin import put_consumer, put_role, read_role
from penstockd.policy.checks import check_consumer, checked_role, draft_of
from penstockd.policy.history import Author, open_policy_change
from penstockd.policy.model import Action, Consumer, Grant, Mask, Permission, Role
from penstockd.policy.plan_admin import put_plan
from penstockd.policy.plans import (
    ConcurrencyLimit,
    Countable,
    Plan,
    PlanLimits,
    PlanQuota,
    PlanRate,
    QuotaPeriod,
)
from penstockd.store.database import Database
from penstockd.store.tables import Tables

CONSUMERS = {
    "admin": "Platform administration",
    "crm": "Customer relationship management",
    "bi": "Business intelligence",
}

#: The plan of the demo's consumers.
INTERNAL = "internal"

_ALL = frozenset(Action)
_READ = frozenset({Action.READ})
_EVERYTHING = {c: Mask.CLEAR for c in FieldClass}
_NO_SECRETS = {
    FieldClass.PUBLIC: Mask.CLEAR,
    FieldClass.INTERNAL: Mask.CLEAR,
    FieldClass.PII: Mask.CLEAR,
}
_NO_PERSONS = {FieldClass.PUBLIC: Mask.CLEAR, FieldClass.INTERNAL: Mask.CLEAR}


async def put_demo_access(
    database: Database, credentials: Credentials, catalog: Catalog
) -> dict[str, dict[str, str]]:
    """Create roles and consumers, and issue new credentials; return these by consumer."""
    tables, roles = Tables(catalog), {r.role_id: r for r in demo_roles(catalog)}
    issued = {}
    async with open_policy_change(database, Author("", "", "demo")) as under_way:
        for role in roles.values():
            await put_role(under_way.connection, checked_role(draft_of(role), catalog, tables))
        for plan in demo_plans():
            await put_plan(under_way.connection, plan)
        for name, title in CONSUMERS.items():
            consumer = Consumer(name, True, frozenset({name}), title=title, plan=INTERNAL)
            check_consumer(consumer, roles, plans=(INTERNAL,))
            await put_consumer(under_way.connection, consumer)
            secrets = {
                kind: (await credentials.issue(under_way.connection, name, kind)).secret
                for kind in (CLIENT_SECRET, API_KEY)
            }
            issued[name] = {"client_id": name, **secrets}
    return issued


async def cover_new_datasets(database: Database, catalog: Catalog) -> None:
    """Let the administrator do everything with datasets that are new in the model."""
    async with database.connection() as connection:
        role = await read_role(connection, "admin")
    known = {g.dataset for g in role.grants} if role is not None else set()
    if not {d.name for d in catalog} <= known:
        admin = next(r for r in demo_roles(catalog) if r.role_id == "admin")
        async with open_policy_change(database, Author("", "", "datasets are new")) as under_way:
            await put_role(under_way.connection, admin)


def demo_roles(catalog: Catalog) -> Iterator[Role]:
    """The roles, each named like the consumer that has it."""
    yield Role("admin", CONSUMERS["admin"], tuple(_admin_grants(catalog)), frozenset(Permission))
    webhooks = frozenset({Permission.WEBHOOKS_READ, Permission.WEBHOOKS_WRITE})
    yield Role("crm", CONSUMERS["crm"], tuple(_crm_grants()), webhooks)
    yield Role("bi", CONSUMERS["bi"], tuple(_bi_grants()))


def demo_plans() -> Iterator[Plan]:
    """A plan to try the hub, one of a contract, and that of the company itself, without limits."""
    yield Plan(
        "free",
        "To try the hub",
        limits=PlanLimits(
            (PlanRate(5, 10),),
            ConcurrencyLimit(calls=4, streams=1, exports=1),
            (
                PlanQuota(Countable.CALLS, QuotaPeriod.DAY, 1_000),
                PlanQuota(Countable.RECORDS, QuotaPeriod.DAY, 50_000),
                PlanQuota(Countable.BYTES, QuotaPeriod.MONTH, 1 << 30),
            ),
        ),
    )
    yield Plan(
        "partner",
        "Partners with a contract",
        "Europe/Berlin",
        limits=PlanLimits(
            (PlanRate(100, 200),),
            ConcurrencyLimit(calls=50, streams=20, exports=4),
            (
                PlanQuota(Countable.CALLS, QuotaPeriod.MONTH, 5_000_000),
                PlanQuota(Countable.RECORDS, QuotaPeriod.MONTH, 100_000_000, soft=True),
            ),
        ),
    )
    yield Plan(INTERNAL, "The company's own systems")


def _admin_grants(catalog: Catalog) -> Iterator[Grant]:
    for dataset in catalog:
        yield Grant("admin", dataset.name, _ALL, _EVERYTHING, {})


def _crm_grants() -> Iterator[Grant]:
    for dataset in ("customers", "contacts", "orders", "interactions"):
        yield Grant("crm", dataset, _ALL, _NO_SECRETS, {})


def _bi_grants() -> Iterator[Grant]:
    masks = {"email": Mask.PARTIAL, "credit_limit": Mask.NULL}
    yield Grant("bi", "customers", _READ, _NO_PERSONS, masks, "status = ACTIVE")
    yield Grant("bi", "contacts", _READ, _NO_PERSONS, {"email": Mask.PARTIAL}, _OF_ACTIVE)
    for dataset in ("orders", "interactions"):
        yield Grant("bi", dataset, _READ, _NO_PERSONS, {}, _OF_ACTIVE)
    yield Grant("bi", "products", _READ, _NO_PERSONS, {})


_OF_ACTIVE = "customer.status = ACTIVE"
