"""Turns the log into deliveries, in steps of one stretch of the log.

Each step is one transaction: it stores events and deliveries, and moves the cursor past them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from penstockd.catalog import Catalog
from penstockd.feed.bells import ring_everywhere, webhook_line
from penstockd.policy.lens import Lens
from penstockd.policy.snapshot import Policy, PolicySnapshot
from penstockd.store.announcements import Announcements
from penstockd.store.cursor import Cursor, check_cursor, cursor_at
from penstockd.store.database import Connection
from penstockd.store.fences import Transactions
from penstockd.store.places import Places
from penstockd.webhooks.endpoints import lock_intake, lock_known, set_state
from penstockd.webhooks.events import FeedLog, put_events
from penstockd.webhooks.model import (
    Cause,
    Clock,
    DeliveryState,
    Occurrence,
    Ordering,
    Reason,
    State,
    Webhook,
    WebhookKind,
    read_clock,
)
from penstockd.webhooks.owners import Roster
from penstockd.webhooks.queue import Draft, put_deliveries
from penstockd.webhooks.settling import PAUSED, tell_owner, tell_skipped, tell_undone

#: The most changes of the log that one step reads.
STRETCH = 1000
#: The most bytes of serialised records in one message, unless a single record is larger.
BATCH_BYTES = 1024 * 1024

_PLACE = """
SELECT w.cursor, l.last_number, l.epoch, l.mark,
       EXISTS (SELECT FROM hub.webhook WHERE replay_end IS NOT NULL), w.epoch < h.epoch
FROM hub.webhook_head AS w, hub.log_head AS l, hub.epoch_head AS h
"""
#: The number of the last event sent to an endpoint, by record: read it, and replace it (_TOLD).
_LAST = """
SELECT k.webhook_id, k.dataset, k.key, k.number FROM hub.webhook_key AS k
JOIN unnest($1::text[], $2::text[], $3::text[]) AS w (webhook_id, dataset, key)
USING (webhook_id, dataset, key)
"""
_TOLD = """
INSERT INTO hub.webhook_key (webhook_id, dataset, key, number)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (webhook_id, dataset, key) DO UPDATE SET number = excluded.number
"""


_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """An endpoint and what its owner sees, by dataset."""

    webhook: Webhook
    lenses: Mapping[str, Lens]

    @property
    def view(self) -> tuple[tuple[str, str], ...]:
        """Equal for all listeners that see the same of the same datasets."""
        return tuple(sorted((name, lens.view_id) for name, lens in self.lenses.items()))

    def wants(self, event: Occurrence) -> bool:
        """Whether the endpoint selected this kind of event."""
        for selection in self.webhook.selections:
            if selection.dataset == event.dataset:
                return not selection.operations or event.operation.word in selection.operations
        return False


class Intake:
    """Queues the changes of the log for every endpoint that should receive them."""

    def __init__(
        self,
        database: Transactions,
        announcements: Announcements,
        catalog: Catalog,
        policy: Policy,
        roster: Roster,
        log: FeedLog,
        places: Places,
        *,
        clock: Clock = read_clock,
    ) -> None:
        self._database, self._announcements = database, announcements
        self._catalog, self._policy = catalog, policy
        self._roster, self._log, self._places, self._clock = roster, log, places, clock

    async def step(self) -> tuple[int, bool]:
        """Take the next stretch; returns the number of deliveries, and whether more is left.

        Raises DatabaseUnavailable, PolicyStale.
        """
        policy = self._policy.current
        async with self._database.transaction() as connection:
            await lock_intake(connection)
            cursor, head, replaying, undone = await self._place(connection)
            if undone:
                endpoints = list(self._roster.endpoints.values())
                await tell_undone(connection, endpoints, self._places, self._clock())
            listeners = [
                Listener(e.webhook, self._roster.queued_sights(policy, e.webhook))
                for e in self._roster.endpoints.values()
            ]
            await self._pause_unfit(connection, policy)
            upto = min(cursor.number + STRETCH, head)
            made, reached = 0, cursor
            if upto > cursor.number:
                made, reached = await self._take(connection, listeners, cursor, upto)
                # The stretch was read on another connection: check that this database has it, too.
                await check_cursor(connection, reached)
                await connection.execute("UPDATE hub.webhook_head SET cursor = $1", reached.stored)
            if replaying:
                told, replaying = await self._replay(connection, listeners, head)
                made += told
        return made, reached.number < head or replaying

    async def skip_expired(self, oldest: Cursor) -> None:
        """Go on from the oldest place of the log, which no longer has all changes after the
        intake's place or that of a replay; tell the receivers that miss changes."""
        at = self._clock()
        async with self._database.transaction() as connection:
            await lock_intake(connection)
            cursor, _, _, _ = await self._place(connection)
            webhooks = {n: e.webhook for n, e in self._roster.endpoints.items()}
            if cursor.number < oldest.number:
                await connection.execute("UPDATE hub.webhook_head SET cursor = $1", oldest.stored)
                for webhook in webhooks.values():
                    after = max(cursor.number, webhook.start_number)
                    if after < oldest.number:
                        await tell_skipped(connection, webhook, self._places, after, oldest, at)
            replays = await connection.fetch(
                "UPDATE hub.webhook AS w SET replay_number = NULL, replay_end = NULL"
                " FROM (SELECT webhook_id, replay_number FROM hub.webhook FOR NO KEY UPDATE) AS o"
                " WHERE w.webhook_id = o.webhook_id AND w.replay_number < $1"
                " RETURNING w.webhook_id, o.replay_number",
                oldest.number,
            )
            for name, number in replays:
                if name in webhooks:
                    await tell_skipped(
                        connection, webhooks[name], self._places, number, oldest, at, replay=True
                    )

    async def _take(
        self, connection: Connection, listeners: Sequence[Listener], cursor: Cursor, upto: int
    ) -> tuple[int, Cursor]:
        """Queue the deliveries of the next stretch; returns how many, and where it ends.

        A stretch of large changes is shorter, and each View's ends elsewhere: the first View read
        sets the end, and the others are read up to it. A stretch ends after all that follows from a
        transaction; if that is much, it is queued in parts.
        """
        made, reached = 0, await cursor_at(connection, upto)
        for n, group in enumerate(_by_view(listeners)):
            place = cursor
            while place.number < reached.number:
                stretch = await self._log.read(group[0].lenses, place, reached.number)
                made += await self.enqueue(connection, group, stretch.events)
                place = stretch.cursor
                if n == 0 and place.told is None:
                    reached = place
        return made, reached

    async def enqueue(
        self,
        connection: Connection,
        listeners: Sequence[Listener],
        events: Sequence[Occurrence],
        cause: Cause = Cause.EVENT,
    ) -> int:
        """Queue events, in order, for listeners that see the same; returns the number of
        deliveries."""
        names = [li.webhook.webhook_id for li in listeners]
        known = await lock_known(connection, names)
        wanted = []
        for listener in listeners:
            start = listener.webhook.start_number if cause is Cause.EVENT else 0
            found = [i for i, e in enumerate(events) if e.number > start and listener.wants(e)]
            if found and listener.webhook.webhook_id in known:
                wanted.append((listener.webhook, found))
        if not wanted:
            return 0
        used = sorted({i for _, found in wanted for i in found})
        ids = dict(zip(used, await put_events(connection, [events[i] for i in used]), strict=True))
        chains = await self._chains(connection, wanted, events, cause)
        drafts: list[Draft] = []
        for webhook, found in wanted:
            previous = chains[webhook.webhook_id]
            told = [(events[i], ids[i], p) for i, p in zip(found, previous, strict=True)]
            drafts += self._drafts(webhook, told, cause)
        await put_deliveries(connection, drafts, self._clock())
        for webhook, _ in wanted:
            if webhook.kind is WebhookKind.LISTEN:  # somebody may wait to pull them
                line = webhook_line(webhook.webhook_id)
                await ring_everywhere(self._announcements, connection, line)
        return len(drafts)

    def _drafts(
        self, webhook: Webhook, told: Sequence[tuple[Occurrence, int, int]], cause: Cause
    ) -> Iterable[Draft]:
        options = webhook.options
        ordered = options.ordering is Ordering.KEY
        dead = webhook.state is State.DISABLED
        for group in _batch_events(told, options.batch_size, by_key=ordered):
            event = group[0][0]
            dataset = self._catalog[event.dataset]
            single = len({(e.dataset, e.key) for e, _, _ in group}) == 1
            yield Draft(
                webhook.webhook_id,
                cause,
                f"{dataset.singular}.{event.operation.word}" if len(group) == 1 else "batch",
                event.commit_time,
                [i for _, i, _ in group],
                [p for _, _, p in group],
                dataset=event.dataset if single else None,
                key=event.key if single else None,
                order_key=f"{event.dataset}/{event.key}" if ordered else None,
                state=DeliveryState.DEAD if dead else DeliveryState.PENDING,
                reason=Reason.ENDPOINT_DISABLED.value if dead else "",
            )

    async def _chains(
        self,
        connection: Connection,
        wanted: Sequence[tuple[Webhook, Sequence[int]]],
        events: Sequence[Occurrence],
        cause: Cause,
    ) -> Mapping[str, list[int]]:
        """By endpoint, for each of its events, the number of the record's previous event, or 0.

        A replay has its own chain, which begins with 0.
        """
        last: dict[tuple[str, str, str], int] = {}
        places = sorted(
            {(w.webhook_id, events[i].dataset, events[i].key) for w, f in wanted for i in f}
        )
        columns = [[p[n] for p in places] for n in range(3)]
        if cause is Cause.EVENT:
            rows = await connection.fetch(_LAST, *columns)
            last = {(row[0], row[1], row[2]): row[3] for row in rows}
        chains: dict[str, list[int]] = {}
        for webhook, found in wanted:
            chain = chains.setdefault(webhook.webhook_id, [])
            for event in (events[i] for i in found):
                place = (webhook.webhook_id, event.dataset, event.key)
                chain.append(last.get(place, 0))
                last[place] = event.number
        if cause is Cause.EVENT:
            await connection.execute(_TOLD, *columns, [last[p] for p in places])
        return chains

    async def _pause_unfit(self, connection: Connection, policy: PolicySnapshot) -> None:
        """Pause the endpoints whose shape does not fit what their owners see now."""
        for endpoint in self._roster.endpoints.values():
            webhook = endpoint.webhook
            reason = self._roster.find_unfit(policy, webhook)
            if reason and webhook.state is State.ACTIVE:
                _log.warning("webhook_shape_unfit", webhook=webhook.webhook_id, error=reason)
                await set_state(connection, webhook.webhook_id, State.PAUSED, reason)
                await tell_owner(connection, webhook, PAUSED, {"reason": reason}, self._clock())

    async def _replay(
        self, connection: Connection, listeners: Sequence[Listener], head: int
    ) -> tuple[int, bool]:
        """Queue a stretch of each requested replay; returns how many, and whether one goes on."""
        rows = await connection.fetch(
            "SELECT webhook_id, replay_number, replay_end FROM hub.webhook"
            " WHERE replay_end IS NOT NULL FOR NO KEY UPDATE"
        )
        by_name = {li.webhook.webhook_id: li for li in listeners}
        made, going = 0, False
        for name, number, end in rows:
            if name not in by_name:
                going = True  # a new one, which the next step finds
                continue
            upto = min(number + STRETCH, end, head)
            listener, reached = by_name[name], upto
            if upto > number and listener.lenses:
                place: Cursor | None = await cursor_at(connection, number)
                while place is not None:
                    stretch = await self._log.read(listener.lenses, place, upto)
                    made += await self.enqueue(connection, [listener], stretch.events, Cause.REPLAY)
                    place = stretch.cursor if stretch.cursor.told is not None else None
                reached = min(upto, stretch.cursor.number)
            done = reached >= min(end, head)
            going = going or not done
            await connection.execute(
                "UPDATE hub.webhook SET replay_number = $2, replay_end = $3 WHERE webhook_id = $1",
                name,
                None if done else reached,
                None if done else end,
            )
        return made, going

    async def _place(self, connection: Connection) -> tuple[Cursor, int, bool, bool]:
        """The intake's place. Reads the endpoints again if any changed.

        Returns the place up to which the log is queued (at first its end); where the log ends;
        whether there are replays; and whether the database has gone back in time since receivers
        were last notified of that.
        """
        await self._roster.refresh(connection)
        row = await connection.fetchrow(_PLACE)
        assert row is not None, "the migrations have put one row into each"
        stored, head, epoch, mark, replaying, undone = row
        if stored is not None and (cursor := Cursor.parse(stored)).epoch == epoch:
            return cursor, head, replaying, undone
        cursor = Cursor(epoch, head, mark=mark)
        await connection.execute("UPDATE hub.webhook_head SET cursor = $1", cursor.stored)
        return cursor, head, replaying, undone


def _by_view(listeners: Iterable[Listener]) -> list[list[Listener]]:
    """Groups of listeners that see the same, without those that see nothing."""
    groups: dict[tuple[tuple[str, str], ...], list[Listener]] = {}
    for listener in listeners:
        if listener.lenses:
            groups.setdefault(listener.view, []).append(listener)
    return list(groups.values())


def _batch_events(
    told: Sequence[tuple[Occurrence, int, int]], size: int, *, by_key: bool
) -> Iterable[Sequence[tuple[Occurrence, int, int]]]:
    """Groups of at most ``size`` events, in the log's order, or in each record's (``by_key``)."""
    keys: dict[tuple[str, str], list[tuple[Occurrence, int, int]]] = {}
    for each in told:
        place = (each[0].dataset, each[0].key) if by_key and size > 1 else ("", "")
        keys.setdefault(place, []).append(each)
    for found in keys.values():
        batch: list[tuple[Occurrence, int, int]] = []
        held = 0
        for each in found:
            weight = len(each[0].after or b"")
            if batch and (len(batch) == size or held + weight > BATCH_BYTES):
                yield batch
                batch, held = [], 0
            batch.append(each)
            held += weight
        if batch:
            yield batch
