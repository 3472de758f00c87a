"""PullChanges: the next stretch of changes, leased to the caller."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import HubStopping, ValueInvalid
from penstockd.feed.disclosing import FeedDisclosure
from penstockd.feed.poll import MAX_WAIT, PAGE_BYTES
from penstockd.feed.source import FeedSource
from penstockd.feed.watching import Standings
from penstockd.hub import Hub
from penstockd.subscriptions.manage import check_reader
from penstockd.subscriptions.stretch import Bounds
from penstockd.subscriptions.take import (
    USUAL_CHANGES,
    Pull,
    TakenLease,
    Taking,
    ack_time,
    changes_of,
    take_on,
)


async def pull_changes(
    hub: Hub, call: Call, subscription_id: str, pull: Pull
) -> tuple[TakenLease | None, FeedSource]:
    """The next stretch, or None if none comes within the time to wait; and what the caller sees.

    Also None if the caller's View changed while it waited: then the caller must pull again.

    Raises ValueInvalid, SubscriptionNotFound, PermissionDenied, FieldUnknown, FilterInvalid,
    CursorInvalid, CursorExpired, AccessRevoked (while it waited), PolicyStale, TooManyStreams,
    HubStopping and DatabaseUnavailable.
    """
    check_reader(hub, call)
    most = changes_of("max_changes", pull.max_changes, USUAL_CHANGES)
    if not 0 <= pull.wait <= MAX_WAIT:
        raise ValueInvalid.of("wait", f"must be from 0 to {MAX_WAIT:g} s")
    taking = Taking(
        hub, call, subscription_id, Bounds(most, PAGE_BYTES), ack_time(pull.ack_seconds)
    )
    call.asked(subscription=subscription_id[:63])
    await taking.open()
    standings = Standings(hub.policy, call, taking.source)
    disclosure = FeedDisclosure(call, taking.source)
    with hub.streams.one_more(call.entry.consumer_id or "", waits=pull.wait > 0):
        taken = await take_on(taking, standings, pull.wait)
    call.entry.row_count = 0
    if taken is not None:
        call.asked(lease=taken.lease.lease_id)
        await disclosure.records(taken.keys)
        call.entry.row_count = taken.lease.change_count
    elif hub.feed.stopping.is_set():
        raise HubStopping("this worker stops; pull again")
    return taken, taking.source
