"""Sets up the demo on a running hub: access, demo.json, and the data, loaded like a client's."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from penstockd.auth.credentials import Credentials
from penstockd.catalog import Catalog
from penstockd.demo.access import cover_new_datasets, put_demo_access
from penstockd.store.database import open_database


class DemoFailed(Exception):
    """The demo company could not be loaded."""


class Demo:
    """The demo company of ``customers`` customers in one data folder.

    It is loaded through ``door``, by default the public ``url``.

    ``demo.json`` in the folder, readable by its owner only, holds the URL and the consumers'
    credentials; ``demo.loaded`` holds how many customers are loaded.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        customers: int,
        catalog: Catalog,
        credentials: Credentials,
        door: str | None = None,
    ) -> None:
        self._url, self._door, self._customers = url, door or url, customers
        self._catalog, self._credentials = catalog, credentials
        self._file, self._loaded = folder / "demo.json", folder / "demo.loaded"

    async def prepare(self, database_url: str) -> None:
        """Make roles, consumers and credentials, unless demo.json has those of this database."""
        async with open_database(database_url, size=1) as database:
            async with database.connection() as connection:
                known = await connection.fetchval(
                    "SELECT count(*) FROM hub.consumer WHERE consumer_id = ANY($1)",
                    ["admin", "crm", "bi"],
                )
            document = self._read()
            if known < 3 or document is None:
                consumers = await put_demo_access(database, self._credentials, self._catalog)
                self._loaded.unlink(missing_ok=True)
            else:
                consumers = document["consumers"]
                await cover_new_datasets(database, self._catalog)
            self._write({"url": self._url, "consumers": consumers})

    async def load(self) -> None:
        """Import the company, unless it is loaded already, and check that an export succeeds.

        Another process does it, like any client, so that this one need not load gRPC. Raises
        DemoFailed.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "penstockd.demo.loading"),
            *(str(self._file), str(self._loaded), self._door, str(self._customers)),
            stdout=sys.stderr.fileno(),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            told = errors.decode(errors="replace").strip().splitlines()
            raise DemoFailed(f"the demo could not be loaded: {told[-1] if told else 'no reason'}")

    def welcome(self) -> str:
        """Where the hub is and what to try first. Contains no secret: it can appear in a log."""

        def curl(consumer: str, path: str) -> str:
            token = f"$(.venv/bin/penstock token --as {consumer})"
            return f"  curl -H \"authorization: Bearer {token}\" '{self._url}{path}'"

        return "\n".join(
            [
                "",
                f"Penstock is ready: {self._url}",
                f"Console: {self._url}/portal/",
                f"Credentials of admin, crm and bi: {self._file}",
                "Be one of them: .venv/bin/penstock login --as crm   (or --as crm on each command)",
                "Try:",
                curl("crm", "/v1/customers?page_size=3"),
                curl("bi", "/v1/customers:export?format=CSV&limit=5"),
                "  .venv/bin/penstock export customers --as crm --format xml --output crm.xml",
                "  .venv/bin/penstock webhooks listen --as crm --forward-to http://localhost:3000",
                "Webhooks of this demo may lead to this machine too, and by http (the loopback).",
                "",
            ]
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return None
        return document

    def _write(self, document: dict[str, Any]) -> None:
        temporary = self._file.with_suffix(".part")
        temporary.unlink(missing_ok=True)
        owner_only = stat.S_IRUSR | stat.S_IWUSR
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, owner_only), "w"
        ) as f:
            json.dump(document, f, indent=2)
        temporary.replace(self._file)
