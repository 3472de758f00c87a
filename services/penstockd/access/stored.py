"""Consumers, roles, plans, credentials and issuers by their ids, or an error if there is none."""

from __future__ import annotations

from penstockd.auth.credentials import StoredCredential, read_credential
from penstockd.auth.issuers import Issuer
from penstockd.auth.trust import load_issuers
from penstockd.errors import RecordNotFound
from penstockd.policy.admin import StoredConsumer, read_consumer, read_role
from penstockd.policy.model import Role
from penstockd.policy.plan_admin import read_plan
from penstockd.policy.plans import Plan
from penstockd.store.database import Connection


async def find_consumer(connection: Connection, consumer_id: str) -> StoredConsumer:
    """The consumer with this id. Raises RecordNotFound."""
    found = await read_consumer(connection, consumer_id)
    if found is None:
        raise RecordNotFound(f"consumer '{consumer_id}' does not exist")
    return found


async def find_role(connection: Connection, role_id: str) -> Role:
    """The role with this id. Raises RecordNotFound."""
    found = await read_role(connection, role_id)
    if found is None:
        raise RecordNotFound(f"role '{role_id}' does not exist")
    return found


async def find_plan(connection: Connection, plan_id: str) -> Plan:
    """The plan with this id. Raises RecordNotFound."""
    found = await read_plan(connection, plan_id)
    if found is None:
        raise RecordNotFound(f"plan '{plan_id}' does not exist")
    return found


async def find_credential(
    connection: Connection, consumer_id: str, credential_id: str
) -> StoredCredential:
    """The credential of a consumer with this id. Raises RecordNotFound."""
    found = await read_credential(connection, consumer_id, credential_id)
    if found is None:
        raise RecordNotFound(f"consumer '{consumer_id}' has no credential '{credential_id}'")
    return found


async def find_issuer(connection: Connection, issuer_id: str) -> Issuer:
    """The issuer with this id. Raises RecordNotFound."""
    found = await load_issuers(connection, issuer_id)
    if not found:
        raise RecordNotFound(f"issuer '{issuer_id}' does not exist")
    return found[0]
