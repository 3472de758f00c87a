"""The call that a command serves: its caller, the policy that applies, and the records of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import orjson

from penstockd.audit.bounds import TEXT_BYTES, bounded_text, query_text
from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.given import GivenRecords
from penstockd.audit.journal import Journal
from penstockd.audit.open_streams import OpenStream, OpenStreams
from penstockd.audit.shown import Shown, insert_shown
from penstockd.catalog import Catalog, Dataset, Field
from penstockd.errors import PermissionDenied
from penstockd.observe.metrics import find_counter
from penstockd.policy.model import Action, Permission, Principal
from penstockd.policy.scopes import scopes_permit
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.policy.standing import renew_caller
from penstockd.policy.view import View
from penstockd.store.database import Connection, Database
from penstockd.store.writer import Writer, WriteTransaction
from penstockd.tasks import Tasks

T = TypeVar("T")


class Allowance(Protocol):
    """Decides how many records consumers may receive."""

    def take(self, entry: Entry, count: int) -> None:
        """Count records that are about to leave by the call or message of an entry.

        Raises Refused to keep them in. Then no entry reports them as sent, and a stream ends before
        them; it can be resumed if the error's reason has a time to retry.
        """


class Gauge(Protocol):
    """Charges a call for what it uses of its consumer's quotas.

    All raise QuotaExhausted and DatabaseUnavailable, and AllowanceLost what is charged at once.
    """

    async def charge_records(self, count: int, entry: Entry | None) -> None:
        """Charge records that are about to leave, to an entry, or at once without one."""

    async def charge_import(self, count: int, entry: Entry) -> None:
        """Charge records that were written to the entry; only those of imports count."""

    async def charge_reply(self, entry: Entry) -> None:
        """Charge the bytes of a reply to its entry, if it has any."""

    def note_sent(self, rows: int, size: int) -> None:
        """Note the records and bytes that a stream has sent so far, in all."""

    async def charge_sent(self, *, ends: bool = False) -> None:
        """Charge what a stream has sent since the last time; it ``ends`` without an error."""


class Books(Protocol):
    """The organs with which a call writes records and its audit entry."""

    @property
    def allowance(self) -> Allowance | None:
        """Judges what is about to leave; with None everything may leave."""

    @property
    def journal(self) -> Journal:
        """Makes entries durable outside the call's own transactions."""

    @property
    def open_streams(self) -> OpenStreams:
        """Notes what streams have sent, and writes the entries of their ends."""

    @property
    def writer(self) -> Writer:
        """Opens transactions that write records."""

    @property
    def tasks(self) -> Tasks:
        """Runs work to its end, even if the caller leaves."""


class ReadingOrgans(Protocol):
    """The organs with which commands read for a call."""

    @property
    def database(self) -> Database:
        """Where the records are stored."""

    @property
    def policy(self) -> Policy:
        """The current policy: what the caller may see."""


class Permit:
    """Proof that the audit has the records in a frame. Only a ``Call`` issues it."""

    __slots__ = ()


_PERMIT = Permit()


@dataclass(slots=True)
class ArrivingCall:
    """A call whose caller is not known yet. Public methods receive this and nothing more.

    It gives no access to data: only a ``Call`` makes Views.
    """

    entry: Entry
    policy: PolicySnapshot
    #: Whether the entry is durable.
    recorded: bool = field(default=False, kw_only=True)
    #: Records that the reply shows so far; None until a disclosure is noted.
    disclosed: int | None = field(default=None, kw_only=True)
    #: The consumer that the caller claims to be, without proof; None if it does not exist.
    claimed: str | None = field(default=None, kw_only=True)

    def note_recorded(self) -> None:
        """Note that the entry is durable, or is being made so and must not be written again."""
        self.recorded = True

    def note_claim(self, name: str, value: str, consumer: str | None) -> None:
        """Note the consumer that the caller claims to be: the value that it sent, for the audit
        entry, and the consumer that owns it, if there is one."""
        self.entry.query = query_text({name: bounded_text(value, TEXT_BYTES["consumer_id"])})
        self.claimed = consumer


@dataclass(slots=True)
class Call(ArrivingCall):
    """One call: its caller, the policy that applies, and the audit entry that it leaves.

    Only the interceptor ``auth`` makes one, so a Call proves that its caller has shown a
    credential. It is ``replayed`` if it did nothing because an earlier call with the same request
    id had done the work.
    """

    books: Books
    principal: Principal
    replayed: bool = False
    #: Whether the reply to a write shows the record as the caller may read it, and not only the
    #: values that the call itself has set.
    shows_record: bool = False
    #: The fields of these values, if the reply shows them alone.
    own_fields: Sequence[Field] = ()
    #: Whether nothing but headers leaves (HEAD): then no records are disclosed, and a command that
    #: would hold a state, wait, or send a file or stream returns when it has checked the call.
    headers_only: bool = False
    #: Charges what the call uses; None if no quota counts it.
    gauge: Gauge | None = None
    #: Makes the gauge of the call under a policy; None if nothing is limited.
    meter: Callable[[PolicySnapshot], Gauge | None] | None = None
    #: The policy whose limits the gauge knows.
    _metered: PolicySnapshot | None = None
    _within: bool = False
    #: The records that were charged as imported.
    _imported: int = 0
    _stream: OpenStream | None = None

    def renew(self, policy: PolicySnapshot) -> None:
        """Apply the current policy to the rest of a call that has waited.

        Raises AccessRevoked if the caller's consumer or credential is no longer valid.
        """
        self.principal = renew_caller(self.principal, self.policy, policy)
        self.policy = policy
        self.entry.policy_revision = policy.revision
        self.adopt_terms(policy)

    def adopt_terms(self, policy: PolicySnapshot) -> None:
        """Charge the rest of the call by the limits of a policy."""
        if self.meter is not None and policy is not self._metered:
            self.gauge, self._metered = self.meter(policy), policy

    def permits(self, permission: Permission) -> bool:
        """Whether the caller has a permission on the hub itself: by a role and by its scopes."""
        return self.policy.permits(self.principal, permission)

    def require(self, permission: Permission, *or_else: Permission) -> None:
        """Raise PermissionDenied unless the caller has one of them; the error names the first."""
        if not any(map(self.permits, (permission, *or_else))):
            raise PermissionDenied(f"you need the permission {permission.value}")

    def view(self, dataset: Dataset, *actions: Action) -> View:
        """The caller's View of a dataset for actions. Raises PermissionDenied.

        A call that does two things to records (such as an upsert) asks for one View that allows
        both.
        """
        return self.policy.view(self.principal, dataset.name, *actions)

    def readable(self, catalog: Catalog) -> list[Dataset]:
        """The datasets that the caller may read. Raises PermissionDenied if there are none."""
        views = [(d, self.policy.visible(self.principal, d.name)) for d in catalog]
        found = [d for d, view in views if view is not None and view.allows(Action.READ)]
        if not found:
            raise PermissionDenied("you may not read any dataset")
        return found

    def reply_view(self, dataset: Dataset, *actions: Action) -> View | None:
        """The View that limits the reply to a write; None if the caller has no right to read.

        Only ``writes.outgoing`` asks for it: all replies to writes are made there.
        """
        return self.policy.reply_view(self.principal, dataset.name, *actions)

    def reaches(self, dataset: str, action: Action) -> bool:
        """Whether the scopes of the caller's token allow an action, whatever its roles allow."""
        return scopes_permit(self.principal.scopes, dataset, action)

    def in_scope(self, permission: Permission) -> bool:
        """Whether the scopes of the caller's token name a permission, whatever its roles allow."""
        scopes = self.principal.scopes
        return scopes is None or permission.value in scopes

    def asked(self, **query: Any) -> None:
        """Note the caller's request in the audit entry; empty parameters are left out."""
        given = {k: v for k, v in query.items() if v}
        if given:
            known = orjson.loads(self.entry.query) if self.entry.query else {}
            self.entry.query = query_text(known | given)

    def rule(self, view: View, fields: str = "") -> bytes:
        """The digest of what a View shows of each record, and by which rule (see ``audit.shown``).

        The rule is stored before the entry that names it.
        """
        return self.books.journal.introduce(view.prepared(Shown, fields))

    # --- disclosures: all data that leaves passes here, so that it is audited first ----------

    async def disclose(self, given: GivenRecords) -> None:
        """Note the records of a reply in the call's entry, which is durable before they leave.

        All disclosures raise Refused if the caller may receive no more (see ``Allowance``).
        """
        await self._count(given.count)
        if self.headers_only:
            return
        self.entry.shown = given.rule
        self.entry.row_count = given.count
        self.entry.keys = given.keys
        self.entry.low_key, self.entry.high_key = given.low_key, given.high_key

    async def disclose_one(self, rule: bytes) -> None:
        """Note that a reply shows the record whose key is in the call's entry."""
        await self._count(1)
        if not self.headers_only:
            self.entry.shown, self.entry.row_count = rule, 1

    async def will_disclose(self, view: View, fields: str = "") -> None:
        """Note that a reply shows the record that the call writes; the write's transaction will
        contain the entry. Raises DatabaseUnavailable."""
        await self._count(1)
        self.entry.shown = await self.books.journal.store(view.prepared(Shown, fields))

    async def disclose_within(
        self, connection: Connection, entries: Sequence[Entry], rules: Sequence[Shown]
    ) -> None:
        """Write entries for a reply in a transaction that ends before the reply leaves."""
        await self._count(sum(entry.row_count or 0 for entry in entries))
        if self.headers_only:
            return
        await insert_shown(connection, rules)
        await insert_entries(connection, entries)

    async def disclose_part(self, *given: GivenRecords) -> Permit:
        """Make durable which records the next frames of a stream show; then they may be sent.

        Raises DatabaseUnavailable, and the store's error if it refuses an entry: then the frames
        must not leave, and without the permit they cannot.
        """
        permit = await self.permit(sum(g.count for g in given))
        if not self.headers_only:
            await self.write_parts(given)
        return permit

    async def write_parts(self, given: Sequence[GivenRecords]) -> None:
        """Make durable, in separate entries, which records the call's stream sends."""
        parts, record = [self.entry.part(g) for g in given if g.count], self.books.journal.record
        if len(parts) == 1:
            await record(parts[0])
        elif parts:
            await asyncio.gather(*map(record, parts))

    def note_sent(self, rows: int, size: int) -> None:
        """Note the records and bytes that the call's stream has sent so far, in all.

        A stream that has noted any must call ``record_end``, however it ends.
        """
        if self._stream is None:
            self._stream = self.books.open_streams.open(self.entry)
        self._stream.row_count, self._stream.byte_count = rows, size
        if self.gauge is not None:
            self.gauge.note_sent(rows, size)

    @property
    def sent(self) -> tuple[int, int]:
        """The records and bytes that the call's stream has sent so far."""
        return (self._stream.row_count, self._stream.byte_count) if self._stream else (0, 0)

    async def record_end(self, outcome: str, rows: int, size: int) -> None:
        """Write the entry of how a stream of the call ended, with the totals that left the hub."""
        stream, self._stream = self._stream, None
        try:
            await self.books.open_streams.end(stream, self.entry.end(outcome, rows, size))
        finally:
            if self.gauge is not None:
                self.gauge.note_sent(rows, size)
                await self.gauge.charge_sent(ends=True)

    async def permit(self, count: int) -> Permit:
        """The permit to send records once their entries are durable (see ``disclose_part``)."""
        await self._count(count)
        return _PERMIT

    async def _count(self, count: int) -> None:
        """The one place that counts the records that leave by calls, before any entry reports
        them."""
        if self.headers_only:
            count = 0
        if count and self.books.allowance is not None:
            self.books.allowance.take(self.entry, count)
        if count and self.gauge is not None:
            await self.gauge.charge_sent()
            await self.gauge.charge_records(count, None if self.recorded else self.entry)
        if count:
            find_counter("penstock_disclosed_records_total", self.entry.dataset or "-").inc(count)
        self.disclosed = (self.disclosed or 0) + count

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end, even if the caller leaves, and return its result."""
        return await self.books.tasks.run(work)

    @asynccontextmanager
    async def writing(self, transaction: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """A transaction of the call's own writes: no call opens one in another way.

        It also contains the call's entry, unless the call is a stream or leases its records: those
        write entries of their own. The entry counts as recorded only once the transaction is
        committed: if it fails, even in COMMIT, another entry reports that.
        """
        self._within = False
        async with transaction as opened:
            yield opened
        if self._within:
            self.note_recorded()

    async def write(
        self,
        transaction: AbstractAsyncContextManager[Connection],
        work: Callable[[Connection], Awaitable[T]],
        *,
        then: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Run ``work`` in one transaction with the call's entry, to its end even if the caller
        leaves, and return its result. ``then`` runs after the commit.

        The entry counts one record unless ``work`` sets another number.
        """

        async def run() -> T:
            async with self.writing(transaction) as connection:
                result = await work(connection)
                rows = self.entry.row_count
                await self.audit_within(connection, 1 if rows is None else rows)
            if then is not None:
                await then()
            return result

        return await self.finish(run())

    def transaction(
        self, *, dry: bool = False, bulk: bool = False
    ) -> AbstractAsyncContextManager[WriteTransaction]:
        """``writing`` for records. The entry states how many values were already in use by records
        that the caller may not read."""
        opened = self.books.writer.transaction(
            dry=dry, bulk=bulk, note_unseen=lambda count: self.asked(taken_unseen=count)
        )
        return self.writing(opened)

    async def audit_within(self, connection: Connection, rows: int) -> None:
        """Write the entry in the transaction of the call's own writes (see ``writing``)."""
        await self.charge_import(rows)
        if self.gauge is not None:
            await self.gauge.charge_reply(self.entry)
        self.entry.row_count = rows
        await insert_entries(connection, [self.entry])
        self._within = True

    async def charge_import(self, rows: int) -> None:
        """Charge the records that the call writes, if it imports them; once, if it is repeated.

        A replay writes none. Raises QuotaExhausted: then nothing may be written.
        """
        if self.gauge is not None and not self.replayed and rows > self._imported:
            await self.gauge.charge_import(rows - self._imported, self.entry)
            self._imported = rows
