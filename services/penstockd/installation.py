"""One installation: its model, its secrets, the name of its node, and the database it uses."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from penstockd.auth.secret import load_secrets
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.config import Settings
from penstockd.keyring import KeyRing
from penstockd.node import lock
from penstockd.node.certificates import Certificates
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.resources import find_descriptors

_INSTALLATION_ID = "installation-id"


def read_catalog(tree: Path | None = None) -> Catalog:
    """The catalog of the installed model, or of the model in a tree (see ``resources``)."""
    return load_catalog(find_descriptors(tree))


def open_ring(settings: Settings) -> KeyRing:
    """The root secrets of this installation; one is made if there is none yet."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    given = (settings.secret, settings.second_secret)
    return KeyRing(lambda: load_secrets(given, settings.data_dir))


def node_id(settings: Settings) -> str:
    """The permanent name of this node: made at its first start and kept in the data folder."""
    return _keep_random_id(settings.data_dir / "node-id")


def installation_id(settings: Settings) -> str:
    """The id by which a vault recognises its owner. A restored copy is another installation."""
    return _keep_random_id(settings.data_dir / _INSTALLATION_ID)


def forget_installation_id(settings: Settings) -> None:
    """Make this another installation, which owns no vault."""
    (settings.data_dir / _INSTALLATION_ID).unlink(missing_ok=True)


def _keep_random_id(path: Path) -> str:
    """The id in a file, made if there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Linking makes the file appear whole, and only once if several processes ask at a time.
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(f"{secrets.token_hex(8)}\n")
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_text().strip()


@dataclass(frozen=True, slots=True)
class FoundDatabase:
    """The database of an installation. ``hub_runs``: a hub may be using it."""

    url: str
    hub_runs: bool


@contextlib.asynccontextmanager
async def find_database(settings: Settings, *, alone: bool = False) -> AsyncIterator[FoundDatabase]:
    """The database in the settings, or that of the hub running here, or the embedded one, started
    for the duration of the context.

    Raises NodeError; with ``alone`` also if a hub runs here on the embedded database.
    """
    if settings.database_url is not None:
        yield FoundDatabase(settings.database_url, hub_runs=True)
        return
    postgres = EmbeddedPostgres(settings.data_dir, sockets_folder(settings.data_dir))
    if not alone and lock.find_supervisor(settings.data_dir) is not None:
        yield FoundDatabase(postgres.dsn, hub_runs=True)
        return
    with lock.hold_folder(settings.data_dir):
        try:
            yield FoundDatabase(await postgres.start(), hub_runs=False)
        finally:
            await postgres.stop()


def find_certificates(settings: Settings) -> Certificates | None:
    """The certificate of the public port, and the authorities of its clients; None without TLS."""
    if settings.tls_dir is None:
        return None
    return Certificates(folder=settings.tls_dir, client_ca=settings.tls_client_ca)
