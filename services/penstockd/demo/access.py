"""The demo's roles and consumers: an administrator, a CRM and a BI tool."""

from __future__ import annotations

from collections.abc import Iterator

from penstockd.auth.credentials import API_KEY, CLIENT_SECRET, Credentials
from penstockd.catalog import Catalog, FieldClass
from penstockd.policy.admin import put_consumer, put_role
from penstockd.policy.model import Action, Grant, Mask, Permission
from penstockd.store.database import Connection

CONSUMERS = {
    "admin": "Platform administration",
    "crm": "Customer relationship management",
    "bi": "Business intelligence",
}

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
    connection: Connection, credentials: Credentials, catalog: Catalog
) -> dict[str, dict[str, str]]:
    """Create roles and consumers, and issue new credentials; returns them by consumer."""
    roles = {"admin": _admin(catalog), "crm": _crm(), "bi": _bi()}
    issued = {}
    for name, title in CONSUMERS.items():
        permissions = Permission if name == "admin" else ()
        await put_role(connection, name, title, roles[name], permissions)
        await put_consumer(connection, name, title, [name])
        issued[name] = {
            "client_id": name,
            "client_secret": await credentials.issue(connection, name, CLIENT_SECRET),
            "api_key": await credentials.issue(connection, name, API_KEY),
        }
    return issued


async def cover_new_datasets(connection: Connection, catalog: Catalog) -> None:
    """Let the administrator do all with datasets that the model did not have before."""
    rows = await connection.fetch("SELECT dataset FROM hub.grant WHERE role_id = 'admin'")
    if not {d.name for d in catalog} <= {row[0] for row in rows}:
        await put_role(connection, "admin", CONSUMERS["admin"], _admin(catalog), Permission)


def _admin(catalog: Catalog) -> Iterator[Grant]:
    for dataset in catalog:
        yield Grant("admin", dataset.name, _ALL, _EVERYTHING, {})


def _crm() -> Iterator[Grant]:
    for dataset in ("customers", "contacts", "orders", "interactions"):
        yield Grant("crm", dataset, _ALL, _NO_SECRETS, {})


def _bi() -> Iterator[Grant]:
    masks = {"email": Mask.PARTIAL, "credit_limit": Mask.NULL}
    yield Grant("bi", "customers", _READ, _NO_PERSONS, masks, "status = ACTIVE")
    for dataset in ("contacts", "orders", "interactions"):
        rule = "customer.status = ACTIVE"
        yield Grant("bi", dataset, _READ, _NO_PERSONS, {"email": Mask.PARTIAL}, rule)
    yield Grant("bi", "products", _READ, _NO_PERSONS, {})
