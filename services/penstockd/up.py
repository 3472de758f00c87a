"""The composition root of a node: database migrated, demo made, processes supervised."""

from __future__ import annotations

import os
import sys

from penstock.client import PenstockError
from penstockd.app import PARTITION_DAYS, read_catalog, root_secret
from penstockd.auth.credentials import Credentials
from penstockd.auth.keys import SecretMismatch, ensure_signing_key, load_signing_keys
from penstockd.catalog import ModelError
from penstockd.config import Settings
from penstockd.demo.company import Demo
from penstockd.errors import DatabaseUnavailable
from penstockd.node import lock
from penstockd.node.errors import NodeError
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.node.supervisor import Node, supervise
from penstockd.observe import set_up
from penstockd.resources import descriptors, envoy_inputs, envoy_templates
from penstockd.store.database import Database
from penstockd.store.migrate import MigrationNeeded, ServerTooOld, Step, migrate, plan


class StartRefused(Exception):
    """The hub cannot start, or cannot do what was asked; the message says what to do."""


#: What an operator can set right, with a message for its eyes.
_OPERATORS_ERRORS = (
    NodeError,
    MigrationNeeded,
    ServerTooOld,
    DatabaseUnavailable,
    SecretMismatch,
    ModelError,
    PenstockError,
    OSError,
)


async def run_node(settings: Settings, *, demo_customers: int | None) -> None:
    """Run everything on this machine until SIGINT or SIGTERM. Raises StartRefused."""
    set_up("supervisor", settings.log_level, None)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        settings.ready_file.unlink(missing_ok=True)
        demo = _demo(settings, demo_customers) if demo_customers is not None else None

        async def prepare(url: str) -> None:
            await prepare_store(settings, url)
            if demo is not None:
                await demo.prepare(url)

        async def on_ready() -> None:
            if demo is not None:
                await demo.load()
            print(demo.welcome() if demo is not None else f"Penstock is ready: {settings.url}")
            sys.stdout.flush()
            settings.ready_file.write_text(str(os.getpid()))

        await supervise(_node(settings), prepare, on_ready)
    except _OPERATORS_ERRORS as exc:
        raise StartRefused(str(exc)) from exc
    finally:
        settings.ready_file.unlink(missing_ok=True)


async def migrate_store(settings: Settings, *, apply: bool) -> list[Step]:
    """How the database differs from the model; with ``apply`` it does no longer.

    Raises StartRefused, also if the hub runs on the embedded database.
    """
    try:
        if settings.database_url is not None:
            return await _migrate(settings.database_url, apply)
        with lock.hold(settings.data_dir):
            postgres = EmbeddedPostgres(settings.data_dir, sockets_folder(settings.data_dir))
            try:
                return await _migrate(await postgres.start(), apply)
            finally:
                await postgres.stop()
    except _OPERATORS_ERRORS as exc:
        raise StartRefused(str(exc)) from exc


async def _migrate(url: str, apply: bool) -> list[Step]:
    catalog = read_catalog()
    return await (migrate(url, catalog, destructive=True) if apply else plan(url, catalog))


def _demo(settings: Settings, customers: int) -> Demo:
    credentials = Credentials(root_secret(settings).derive("credentials"))
    return Demo(settings.data_dir, settings.url, customers, read_catalog(), credentials)


def _node(settings: Settings) -> Node:
    python = [sys.executable, "-m", "penstockd"]
    return Node(
        data=settings.data_dir,
        database_url=settings.database_url,
        workers=settings.workers,
        worker=lambda socket: [*python, "worker", "--socket", str(socket)],
        keeper=[*python, "keeper"],
        environment=lambda url: {
            "PENSTOCK_DATABASE_URL": url,
            "PENSTOCK_DATA_DIR": str(settings.data_dir.absolute()),
        },
        template=envoy_templates() / "sidecar.yaml.j2",
        inputs=envoy_inputs(),
        descriptors=descriptors(),
        host=settings.host,
        port=settings.port,
        issuer=settings.issuer,
        audience=settings.audience,
    )


async def prepare_store(settings: Settings, url: str) -> None:
    """Bring the database to the model and make the first signing key.

    Raises MigrationNeeded, ServerTooOld, DatabaseUnavailable.
    """
    await migrate(url, read_catalog())
    database = Database(url, size=2)
    await database.open()
    try:
        sealing_key = root_secret(settings).derive("signing-key")
        async with database.transaction() as connection:
            await ensure_signing_key(connection, sealing_key)
            await load_signing_keys(connection, sealing_key)
        async with database.connection() as connection:
            await connection.execute("SELECT hub.add_change_partitions($1)", PARTITION_DAYS)
    finally:
        await database.close()
