"""The service Subscriptions: feeds whose place the hub keeps, shared by several workers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.empty_pb2 import Empty

from penstock.hub.v1 import changes_pb2
from penstock.hub.v1 import subscriptions_pb2 as api
from penstockd.calls import Permit
from penstockd.commands.subscriptions.acknowledge_changes import acknowledge_changes
from penstockd.commands.subscriptions.create_subscription import create_subscription
from penstockd.commands.subscriptions.delete_subscription import delete_subscription
from penstockd.commands.subscriptions.extend_lease import extend_lease
from penstockd.commands.subscriptions.get_subscription import get_subscription
from penstockd.commands.subscriptions.list_subscriptions import list_subscriptions
from penstockd.commands.subscriptions.pull_changes import pull_changes
from penstockd.commands.subscriptions.release_lease import release_lease
from penstockd.commands.subscriptions.reset_subscription import reset_subscription
from penstockd.commands.subscriptions.watch_subscription import watch_subscription
from penstockd.errors import Refused
from penstockd.feed.source import FeedSource
from penstockd.feed.watching import reconcile_of
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange, ServedCall
from penstockd.rpc.feeds import STREAM_HEADERS, show_lenses, wait_of
from penstockd.rpc.routes import routes_of
from penstockd.store.cursor import Cursor
from penstockd.store.leases import Lease
from penstockd.store.places import Places
from penstockd.store.subscriptions import Subscription, SubscriptionTerms
from penstockd.subscriptions.stream import Flow
from penstockd.subscriptions.take import Pull, TakenLease

_SERVICE = api.DESCRIPTOR.services_by_name["Subscriptions"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "CreateSubscription": _create_subscription,
            "GetSubscription": _get_subscription,
            "ListSubscriptions": _list_subscriptions,
            "DeleteSubscription": _delete_subscription,
            "ResetSubscription": _reset_subscription,
            "PullChanges": _pull_changes,
            "AcknowledgeChanges": _acknowledge_changes,
            "ExtendLease": _extend_lease,
            "ReleaseLease": _release_lease,
            "WatchSubscription": _watch_subscription,
        },
    )


async def _create_subscription(
    request: api.CreateSubscriptionRequest, call: ServedCall
) -> api.Subscription:
    asked = request.subscription
    terms = SubscriptionTerms(
        list(asked.datasets),
        asked.filter,
        asked.fields,
        list(asked.operations),
        asked.include_before,
        asked.ordered if asked.HasField("ordered") else True,
        list(asked.shapes),
    )
    return _subscription_message(
        await create_subscription(call.hub, call, asked.subscription_id, terms, request.start),
        call.hub.places,
    )


async def _get_subscription(
    request: api.GetSubscriptionRequest, call: ServedCall
) -> api.Subscription:
    found = await get_subscription(call.hub, call, request.subscription_id)
    return _subscription_message(found, call.hub.places)


async def _list_subscriptions(
    request: api.ListSubscriptionsRequest, call: ServedCall
) -> api.ListSubscriptionsResponse:
    size, token = request.page_size, request.page_token
    found, token = await list_subscriptions(call.hub, call, size, token)
    said = [_subscription_message(s, call.hub.places) for s in found]
    return api.ListSubscriptionsResponse(subscriptions=said, next_page_token=token)


async def _delete_subscription(request: api.DeleteSubscriptionRequest, call: ServedCall) -> Empty:
    await delete_subscription(call.hub, call, request.subscription_id)
    return Empty()


async def _reset_subscription(
    request: api.ResetSubscriptionRequest, call: ServedCall
) -> api.Subscription:
    return _subscription_message(
        await reset_subscription(call.hub, call, request.subscription_id, request.start),
        call.hub.places,
    )


async def _pull_changes(
    request: api.PullChangesRequest, call: ServedCall
) -> api.PullChangesResponse:
    pull = Pull(request.max_changes, request.ack_seconds, wait_of(request))
    taken, source = await pull_changes(call.hub, call, request.subscription_id, pull)
    reply = api.PullChangesResponse.FromString(taken.changes if taken else b"")
    reply.view = source.view
    show_lenses(call.exchange, source.lenses)
    reply.shapes.extend(source.shape_names)
    if taken is not None:
        reply.lease.CopyFrom(_lease_message(taken.lease, call.hub.places))
    return reply


async def _acknowledge_changes(
    request: api.AcknowledgeChangesRequest, call: ServedCall
) -> api.AcknowledgeChangesResponse:
    done = await acknowledge_changes(
        call.hub, call, request.subscription_id, request.lease_id, request.cursor
    )
    return api.AcknowledgeChangesResponse(cursor=call.hub.places.seal(done))


async def _extend_lease(request: api.ExtendLeaseRequest, call: ServedCall) -> api.Lease:
    return _lease_message(
        await extend_lease(
            call.hub,
            call,
            request.subscription_id,
            request.lease_id,
            request.ack_seconds,
        ),
        call.hub.places,
    )


async def _release_lease(request: api.ReleaseLeaseRequest, call: ServedCall) -> Empty:
    await release_lease(call.hub, call, request.subscription_id, request.lease_id)
    return Empty()


async def _watch_subscription(request: api.WatchSubscriptionRequest, call: ServedCall) -> None:
    flow = Flow(
        request.max_outstanding,
        request.max_changes,
        request.ack_seconds,
        request.heartbeat_seconds,
    )
    await watch_subscription(
        call.hub, call, request.subscription_id, flow, _LeaseStreamReply(call.exchange)
    )


class _LeaseStreamReply:
    """A stream of leases."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def begin(self, cursor: Cursor, source: FeedSource, revision: int) -> int:
        """Send the first record."""
        show_lenses(self._exchange, source.lenses)
        await self._exchange.send_headers(STREAM_HEADERS)
        return await self._say(
            begin=changes_pb2.StreamBegin(
                cursor=self._exchange.hub.places.seal(cursor),
                view=source.view,
                policy_revision=revision,
                shapes=source.shape_names,
            )
        )

    async def changes(self, taken: TakenLease, permit: Permit) -> int:
        """Send a lease and its changes, which are already encoded."""
        return await self._send(
            taken.changes
            + api.WatchSubscriptionResponse(
                lease=_lease_message(taken.lease, self._exchange.hub.places)
            ).SerializeToString(),
            permit,
        )

    async def heartbeat(self, cursor: Cursor) -> int:
        """Send a sign of life."""
        said = changes_pb2.Heartbeat(cursor=self._exchange.hub.places.seal(cursor))
        said.time.FromDatetime(datetime.now(UTC))
        return await self._say(heartbeat=said)

    async def end(self, error: Refused, cursor: Cursor) -> int:
        """Send the last record."""
        said = changes_pb2.StreamEnd(
            reason=error.reason,
            message=error.message,
            cursor=self._exchange.hub.places.seal(cursor),
            reconcile=int(reconcile_of(error)),  # type: ignore[arg-type]  # an enum's number
        )
        return await self._say(end=said)

    async def _say(self, **said: Any) -> int:
        return await self._send(api.WatchSubscriptionResponse(**said).SerializeToString())

    async def _send(self, data: bytes, permit: Permit | None = None) -> int:
        await self._exchange.send(data, permit)
        return len(data)


def _subscription_message(found: Subscription, places: Places) -> api.Subscription:
    terms = found.terms
    message = api.Subscription(
        subscription_id=found.subscription_id,
        datasets=terms.datasets,
        filter=terms.filter,
        fields=terms.fields,
        include_before=terms.include_before,
        ordered=terms.ordered,
        shapes=terms.shapes,
        cursor=places.seal(found.acknowledged),
        lease_count=found.lease_count,
        outstanding_count=found.outstanding,
    )
    message.operations.extend(terms.operations)  # type: ignore[arg-type]  # an enum's numbers
    message.create_time.FromDatetime(found.create_time)
    message.update_time.FromDatetime(found.update_time)
    return message


def _lease_message(lease: Lease, places: Places) -> api.Lease:
    message = api.Lease(
        lease_id=places.seal_lease(lease.lease_id),
        cursor=places.seal(lease.end),
        change_count=lease.change_count,
        attempt=lease.attempt,
    )
    message.expire_time.FromDatetime(lease.expire_time)
    return message
