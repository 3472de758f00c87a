"""Allowances: exactly what there is, whoever takes it, and whoever dies with it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from harness import PATIENCE
from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.journal import Journal
from penstockd.errors import DatabaseUnavailable, RateLimited
from penstockd.keyring import FixedKey
from penstockd.metering import purses
from penstockd.metering import spikes as spikes_module
from penstockd.metering.admission import Admission, Limiter
from penstockd.metering.call_limits import AskedCall
from penstockd.metering.ledger import ENDLESS, AllowanceKey, Ledger, Need, Portion
from penstockd.metering.lost_portions import LostPortions
from penstockd.metering.purses import Charge, Over, Purse, Spender, Spent
from penstockd.metering.spikes import Spikes
from penstockd.policy.errors import AllowanceLost, QuotaExhausted
from penstockd.policy.plans import (
    Countable,
    Plan,
    PlanLimits,
    PlanQuota,
    PlanRate,
    QuotaPeriod,
    Terms,
)
from penstockd.store.announcements import PostgresAnnouncements
from penstockd.store.database import Database, open_database

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
KEY = AllowanceKey("crm", "calls-per-day", START, START + dt.timedelta(days=1))


class Processes:
    """Processes that share a database."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url, self._stack = url, stack

    async def start(self) -> Spender:
        """A process that listens and renews."""
        database = await self._stack.enter_async_context(open_database(self._url, size=8))
        announcements = PostgresAnnouncements(database)
        spender = Spender(Ledger(database), announcements)
        for work in (announcements.follow(), spender.follow(lambda: None)):
            task = asyncio.create_task(work)
            self._stack.callback(task.cancel)
        return spender


@pytest.fixture
async def processes(store_url: str) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        yield Processes(store_url, stack)


async def spend(spender: Spender, charge: Charge) -> None:
    """Spend a charge, as the entry of a call does."""
    await spender.ledger.spend({charge.portion_id: charge.amount})
    charge.settle()


async def try_call(spender: Spender, cap: int, amount: int = 1) -> bool:
    """A call: whether it is admitted."""
    try:
        charge = await spender.purse(KEY).take(amount, cap)
    except Spent:
        return False
    await spend(spender, charge)
    return True


async def used(database: Database) -> int:
    """What was spent, and what is held."""
    async with database.connection() as connection:
        return int(
            await connection.fetchval("SELECT coalesce(sum(used), 0)::int FROM hub.allowance")
        )


async def settled(database: Database, amount: int) -> None:
    """Wait until so much is used, with everything that is idle returned."""
    async with asyncio.timeout(PATIENCE):
        while await used(database) != amount:  # noqa: ASYNC110  # others return it
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("cap", [1, 37, 200])
async def test_exactly_the_limit_is_admitted(
    database: Database, processes: Processes, cap: int
) -> None:
    """By any number of calls at once, at several processes; and each of the first, too."""
    spenders = [await processes.start() for _ in range(3)]
    calls = [try_call(spenders[n % 3], cap) for n in range(cap + 100)]
    assert sum(await asyncio.gather(*calls)) == cap
    assert not any([await try_call(spender, cap) for spender in spenders])
    await settled(database, cap)
    assert await try_call(spenders[0], cap + 1), "a limit that was raised"


async def test_no_call_is_refused_while_something_is_left(processes: Processes) -> None:
    """One after the other, at alternating processes: portions must not strand anything."""
    spenders = [await processes.start() for _ in range(3)]
    for n in range(60):
        assert await try_call(spenders[n % 3], 60), n
    assert not await try_call(spenders[0], 60)


async def test_amounts_are_taken_whole_or_not_at_all(processes: Processes) -> None:
    spenders = [await processes.start() for _ in range(2)]
    assert await try_call(spenders[0], 100, 60)
    assert not await try_call(spenders[1], 100, 41)
    assert await try_call(spenders[1], 100, 40)
    assert not await try_call(spenders[0], 100, 1)


async def test_bytes_go_over_the_limit_by_one_frame_at_most(processes: Processes) -> None:
    spender = await processes.start()
    purse = spender.purse(KEY)
    for amount in (60, 30, 500):
        await spend(spender, await purse.take(amount, 100, Over.FROM_SOME))
    with pytest.raises(Spent):
        await purse.take(1, 100, Over.FROM_SOME)
    await spend(spender, await purse.take(7, 100, Over.ALWAYS))
    found = await spender.ledger.read_used("crm", START)
    assert found == [("calls-per-day", START, 597)]


async def test_what_a_dead_process_held_comes_back(
    database: Database, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it spent stays spent."""
    dead, heir = Spender(Ledger(database), PostgresAnnouncements(database)), await processes.start()
    purse = dead.purse(KEY)
    for _ in range(3):
        await spend(dead, await purse.take(1, 50))
    unspent = await purse.take(1, 50)
    assert purse.in_hand > 0
    held = await used(database)
    assert held == 4 + purse.in_hand
    assert await LostPortions(database).take_back() == 0, "its term is not over"
    monkeypatch.setattr(purses, "PATIENCE", 0)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hub.spender SET expire_time = now() WHERE spender_id = $1",
            await dead.identify(),
        )
    assert await LostPortions(database).take_back() == 1
    assert await used(database) == 3
    assert sum([await try_call(heir, 50) for _ in range(60)]) == 47
    # It was only frozen: what it held cannot be spent any more, beside an entry or in one.
    with pytest.raises(AllowanceLost):
        await dead.ledger.spend({unspent.portion_id: 1})
    entry = Entry("r1", "/m", spends={unspent.portion_id: 1})
    async with database.connection() as connection:
        with pytest.raises(AllowanceLost):
            await insert_entries(connection, [entry, Entry("r2", "/m")])
        assert not await connection.fetchval("SELECT count(*) FROM hub.audit_entry")
    unspent.give_back()
    await dead.renew()  # it notices
    assert purse.in_hand == 0
    assert not await try_call(dead, 50)


async def test_an_open_transaction_that_spends_delays_the_return(
    database: Database, processes: Processes
) -> None:
    """What is being committed is never given to others."""
    spender = await processes.start()
    charge = await spender.purse(KEY).take(1, 10)
    async with database.transaction() as connection:
        await insert_entries(connection, [Entry("r1", "/m", spends={charge.portion_id: 1})])
        closing = asyncio.create_task(spender.ledger.close(charge.portion_id))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        async with asyncio.timeout(PATIENCE):
            while not await connection.fetchval(waiting):  # noqa: ASYNC110  # the server waits
                await asyncio.sleep(0.01)
        assert not closing.done()
    await closing
    assert await used(database) == 1


async def test_entries_spend_in_their_own_transaction(database: Database) -> None:
    """A group of entries with and without, few and many; a refused one leaves its neighbours."""
    spender = Spender(Ledger(database), PostgresAnnouncements(database))
    journal = Journal(database)
    purse = spender.purse(KEY)
    charges = [await purse.take(1, ENDLESS) for _ in range(40)]
    lost = Entry("lost", "/m", spends={1 << 40: 1})
    entries = [Entry(f"r{n}", "/m", spends={c.portion_id: 1}) for n, c in enumerate(charges)]
    results = await asyncio.gather(
        *map(journal.record, [*entries, lost, Entry("none", "/m")]), return_exceptions=True
    )
    assert [r for r in results if r is not None and not isinstance(r, AllowanceLost)] == []
    assert isinstance(results[40], AllowanceLost) and results.count(None) == 41
    for charge in charges:
        charge.settle()
    await purse.return_idle()
    assert await used(database) == 40
    await journal.close()


async def test_a_call_whose_fate_is_unknown_is_counted_as_the_database_has_it(
    database: Database,
) -> None:
    spender = Spender(Ledger(database), PostgresAnnouncements(database))
    purse = spender.purse(KEY)
    written, lost, back = [await purse.take(1, 100) for _ in range(3)]
    await spender.ledger.spend({written.portion_id: 1})
    written.lose()
    lost.lose()
    back.give_back()
    assert purse.stale, "it is closed as soon as nothing is reserved"
    await purse.return_idle()
    assert await used(database) == 1 and purse.portion_id is None
    await spender.close()


async def test_places_come_back_when_calls_end(processes: Processes) -> None:
    one, other = await processes.start(), await processes.start()
    first = [await one.purse(KEY, hoards=False).take(1, 3) for _ in range(2)]
    last = await other.purse(KEY, hoards=False).take(1, 3)
    with pytest.raises(Spent):
        await Purse(one, KEY, hoards=False).take(1, 3, patience=0)
    first.pop().give_back()
    # The place is in the hands of the one, and the other gets it at once.
    again = await other.purse(KEY).take(1, 3)
    for charge in (*first, last, again):
        charge.give_back()


async def test_a_rate_is_shared_by_processes(processes: Processes) -> None:
    """A flood at two processes gets the burst, and then the rate."""
    rate = PlanRate(50, 20)
    spikes = [Spikes((await processes.start()).ledger) for _ in range(2)]
    loop = asyncio.get_running_loop()
    admitted, began = 0, loop.time()

    async def flood(spike: Spikes) -> None:
        nonlocal admitted
        while loop.time() - began < 2:
            pause = await spike.take("crm", rate)
            admitted += not pause
            await asyncio.sleep(min(pause, 0.005))

    await asyncio.gather(*(flood(spike) for spike in spikes))
    taken = loop.time() - began
    most = 20 + 50 * taken
    assert 0.8 * most - 5 <= admitted <= most + 1
    assert await spikes[0].take("bi", rate) == 0, "another consumer has its own"


async def test_a_rate_that_nobody_uses_is_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what renews the process's term."""
    monkeypatch.setattr(spikes_module, "IDLE", -1.0)
    monkeypatch.setattr(purses, "RENEWAL", 0.01)
    limiter = Limiter(database, PostgresAnnouncements(database), FixedKey(b"p" * 32))
    rate = PlanRate(50, 20)
    used, waited = limiter.spikes.find("crm", rate), limiter.spikes.find("bi", rate)
    waited.waiting = 1
    following = asyncio.create_task(limiter.follow())
    async with asyncio.timeout(PATIENCE):
        while limiter.spikes.find("crm", rate) is used:  # noqa: ASYNC110  # the task forgets it
            await asyncio.sleep(0.01)
    following.cancel()
    assert limiter.spikes.find("bi", rate) is waited


async def test_what_is_over_is_pruned(database: Database) -> None:
    """Old periods, and rates that were not used for long; nothing of which a portion is held."""
    ledger = Ledger(database)
    spender, _ = await ledger.open()
    old = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    now = dt.datetime.now(dt.UTC)
    for name, end, held in (("gone", old, False), ("held", old, True), ("new", now, False)):
        account = AllowanceKey("crm", name, end - dt.timedelta(days=1), end)
        portion = await ledger.lease(spender, account, 100, Need(1, 1, 0))
        assert portion is not None
        if not held:
            await ledger.close(portion.portion_id)
    for name in ("rate", "rate:old"):
        await ledger.take_spike("crm", name, 5.0, 5, 1)
    async with database.connection() as connection:
        await connection.execute("UPDATE hub.spike SET full_time = $1 WHERE name = 'rate:old'", old)
    await LostPortions(database).prune()
    async with database.connection() as connection:
        kept = await connection.fetch("SELECT name FROM hub.allowance ORDER BY name")
        rates = await connection.fetch("SELECT name FROM hub.spike")
    assert [row[0] for row in kept] == ["held", "new"] and [row[0] for row in rates] == ["rate"]


async def test_a_look_takes_nothing_from_others(processes: Processes, database: Database) -> None:
    one, other = await processes.start(), await processes.start()
    await spend(one, await one.purse(KEY).take(5, 100))
    held = one.purse(KEY).in_hand
    assert held > 0
    purse = other.purse(KEY)
    await purse.look(100)
    assert (purse.taken, purse.in_hand) == (5 + held, 0), "what others hold may be used by them"
    assert await used(database) == 5 + held and one.purse(KEY).in_hand == held
    portion = purse.portion_id
    await purse.look(100)
    assert purse.portion_id == portion is not None


async def test_others_return_what_is_asked_for_and_nothing_else(processes: Processes) -> None:
    """A consumer at its limit takes no other's portion away."""
    one, other = await processes.start(), await processes.start()
    neighbour = KEY._replace(consumer_id="bi")
    for account in (KEY, neighbour):
        (await one.purse(account).take(1, 100)).give_back()
    held, kept = one.purse(KEY), one.purse(neighbour)
    in_hand, portion_id = kept.in_hand, kept.portion_id
    assert held.in_hand > 0 and in_hand > 0
    assert await try_call(other, 100, 100), "it needs all that the one holds"
    assert held.in_hand == 0
    assert (kept.in_hand, kept.portion_id) == (in_hand, portion_id)


@dataclass(frozen=True)
class Watched(Ledger):
    """A ledger whose closing waits until it ``closes``, or fails while it ``fails``; it notes what
    leases need."""

    closing: asyncio.Event = field(default_factory=asyncio.Event)
    closes: asyncio.Event = field(default_factory=asyncio.Event)
    fails: asyncio.Event = field(default_factory=asyncio.Event)
    needs: list[Need] = field(default_factory=list)

    async def lease(
        self, spender: int, account: AllowanceKey, cap: int, need: Need
    ) -> Portion | None:
        self.needs.append(need)
        return await super().lease(spender, account, cap, need)

    async def close(self, portion_id: int) -> None:
        self.closing.set()
        if self.fails.is_set():
            raise DatabaseUnavailable("the database is away")
        await self.closes.wait()
        await super().close(portion_id)


async def test_a_call_asks_others_rarely_though_it_looks_often(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purses, "ASK", 60.0)
    holder = Spender(Ledger(database), PostgresAnnouncements(database))
    charge = await holder.purse(KEY).take(100, 100)
    ledger = Watched(database)
    spender = Spender(ledger, PostgresAnnouncements(database))
    with pytest.raises(Spent):
        await spender.purse(KEY).take(1, 100, patience=0.2)
    asks = [need.asks for need in ledger.needs]
    assert len(asks) > 1 and asks == [True] + [False] * (len(asks) - 1)
    charge.give_back()


async def test_nothing_is_leased_of_a_portion_that_is_being_closed(database: Database) -> None:
    ledger = Watched(database)
    spender = Spender(ledger, PostgresAnnouncements(database))
    purse = spender.purse(KEY)
    await spend(spender, await purse.take(1, 100))
    returning = asyncio.create_task(purse.return_idle())
    await ledger.closing.wait()
    taking = asyncio.create_task(purse.take(1, 100))
    ledger.closes.set()
    await returning
    await spend(spender, await taking)
    await purse.return_idle()
    assert await used(database) == 2


async def test_a_portion_whose_close_failed_is_closed_later(database: Database) -> None:
    """Its process renews its term, so nobody else would take it back."""
    ledger = Watched(database)
    ledger.closes.set()
    spender = Spender(ledger, PostgresAnnouncements(database))
    purse = spender.purse(KEY)
    await spend(spender, await purse.take(1, 100))
    ledger.fails.set()
    with pytest.raises(DatabaseUnavailable):
        await purse.return_idle()
    assert await used(database) > 1 and purse.stale
    ledger.fails.clear()
    await purse.return_idle()
    assert await used(database) == 1 and purse.portion_id is None


@pytest.mark.parametrize("writes", [True, False])
async def test_a_portion_that_is_gone_fails_the_calls_that_hold_it_alone(
    database: Database, writes: bool
) -> None:
    """Writes spend in their own transaction, whose entry is refused with it; others in one that
    follows."""
    limiter = Limiter(database, PostgresAnnouncements(database), FixedKey(b"p" * 32))
    quota = PlanQuota(Countable.CALLS, QuotaPeriod.MONTH, 100)
    terms = Terms(Plan("p"), PlanLimits(quotas=(quota,)))

    async def call() -> None:
        entry = Entry("r", "/m")
        admission = Admission(limiter, terms, AskedCall("crm", "/m", "", "calls"))
        await admission.enter(entry)
        try:
            async with database.transaction() as connection:
                await insert_entries(connection, [entry])
        except AllowanceLost as lost:
            entry.outcome = lost.reason
            if writes:
                admission.charge_failure(entry)
            admission.end(lost)
            raise
        admission.settle()
        admission.end(None)

    await call()
    async with database.connection() as connection:
        for (portion,) in await connection.fetch("SELECT portion_id FROM hub.portion"):
            await limiter.ledger.close(portion)
    with pytest.raises(AllowanceLost):
        await call()
    await call()
    await limiter.close()
    assert await used(database) == 2


def terms_of(*quotas: PlanQuota) -> Terms:
    return Terms(Plan("p"), PlanLimits(quotas=quotas))


async def spent_of(limiter: Limiter) -> dict[str, int]:
    """What crm has spent, by the names of quotas."""
    found = await limiter.ledger.read_used("crm", limiter.spender.now)
    return {name: amount for name, _, amount in found if amount}


async def test_a_stream_is_charged_by_the_terms_that_hold_now(database: Database) -> None:
    """Not by those of its start; what it sent before a quota counts for none of it."""
    limiter = Limiter(database, PostgresAnnouncements(database), FixedKey(b"p" * 32))
    month = PlanQuota(Countable.BYTES, QuotaPeriod.MONTH, 1000)
    day = PlanQuota(Countable.BYTES, QuotaPeriod.DAY, 100)
    admission = Admission(limiter, terms_of(month), AskedCall("crm", "/m", "", "streams"))
    admission.begin_at(3, 500)
    admission.note_sent(4, 560)
    await admission.charge_sent()
    admission.renew(terms_of(day))
    admission.note_sent(5, 660)
    await admission.charge_sent()
    assert await spent_of(limiter) == {month.key: 60, day.key: 100}
    admission.note_sent(6, 661)
    with pytest.raises(QuotaExhausted):
        await admission.charge_sent()
    admission.renew(None)
    await admission.charge_sent()
    admission.end(None)
    assert await spent_of(limiter) == {month.key: 60, day.key: 100}


async def test_who_asks_for_limits_or_raises_them_is_refused_by_no_quota(
    database: Database,
) -> None:
    """And is told what is left; but its rate is kept."""
    limiter = Limiter(database, PostgresAnnouncements(database), FixedKey(b"p" * 32))
    calls = PlanQuota(Countable.CALLS, QuotaPeriod.MONTH, 1)
    size = PlanQuota(Countable.BYTES, QuotaPeriod.MONTH, 1)
    limits = PlanLimits(rates=(PlanRate(0.001, 2),), quotas=(calls, size))

    def admit(*, exempt: bool) -> Admission:
        asked = AskedCall("crm", "/m", "", "calls", exempt=exempt)
        return Admission(limiter, Terms(Plan("p"), limits), asked)

    first, entry = admit(exempt=False), Entry("r", "/m", byte_count=5)
    await first.enter(entry)
    await first.charge_reply(entry)
    await limiter.ledger.spend(entry.spends)
    first.settle()
    exempt, entry = admit(exempt=True), Entry("r", "/m", byte_count=5)
    await exempt.enter(entry)
    await exempt.charge_reply(entry)
    assert entry.spends == {} and await spent_of(limiter) == {calls.key: 1, size.key: 5}
    assert f'"{calls.key}";r=0;' in exempt.headers["ratelimit"]
    with pytest.raises(RateLimited):
        await admit(exempt=True).enter(entry)
