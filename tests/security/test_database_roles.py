"""Three roles in the database: workers can only add to the audit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from harness import RunningHub, eventually, folder, new_customer
from penstockd.audit.entry import Entry, insert_entries
from penstockd.catalog.load import load_catalog
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.resources import find_descriptors
from penstockd.store.migrate import apply_migration
from penstockd.store.roles import (
    EVERYBODYS_FUNCTIONS,
    KEEPERS_FUNCTIONS,
    OWNERS_ALONE,
    TABLES,
    RolesUnusable,
    grant_roles,
    stated_tables,
)
from posted import receiving

ROLES = ("owner", "worker", "keeper")
AUDIT = sorted(name for name in TABLES if name.startswith("audit_"))


@dataclass
class Server:
    """A PostgreSQL of the user's own, with the three roles and a database."""

    postgres: EmbeddedPostgres

    def url(self, role: str, database: str = "company") -> str:
        """The URL for a role's login."""
        return f"postgresql://{role}@/{database}?host={self.postgres.socket}&port=5432"

    async def run(self, role: str, *statements: str) -> None:
        """Run statements as a role, in one transaction that is rolled back."""
        connection = await asyncpg.connect(self.url(role))
        try:
            async with _undone(connection):
                for statement in statements:
                    await connection.execute(statement)
        finally:
            await connection.close()


class _undone:
    def __init__(self, connection: Any) -> None:
        self._transaction = connection.transaction()

    async def __aenter__(self) -> None:
        await self._transaction.start()

    async def __aexit__(self, *_: object) -> None:
        await self._transaction.rollback()


async def prepare(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        for role in (*ROLES, "stranger"):
            await connection.execute(f"CREATE ROLE {role} LOGIN")
        await connection.execute("CREATE ROLE almighty LOGIN SUPERUSER")
        await connection.execute("CREATE ROLE member LOGIN NOINHERIT IN ROLE owner")
        await connection.execute("CREATE ROLE writer LOGIN IN ROLE pg_write_all_data")
        for name in ("company", "single"):
            await connection.execute(f"CREATE DATABASE {name} OWNER owner")
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with folder() as data, asyncio.Runner() as runner:
        postgres = EmbeddedPostgres(data, sockets_folder(data))
        runner.run(postgres.start())
        try:
            runner.run(prepare(postgres))
            made = Server(postgres)
            runner.run(apply_migration(made.url("owner"), load_catalog(find_descriptors())))
            runner.run(grant_roles(*(made.url(role) for role in ROLES)))
            yield made
        finally:
            runner.run(postgres.stop())


@pytest.fixture
async def worker(server: Server) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(server.url("worker"))
    yield connection
    await connection.close()


async def test_every_table_has_a_stated_grant_and_no_other_has(worker: Any) -> None:
    stated = await stated_tables(worker)
    unstated = [name for name, granted in stated.items() if granted is None]
    assert unstated == [], "say in penstockd.store.roles who may do what with it"
    assert set(TABLES) == {name for schema, name in stated if schema == "hub"}
    assert AUDIT and "audit_entry" in AUDIT


async def test_what_acts_as_the_owner_is_for_whom_it_is_stated(worker: Any) -> None:
    functions = await worker.fetch(
        "SELECT oid::regprocedure::text, proname, has_function_privilege(oid, 'EXECUTE'),"
        " has_function_privilege('keeper', oid, 'EXECUTE') FROM pg_proc"
        " WHERE pronamespace = 'hub'::regnamespace AND prosecdef"
    )
    stated = {*KEEPERS_FUNCTIONS, *EVERYBODYS_FUNCTIONS}
    assert {name for _, name, _, _ in functions} == {*stated, *OWNERS_ALONE}
    for signature, name, by_worker, by_keeper in functions:
        expected = (name in EVERYBODYS_FUNCTIONS, name in stated)
        assert (by_worker, by_keeper) == expected, signature


FORBIDDEN = [
    *(f"UPDATE hub.{name} SET {column} = {column}" for name, column in (
        ("audit_entry", "outcome"), ("audit_shown", "content"), ("audit_seal", "hashes"),
        ("audit_chain", "last_hash"), ("audit_checkpoint", "hash"), ("audit_head", "snapshot"))),
    *(f"{what} hub.{name}" for name in AUDIT for what in ("DELETE FROM", "TRUNCATE", "DROP TABLE")),
    "CREATE TRIGGER zz BEFORE INSERT ON hub.audit_entry FOR EACH ROW"
    " EXECUTE FUNCTION hub.policy_changed()",
    "CREATE RULE zz AS ON INSERT TO hub.audit_entry DO INSTEAD NOTHING",
    "ALTER TABLE hub.audit_entry ADD COLUMN x int",
    "INSERT INTO hub.audit_checkpoint SELECT * FROM hub.audit_checkpoint",
    "INSERT INTO hub.audit_seal SELECT * FROM hub.audit_seal",
    "CREATE TABLE hub.x ()",
    "CREATE FUNCTION hub.now() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SELECT hub.prune_log(1)",
    "SELECT hub.rebase_audit()",
    "SELECT hub.add_audit_partitions(400)",
    "SELECT setval('hub.audit_entry_id', 1)",
    "SET ROLE owner",
    "SET ROLE keeper",
]  # fmt: skip


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_a_worker_cannot(server: Server, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.run("worker", statement)


@pytest.mark.parametrize("statement", [s for s in FORBIDDEN if "SET ROLE" not in s])
async def test_the_owner_could(server: Server, statement: str) -> None:
    """The control: the role forbids it, not the statement."""
    try:
        await server.run("owner", statement)
    except asyncpg.InsufficientPrivilegeError as exc:
        pytest.fail(str(exc))
    except (asyncpg.PostgresError, asyncpg.InterfaceError):
        pass  # wrong for another reason


async def test_a_partition_cannot_be_reached_around_its_table(worker: Any) -> None:
    partitions = await worker.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'hub.audit_entry'::regclass"
    )
    assert partitions
    for (name,) in partitions:
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"):
            allowed = "SELECT has_table_privilege($1, $2)"
            assert not await worker.fetchval(allowed, name, privilege), (name, privilege)


async def test_a_worker_adds_entries_and_reads_them(worker: Any) -> None:
    for count in (1, 100):  # both ways of writing
        await insert_entries(worker, [Entry(f"r-{count}-{i}", "m") for i in range(count)])
    found = "SELECT count(*) FROM hub.audit_entry WHERE request_id LIKE 'r-%'"
    assert await worker.fetchval(found) == 101


async def test_a_stranger_may_do_nothing(server: Server) -> None:
    for statement in ("SELECT 1 FROM hub.policy", "SELECT 1 FROM data.customers"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await server.run("stranger", statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.run("stranger", "SELECT hub.prune_log(1)")


async def test_the_keeper_seals_and_changes_no_entry(server: Server) -> None:
    await server.run(
        "keeper",
        "SELECT hub.add_change_partitions(3), hub.add_audit_partitions(3), hub.prune_log(1)",
        "UPDATE hub.audit_head SET snapshot = snapshot",
    )
    for statement in ("DELETE FROM hub.audit_entry", "UPDATE hub.audit_seal SET hashes = ''"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await server.run("keeper", statement)


@pytest.mark.parametrize(
    ("workers", "keepers", "why"),
    [
        ("owner", "keeper", "three roles"),
        ("worker", "worker", "three roles"),
        ("almighty", "keeper", "superuser"),
        ("worker", "almighty", "superuser"),
        ("member", "keeper", "member of owner"),
        ("writer", "keeper", "other grants"),
    ],
)
async def test_roles_that_part_nothing_are_refused(
    server: Server, workers: str, keepers: str, why: str
) -> None:
    with pytest.raises(RolesUnusable, match=why):
        await grant_roles(server.url("owner"), server.url(workers), server.url(keepers))


async def test_a_grant_that_is_no_longer_stated_is_taken_back(server: Server) -> None:
    connection = await asyncpg.connect(server.url("owner"))
    try:
        await connection.execute("GRANT DELETE ON hub.audit_entry TO worker")
        await grant_roles(*(server.url(role) for role in ROLES))
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.run("worker", "DELETE FROM hub.audit_entry")


def settings(server: Server, database: str) -> dict[str, str]:
    return {
        "PENSTOCK_DATABASE_URL": server.url("worker", database),
        "PENSTOCK_DATABASE_KEEPER_URL": server.url("keeper", database),
        "PENSTOCK_DATABASE_OWNER_URL": server.url("owner", database),
        "PENSTOCK_AUDIT_CHECKPOINT_SECONDS": "1",
        "PENSTOCK_WORKERS": "1",
    }


def test_a_hub_with_three_roles_from_end_to_end(server: Server) -> None:
    """The hub writes, exports, follows, delivers and seals; and no worker knows the owner's URL."""
    with folder() as data, receiving() as posts:
        hub = RunningHub(data / "hub", customers=20, environment=settings(server, "company"))
        hub.start()
        try:
            use(hub, posts.url)
            posts.wait("/hook", 1)
            sealed = "SELECT count(*) FROM hub.audit_seal"
            eventually(lambda: hub.sql(sealed)[0][0] > 0)
            eventually(lambda: hub.command("epoch", "new", "--because", "restore"))
            eventually(lambda: b"intact;" in hub.command("audit", "verify", check=False).stdout)
            verified = eventually(lambda: hub.command("audit", "verify"))
            assert b"WARNING: workers have a role" not in verified.stderr
            assert "same role" not in (hub.data / "penstock.log").read_text()
            for name in ("worker", "keeper"):
                for process in hub.processes(name):
                    given = process.environ()
                    assert "PENSTOCK_DATABASE_OWNER_URL" not in given
                    assert f"//{name}@" in given["PENSTOCK_DATABASE_URL"]
            logs = (hub.data / "log" / "keeper.log").read_text()
            logs += (hub.data / "log" / "worker-0.log").read_text()
            assert "permission denied" not in logs
        finally:
            hub.stop()


def use(hub: RunningHub, url: str) -> None:
    """Use each of the hub's tables in some way."""
    body = {"url": f"{url}/hook", "selections": [{"dataset": "customers"}]}
    hook = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=body)
    assert hook.status == 200, hook.text
    record = new_customer()
    path = f"/v1/customers/{record['customerId']}"
    for method, place, sent in (
        ("POST", "/v1/customers", record),
        ("PATCH", path, {"name": "New"}),
        ("POST", "/v1/customers:batchUpsert", {"customers": [new_customer()]}),
        ("DELETE", path, None),
    ):
        reply = hub.request(method, place, consumer="admin", json_body=sent)
        assert reply.status == 200, reply.text
    rows = b"customer_id,name\nx-1,One\n"
    reply = hub.request("POST", "/v1/customers:import?format=CSV", consumer="admin", body=rows)
    assert reply.status == 200, reply.text
    for got in ("customers:export", "customers:digest", "audit/entries", "changes:log"):
        assert hub.get(f"/v1/{got}").status == 200, got
    hub.command("consumers", "list")
    hub.command("credentials", "issue", "bi")
    hub.command("keys", "rotate")


def test_one_role_for_all_is_said(server: Server) -> None:
    """``up`` and ``audit verify`` report it; and each of the URLs alone is refused."""
    environment = {
        "PENSTOCK_DATABASE_URL": server.url("owner", "single"),
        "PENSTOCK_WORKERS": "1",
    }
    with folder() as data:
        hub = RunningHub(data / "hub", customers=5, environment=environment)
        hub.start()
        try:
            assert "PENSTOCK_DATABASE_OWNER_URL" in (hub.data / "penstock.log").read_text()
            said = hub.command("audit", "verify", check=False).stderr
            assert b"WARNING: workers have a role" in said
        finally:
            hub.stop()
        hub.environment["PENSTOCK_DATABASE_OWNER_URL"] = server.url("owner", "single")
        refused = hub.command("up", check=False)
        assert refused.returncode == 2
        assert b"are needed together" in refused.stderr
