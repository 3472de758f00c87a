"""The rights of each kind of process in the database, if they log in as different roles.

The owner creates and alters the tables; no process of the hub runs as it. Workers, which callers
reach, can add and read audit entries, but not change, remove or seal them. The keeper seals, and
can call the functions that add and drop partitions.

Nobody is granted anything that is not stated here: a table without a line in TABLES is unusable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from penstockd.store.database import Connection, plain_dsn, translate_errors
from penstockd.store.sockets import open_session
from penstockd.store.tables import DATA_SCHEMA, HUB_SCHEMA

NONE = ""
READ = "SELECT"
APPEND = "SELECT, INSERT"
REPLACE = "SELECT, UPDATE"
EXTEND = "SELECT, INSERT, UPDATE"
ROWS = "SELECT, INSERT, UPDATE, DELETE"


class RolesUnusable(Exception):
    """The roles do not separate the processes as they must; the message names the role and the
    reason."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What workers and the keeper may do with a table."""

    worker: str
    keeper: str


_SHARED = Granted(ROWS, ROWS)
#: The hub's own tables.
TABLES: Mapping[str, Granted] = {
    "audit_archive": Granted(READ, APPEND),
    "audit_count": Granted(NONE, NONE),
    "audit_entry": Granted(APPEND, APPEND),
    "audit_shown": Granted(APPEND, APPEND),
    "audit_seal": Granted(READ, APPEND),
    "audit_chain": Granted(READ, EXTEND),
    "audit_checkpoint": Granted(READ, APPEND),
    "audit_head": Granted(READ, REPLACE),
    "cursor_key": Granted(READ, EXTEND),
    "epoch": Granted(READ, READ),
    "epoch_head": Granted(READ, READ),
    "lasting_key": Granted(READ, EXTEND),
    "model": Granted(READ, READ),
    "root_secret": Granted(READ, EXTEND),
    "schema_version": Granted(READ, READ),
    "shape": Granted("SELECT, INSERT, DELETE", READ),
    "singleton": Granted(READ, ROWS),
    "open_stream": Granted(ROWS, "SELECT, UPDATE, DELETE"),
    "usage_series": Granted(READ, "SELECT, INSERT, DELETE"),
    "usage_plans": Granted(READ, READ),
    "usage_minute": Granted(READ, ROWS),
    "usage_hour": Granted(READ, ROWS),
    "usage_day": Granted(READ, ROWS),
    "usage_place": Granted(READ, EXTEND),
    "usage_level": Granted(READ, REPLACE),
    "access_use": Granted(READ, ROWS),
    "check_day": Granted(READ, EXTEND),
    "door_hour": Granted(READ, ROWS),
    "usage_digest": Granted(READ, EXTEND),
    "token_issuer": Granted(READ, APPEND),
    "change": Granted(EXTEND, EXTEND),
    **dict.fromkeys(
        (
            "allowance", "consumer", "consumer_role",
            "credential", "credential_digest", "credential_use",
            "grant", "issuer", "plan",
            "log_head", "log_transaction", "lost_reference", "node", "pending", "policy",
            "policy_document", "policy_revision", "portion", "receipt", "role", "signing_key",
            "spender", "spending", "spike",
            "stored_reply", "subscription", "subscription_lease", "trust", "webhook",
            "webhook_attempt", "webhook_delivery", "webhook_event", "webhook_head", "webhook_key",
            "webhook_notice", "webhook_revision", "webhook_secret",
        ),
        _SHARED,
    ),
}  # fmt: skip
#: The tables of datasets.
DATASETS = Granted(ROWS, READ)
#: Functions that act with the owner's rights: for the keeper alone, or for workers as well.
KEEPERS_FUNCTIONS = (
    "add_change_partitions",
    "add_audit_partitions",
    "prune_log",
    "count_audit_day",
    "drop_audit_day",
    "drop_empty_audit_days",
    "rebase_audit",
    "notice_lost_checkpoint",
)
EVERYBODYS_FUNCTIONS = ("notice_return",)
#: Functions that only these functions and the owner's commands call.
OWNERS_ALONE = ("open_epoch",)

_TABLES = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY n.nspname, c.relname
"""
#: A member of a role, or a superuser, has rights beyond those granted here.
_POWERS = """
SELECT rolsuper, pg_has_role(r.oid, $2, 'MEMBER') FROM pg_roles AS r WHERE rolname = $1
"""
_MAY_CHANGE = """
SELECT has_table_privilege($1, 'hub.audit_entry', 'UPDATE, DELETE, TRUNCATE, TRIGGER')
    OR has_table_privilege($1, 'hub.audit_seal', 'UPDATE, DELETE, TRUNCATE, TRIGGER')
"""


async def grant_roles(owner_url: str, worker_url: str, keeper_url: str) -> None:
    """Grant the roles of workers and the keeper the rights that they need, and no more.

    Call it after each migration. Raises RolesUnusable if a role already has more rights, and
    DatabaseUnavailable.
    """
    worker, keeper = await _login_role(worker_url), await _login_role(keeper_url)
    with translate_errors():
        owner = await open_session(plain_dsn(owner_url))
        try:
            async with owner.transaction():
                await _check_roles(owner, worker, keeper)
                for statement in [s async for s in _grant_statements(owner, worker, keeper)]:
                    await owner.execute(statement)
                for role in (worker, keeper):
                    if await owner.fetchval(_MAY_CHANGE, role):
                        raise RolesUnusable(f"the role {role} can change the audit by other grants")
        finally:
            await owner.close()


async def may_change_audit(connection: Connection) -> bool:
    """Whether the role of a connection could change or remove audit entries or seals."""
    role = await connection.fetchval("SELECT current_user")
    return bool(await connection.fetchval(_MAY_CHANGE, role))


async def stated_tables(connection: Connection) -> Mapping[tuple[str, str], Granted | None]:
    """Every table of the database by schema and name, with the rights stated here; None if there
    are none."""
    rows = await connection.fetch(_TABLES, [HUB_SCHEMA, DATA_SCHEMA])
    return {
        (schema, name): DATASETS if schema == DATA_SCHEMA else TABLES.get(name)
        for schema, name in rows
    }


async def _login_role(url: str) -> str:
    """The role that a URL logs in as."""
    with translate_errors():
        connection = await open_session(plain_dsn(url))
        try:
            return str(await connection.fetchval("SELECT current_user"))
        finally:
            await connection.close()


async def _check_roles(owner: Connection, worker: str, keeper: str) -> None:
    name = str(await owner.fetchval("SELECT current_user"))
    if len({name, worker, keeper}) < 3:
        raise RolesUnusable(
            f"owner, workers and keeper must be three roles, not {name}, {worker} and {keeper}"
        )
    for role, other in ((worker, name), (worker, keeper), (keeper, name)):
        powers = await owner.fetchrow(_POWERS, role, other)
        assert powers is not None, "it has just logged in"
        if powers[0]:
            raise RolesUnusable(f"the role {role} is a superuser: nothing is denied to it")
        if powers[1]:
            raise RolesUnusable(
                f"the role {role} is a member of {other} and may do all that it may"
            )


async def _grant_statements(owner: Connection, worker: str, keeper: str) -> AsyncIterator[str]:
    tables = await stated_tables(owner)
    roles = [(_quote_name(worker), "worker"), (_quote_name(keeper), "keeper")]
    for role, kind in roles:
        for schema in (HUB_SCHEMA, DATA_SCHEMA):
            yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}"
            yield f"GRANT USAGE ON SCHEMA {schema} TO {role}"
        yield f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {HUB_SCHEMA} TO {role}"
        for (schema, name), granted in tables.items():
            rights = getattr(granted, kind) if granted is not None else NONE
            if rights:
                yield f"GRANT {rights} ON {schema}.{_quote_name(name)} TO {role}"
    for name in (*KEEPERS_FUNCTIONS, *EVERYBODYS_FUNCTIONS):
        for (signature,) in await owner.fetch(
            "SELECT oid::regprocedure::text FROM pg_proc"
            " WHERE pronamespace = 'hub'::regnamespace AND proname = $1",
            name,
        ):
            yield f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC, {_quote_name(worker)}"
            yield f"GRANT EXECUTE ON FUNCTION {signature} TO {_quote_name(keeper)}"
            if name in EVERYBODYS_FUNCTIONS:
                yield f"GRANT EXECUTE ON FUNCTION {signature} TO {_quote_name(worker)}"


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
