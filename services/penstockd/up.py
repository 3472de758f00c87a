"""The composition root of a node: database migrated, demo created, processes supervised."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from penstockd.access.administrator import NoSuchConsumer, make_administrator
from penstockd.audit.checkpoint import CheckpointFile, RingSigners
from penstockd.audit.declared_epoch import Epoch, open_epoch
from penstockd.audit.sealer import Sealer
from penstockd.auth.credentials import Credentials, Issued
from penstockd.auth.keys import ensure_signing_key, load_signing_keys
from penstockd.auth.trust import note_token_issuer
from penstockd.catalog import ModelError
from penstockd.config import Settings
from penstockd.demo.company import Demo, DemoFailed
from penstockd.egress import LOOPBACK
from penstockd.errors import Conflict, DatabaseUnavailable, ValueInvalid
from penstockd.installation import find_certificates, find_database, open_ring, read_catalog
from penstockd.keyring import CREDENTIALS, SIGNING, KeyRing, Seal, SecretMismatch
from penstockd.node.envoy import Edge
from penstockd.node.errors import FolderUnusable, NodeError
from penstockd.node.ring import RateLimit
from penstockd.node.sockets import sockets_folder
from penstockd.node.supervisor import Node, missing_files, supervise_node
from penstockd.observe import set_up
from penstockd.output import tell_progress
from penstockd.resources import door_descriptors, envoy_inputs, envoy_templates, find_portal
from penstockd.store.capacity import allowed_connections, needed_connections
from penstockd.store.database import Database, name_place, open_database
from penstockd.store.migrate import (
    MigrationFailed,
    MigrationNeeded,
    ServerTooOld,
    apply_migration,
    plan_migration,
)
from penstockd.store.partitions import add_partitions
from penstockd.store.places import rotate_cursor_key
from penstockd.store.roles import RolesUnusable, grant_roles
from penstockd.store.root_secrets import ensure_root_secret, read_root_secrets
from penstockd.store.sharing import LiveNode, read_live_nodes
from penstockd.store.singleton_rows import Singleton, read_singletons
from penstockd.store.step import Step

_log = structlog.get_logger(__name__)


_ONE_ROLE = (
    "WARNING: every process has the same role in the database, and so could change the audit: "
    "see PENSTOCK_DATABASE_OWNER_URL."
)


class StartRefused(Exception):
    """The hub cannot start, or cannot do what was requested; the message tells how to correct
    that."""


_HAS_INSTANCES = """
SELECT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'hub.node'::regclass AND attname = 'instance')
"""
#: Errors that an operator can correct, with a message meant for the operator.
OPERATORS_ERRORS = (
    NodeError,
    MigrationNeeded,
    ServerTooOld,
    DatabaseUnavailable,
    SecretMismatch,
    ModelError,
    MigrationFailed,
    RolesUnusable,
    DemoFailed,
    OSError,
)


async def run_node(settings: Settings, *, demo_customers: int | None) -> None:
    """Run everything on this machine until SIGINT or SIGTERM. Raises StartRefused."""
    set_up("supervisor", settings.log_level, None)
    try:
        _make_folder(settings.data_dir)
        ring = open_ring(settings)
        demo, room = None, list[str]()
        if demo_customers is not None:
            settings = demo_settings(settings)
            demo = _make_demo(settings, demo_customers, ring)

        async def prepare(url: str) -> None:
            # From here on the folder belongs to this process: a killed run left any ready file in
            # it.
            settings.ready_file.unlink(missing_ok=True)
            tell_progress("migrating the tables to the model")
            await prepare_store(settings, url, ring)
            room.extend(await check_connections(settings, url))
            if demo is not None:
                await demo.prepare(url)

        async def on_ready() -> None:
            if demo is not None:
                await demo.load()
            print(demo.welcome() if demo is not None else f"Penstock is ready: {settings.url}")
            if settings.in_the_clear:
                print(f"WARNING: no TLS on {settings.host}: credentials and records are readable.")
            if settings.database_url is not None and settings.database_owner_url is None:
                print(_ONE_ROLE)
            for line in [*warn_few_files(settings), *room]:
                print(line)
            sys.stdout.flush()
            _tell_ready(settings)

        await supervise_node(_make_node(settings), prepare, on_ready)
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc
    finally:
        _forget_ready(settings)


def warn_few_files(settings: Settings) -> list[str]:
    """Log, and tell the operator, that the system allows fewer open files than the hub needs."""
    missing = missing_files(settings.max_connections)
    if not missing:
        return []
    _log.warning("few_open_files", missing=missing, connections=settings.max_connections)
    return [
        f"WARNING: 'ulimit -n' allows {missing} open files too few for {settings.max_connections}"
        " client connections: raise its hard limit, or lower PENSTOCK_MAX_CONNECTIONS."
    ]


async def check_connections(settings: Settings, url: str) -> list[str]:
    """Log how many database connections the node may open; returns a warning for the operator of an
    external database. Raises DatabaseUnavailable."""
    needed = needed_connections(settings.workers, settings.connections)
    async with open_database(url, size=1) as database, database.connection() as connection:
        allowed = await allowed_connections(connection)
    if needed > allowed:
        _log.warning("too_few_database_connections", needed=needed, allowed=allowed)
    else:
        _log.info("database_connections", needed=needed, allowed=allowed)
    if settings.database_url is None:
        return []
    warning = "WARNING: " if needed > allowed else ""
    return [
        f"{warning}this node opens up to {needed} database connections; its role may have {allowed}"
        " for all nodes together (PENSTOCK_WORKERS, PENSTOCK_CONNECTIONS)."
    ]


async def migrate_store(settings: Settings, *, apply: bool) -> list[Step]:
    """The steps that bring the database to the model; ``apply`` runs them.

    Raises StartRefused, with ``apply`` also if the hub runs on the embedded database.
    """
    try:
        async with find_database(settings, alone=apply) as found:
            steps = await _run_migration(settings, settings.database_owner_url or found.url, apply)
        if apply:
            await _part_roles(settings)
        return steps
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


async def let_administer(settings: Settings, consumer_id: str, *, create: bool) -> Issued:
    """Let a consumer change access, and return a new client secret for it.

    ``create`` lets the consumer be made if there is none of this name.

    Works on the database, whether the hub runs or not, and changes nothing else in it: it never
    migrates, since a hub of another version may be running on it. Raises StartRefused.
    """
    ring = open_ring(settings)
    credentials = Credentials(ring.keys(CREDENTIALS))
    try:
        async with open_store(settings, "hub.root_secret") as database:
            async with database.connection() as connection:
                await read_root_secrets(connection, ring)
            return await make_administrator(database, credentials, consumer_id, create=create)
    except (NoSuchConsumer, ValueInvalid) as exc:
        raise StartRefused(exc.message) from exc
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


async def begin_epoch(settings: Settings, because: str) -> Epoch:
    """Declare that the database has gone back in time.

    Works on the database as ``let_administer`` does. Raises StartRefused.
    """
    try:
        owner = settings.database_owner_url  # only the owner may skip revisions
        async with open_store(settings, "hub.epoch", owner) as database:
            file, ring = CheckpointFile(settings.checkpoint_file), open_ring(settings)
            async with database.connection() as connection:
                await read_root_secrets(connection, ring)
            sealer = Sealer(database, RingSigners(ring), file)
            return await open_epoch(database, sealer, file, because)
    except Conflict as exc:
        raise StartRefused("other processes keep sealing the audit: try again") from exc
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


async def let_cursor_key_follow(settings: Settings) -> int:
    """Let a new key seal cursors, starting in one minute; return its number.

    Works on the database as ``let_administer`` does. Raises StartRefused.
    """
    try:
        async with (
            open_store(settings, "hub.cursor_key", settings.database_keeper_url) as database,
            database.transaction() as connection,
        ):
            number = await rotate_cursor_key(connection)
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc
    assert number is not None, "it was not asked by age"
    return number


async def survey_nodes(settings: Settings) -> tuple[list[LiveNode], list[Singleton]]:
    """The live nodes, and which node holds each task that only one node does at a time.

    Works on the database as ``let_administer`` does. Raises StartRefused.
    """
    try:
        async with (
            open_store(settings, "hub.node") as database,
            database.connection() as connection,
        ):
            if not await connection.fetchval(_HAS_INSTANCES):
                raise StartRefused(
                    "the database is of an earlier version: start the hub, penstock up"
                )
            return await read_live_nodes(connection), await read_singletons(connection)
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


@contextlib.asynccontextmanager
async def open_store(
    settings: Settings, table: str, login: str | None = None
) -> AsyncIterator[Database]:
    """Open the database, with ``login`` as its URL if given. Raises StartRefused if its version
    does not have the table."""
    async with (
        find_database(settings) as found,
        open_database(login or found.url, size=2) as database,
    ):
        async with database.connection() as connection:
            ready = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table)
        if not ready:
            raise StartRefused("the database is not set up: start the hub once, penstock up")
        yield database


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        reason = "it is not a folder" if folder.exists() else exc.strerror
        raise FolderUnusable(f"the data folder {folder} cannot be used: {reason}") from exc


def _tell_ready(settings: Settings) -> None:
    """Write the ready file; a full disk does not end a hub that serves."""
    try:
        settings.ready_file.write_text(str(os.getpid()))
    except OSError as exc:
        _log.warning("ready_file_not_written", path=str(settings.ready_file), error=str(exc))


def _forget_ready(settings: Settings) -> None:
    """Remove the ready file if it belongs to this process, not to another that still runs."""
    with contextlib.suppress(OSError):
        if settings.ready_file.read_text() == str(os.getpid()):
            settings.ready_file.unlink()


def explain_error(settings: Settings, error: Exception) -> str:
    """The cause of an error, for the console: one line, or several for a list."""
    if isinstance(error, DatabaseUnavailable):
        url = settings.database_url
        where = f"at {name_place(url)}" if url is not None else "of the data folder"
        cause = error.__cause__ or error
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        return f"the database {where} cannot be reached: {reason or type(cause).__name__}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


async def _run_migration(settings: Settings, url: str, apply: bool) -> list[Step]:
    catalog = read_catalog(settings.resources)
    return await (
        apply_migration(url, catalog, destructive=True) if apply else plan_migration(url, catalog)
    )


def _make_demo(settings: Settings, customers: int, ring: KeyRing) -> Demo:
    # A public URL need not lead here yet, and this machine need not trust its certificate.
    door = None
    if settings.tls_dir is not None or settings.public_url is not None:
        door = f"unix://{sockets_folder(settings.data_dir)}/worker-0.sock"
    return Demo(
        settings.data_dir,
        settings.url,
        customers,
        read_catalog(settings.resources),
        Credentials(ring.keys(CREDENTIALS)),
        door,
    )


def demo_settings(settings: Settings) -> Settings:
    """The settings of a demo: webhooks may lead to this machine, where test receivers run.

    A list that the operator has set is kept, even an empty one.
    """
    if "webhook_allow" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"webhook_allow": LOOPBACK})


def _make_node(settings: Settings) -> Node:
    python = [sys.executable, "-m", "penstockd"]
    return Node(
        data=settings.data_dir,
        database_url=settings.database_url,
        workers=settings.workers,
        connections=needed_connections(settings.workers, settings.connections),
        worker=lambda socket: [*python, "worker", "--socket", str(socket)],
        keeper=[*python, "keeper"],
        environment=lambda url: {
            "PENSTOCK_DATABASE_URL": url,
            "PENSTOCK_DATA_DIR": str(settings.data_dir.absolute()),
            "PENSTOCK_WEBHOOK_ALLOW": ",".join(map(str, settings.webhook_allow)),
        },
        withheld=("PENSTOCK_DATABASE_OWNER_URL", "PENSTOCK_DATABASE_KEEPER_URL"),
        keeper_environment=(
            {"PENSTOCK_DATABASE_URL": settings.database_keeper_url}
            if settings.database_keeper_url is not None
            else {}
        ),
        template=envoy_templates(settings.resources) / "sidecar.yaml.j2",
        inputs=envoy_inputs(settings.resources),
        descriptors=door_descriptors(settings.resources),
        portal=find_portal(settings.resources),
        edge=_make_edge(settings),
        issuer=settings.token_issuer,
        audience=settings.audience,
    )


def _make_edge(settings: Settings) -> Edge:
    """The public port and its limits."""
    limit = None
    if settings.rate_limit:
        limit = RateLimit(settings.rate_limit, settings.rate_burst or 2 * settings.rate_limit)
    return Edge(
        host=settings.host,
        port=settings.port,
        public_url=settings.url,
        certificates=find_certificates(settings),
        rate_limit=limit,
        cors_origins=settings.cors_origins,
        trusted_proxies=settings.trusted_proxies,
        max_connections=settings.max_connections,
    )


async def _part_roles(settings: Settings) -> None:
    """Grant the roles their rights, if there are separate roles. Raises RolesUnusable."""
    if settings.database_owner_url is not None:
        assert settings.database_url is not None, "the settings were checked"
        assert settings.database_keeper_url is not None, "the settings were checked"
        await grant_roles(
            settings.database_owner_url, settings.database_url, settings.database_keeper_url
        )


async def prepare_store(settings: Settings, url: str, ring: KeyRing) -> None:
    """Bring the database to the model, register the root secret, and make the first signing key.

    Raises MigrationNeeded, ServerTooOld, RolesUnusable, SecretMismatch, DatabaseUnavailable.
    """
    await apply_migration(settings.database_owner_url or url, read_catalog(settings.resources))
    await _part_roles(settings)
    async with open_database(settings.database_keeper_url or url, size=2) as database:
        seal = Seal(ring.keys(SIGNING))
        async with database.transaction() as connection:
            await ensure_root_secret(connection, ring)
            await ensure_signing_key(connection, seal)
            await note_token_issuer(connection, settings.token_issuer)
            await load_signing_keys(connection, seal)
        await add_partitions(database)
