"""What every command works with: the hub's organs, and the call it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.journal import Journal
from penstockd.auth.credentials import Credentials
from penstockd.auth.tokens import Tokens
from penstockd.catalog import Catalog, Dataset
from penstockd.policy.model import Action, Principal
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.policy.view import View
from penstockd.query import PageTokens
from penstockd.store.database import Database
from penstockd.store.writer import Writer, WriteTransaction

T = TypeVar("T")


class Tasks:
    """Work that must end even if its caller goes away: it is waited for when the hub stops."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end; a cancelled caller leaves, the work does not."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait for all work under way."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the caller, if still there, has it; nobody else needs a warning


@dataclass(frozen=True)
class Hub:
    """The organs of one process, made in ``app``."""

    catalog: Catalog
    database: Database
    policy: Policy
    writer: Writer
    journal: Journal
    tokens: Tokens
    credentials: Credentials
    page_tokens: PageTokens
    public_url: str
    tasks: Tasks = field(default_factory=Tasks)


@dataclass(slots=True)
class Call:
    """One call: who makes it, under which policy, and the audit entry that it leaves."""

    entry: Entry
    policy: PolicySnapshot
    principal: Principal | None = None
    recorded: bool = False

    def view(self, dataset: Dataset, action: Action) -> View:
        """The caller's View of a dataset. Raises PermissionDenied."""
        assert self.principal is not None, "the auth interceptor lets nobody in without one"
        return self.policy.view(self.principal, dataset.name, action)

    def asked(self, **query: Any) -> None:
        """Note in the audit entry what the caller asked for, leaving out what it did not say."""
        given = {k: v for k, v in query.items() if v}
        if given:
            self.entry.query = orjson.dumps(given).decode()

    async def audit_within(self, transaction: WriteTransaction, rows: int) -> None:
        """Write the entry in the transaction of the call's own writes."""
        self.entry.row_count = rows
        await insert_entries(transaction.connection, [self.entry])
        self.recorded = True
