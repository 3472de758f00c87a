"""WatchSubscription: a stream of leases, with a client's limit of unacknowledged changes."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.feed.source import FRAME_BYTES
from penstockd.feed.stream import MAX_HEARTBEAT
from penstockd.hub import Hub
from penstockd.subscriptions.manage import check_reader
from penstockd.subscriptions.stream import Flow, LeaseReply, LeaseStream
from penstockd.subscriptions.stretch import Bounds
from penstockd.subscriptions.take import USUAL_CHANGES, Taking, ack_time, changes_of


async def watch_subscription(
    hub: Hub, call: Call, subscription_id: str, flow: Flow, reply: LeaseReply
) -> None:
    """Send leases to ``reply`` until the caller goes away.

    Nothing has been sent when ValueInvalid, SubscriptionNotFound, PermissionDenied, FieldUnknown,
    FilterInvalid, CursorInvalid, CursorExpired or TooManyStreams is raised. A later error is also
    written to the stream's last record: AccessChanged, ViewChanged, PolicyStale, ClientStalled,
    CursorExpired, SubscriptionNotFound, HubStopping, DatabaseUnavailable.
    """
    check_reader(hub, call)
    room = changes_of("max_outstanding", flow.max_outstanding, USUAL_CHANGES)
    most = min(room, changes_of("max_changes", flow.max_changes, room))
    if not 0 <= flow.heartbeat_seconds <= MAX_HEARTBEAT:
        raise ValueInvalid.of("heartbeat_seconds", f"must be from 1 to {MAX_HEARTBEAT}")
    bounds, ack = Bounds(most, FRAME_BYTES), ack_time(flow.ack_seconds)
    taking = Taking(hub, call, subscription_id, bounds, ack)
    call.asked(subscription=subscription_id)
    if call.headers_only:
        await taking.open()
        return
    with hub.streams.one_more(call.entry.consumer_id or ""):
        await LeaseStream(hub, call, taking, room - most, flow, reply).run()
