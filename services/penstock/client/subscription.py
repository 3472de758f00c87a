"""Subscriptions: feeds whose position the hub keeps, shared by any number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration

from penstock.client.change import Change, numbers_of, reader_of
from penstock.client.errors import LOST_PLACES, FeedEnded, PenstockError
from penstock.client.link import Link
from penstock.client.pages import walk_pages
from penstock.hub.v1 import subscriptions_pb2, subscriptions_pb2_grpc

#: How long one call waits for changes, in seconds; the hub's limit is 30.
WAIT = 20.0


@dataclass(frozen=True, slots=True)
class LeasedBatch:
    """Changes leased to the caller until ``expire_time``, in order.

    ``attempt`` counts how often they, or some of them, were leased before. ``view`` names what
    the caller sees.
    """

    changes: tuple[Change, ...]
    lease_id: str
    expire_time: datetime
    attempt: int
    cursor: str
    view: str
    _subscription: SubscriptionClient = field(repr=False, compare=False)

    def acknowledge(self) -> str:
        """Acknowledges that the changes are processed; returns the cursor up to which all are.

        Repeating it changes nothing. LEASE_EXPIRED if it comes too late: the hub leases, or has
        leased, the changes again.
        """
        return self._subscription.acknowledge(self.lease_id)

    def extend(self, seconds: int) -> datetime:
        """Extends the lease to so many seconds from now, at most 3600; returns its new end."""
        return self._subscription.extend(self.lease_id, seconds)

    def release(self) -> None:
        """Returns the changes, so that the hub leases them to another worker at once."""
        self._subscription.release(self.lease_id)


class SubscriptionClient:
    """One subscription of the caller, by name; it need not exist yet.

        for batch in client.subscription("mail"):
            for change in batch.changes:
                …

    A batch is acknowledged when the loop asks for the next one. A loop that ends early, by an
    error or ``break``, does not acknowledge its last batch: the hub leases it again when its time
    is over.
    Every call raises PenstockError; SUBSCRIPTION_NOT_FOUND if there is none of this name. After a
    failover or a restore of the database, calls raise FeedEnded: repair what was built from the
    changes, and reset the subscription to where the repair ends.

        except FeedEnded:
            copy.repair()
            subscription.reset(copy.cursor)
    """

    def __init__(self, link: Link, name: str) -> None:
        self.name = name
        self._link = link
        self._stub = subscriptions_pb2_grpc.SubscriptionsStub(link.channel)
        self._reader = reader_of()

    def create(
        self,
        datasets: Sequence[str] = (),
        *,
        start: str = "now",
        filter: str = "",
        fields: str | Sequence[str] = (),
        shapes: Sequence[str] = (),
        operations: str | Sequence[str] = (),
        include_before: bool = False,
        ordered: bool = True,
    ) -> Any:
        """Creates it, beginning "now", at the "oldest" change that is kept, or at a cursor.

        Without ``datasets`` it covers all that the caller may read. If not ``ordered``, the hub
        leases several batches at a time. ``shapes`` names at most one shape for each
        dataset; its records come in the columns of the shape. Raises SUBSCRIPTION_EXISTS if there
        is one already.
        """
        subscription = subscriptions_pb2.Subscription(
            subscription_id=self.name,
            datasets=datasets,
            filter=filter,
            fields=fields if isinstance(fields, str) else ",".join(fields),
            shapes=shapes,
            include_before=include_before,
            ordered=ordered,
        )
        subscription.operations.extend(numbers_of(operations))  # type: ignore[arg-type]
        request = subscriptions_pb2.CreateSubscriptionRequest(
            subscription=subscription, start=start
        )
        return self._link.unary(self._stub.CreateSubscription, request, safe=False)

    def get(self) -> Any:
        """The subscription and its progress (``penstock.hub.v1.Subscription``)."""
        request = subscriptions_pb2.GetSubscriptionRequest(subscription_id=self.name)
        return self._link.unary(self._stub.GetSubscription, request, safe=True)

    def delete(self) -> None:
        """Deletes it, even if workers hold batches of it."""
        request = subscriptions_pb2.DeleteSubscriptionRequest(subscription_id=self.name)
        self._link.unary(self._stub.DeleteSubscription, request, safe=False)

    def reset(self, start: str = "now") -> Any:
        """Continues it from another place, for example after FeedEnded; see ``create``."""
        request = subscriptions_pb2.ResetSubscriptionRequest(subscription_id=self.name, start=start)
        return self._link.unary(self._stub.ResetSubscription, request, safe=False)

    def pull(
        self, max_changes: int = 0, *, ack_seconds: int = 0, wait: float = 0.0
    ) -> LeasedBatch | None:
        """The next batch; None if there is none within ``wait`` seconds (30 at most).

        It must be acknowledged within ``ack_seconds`` (60, if 0). Raises FeedEnded, with REPAIR,
        until it is ``reset``: CURSOR_EXPIRED if the log no longer holds changes that were not
        leased yet, CURSOR_INVALID if the database has gone back in time, so that changes leased
        before may be undone.
        """
        request = subscriptions_pb2.PullChangesRequest(
            subscription_id=self.name, max_changes=max_changes, ack_seconds=ack_seconds
        )
        if wait:
            nanos = round(wait * 1e9)
            request.wait.CopyFrom(Duration(seconds=nanos // 10**9, nanos=nanos % 10**9))
        # Safe to repeat: if a reply is lost, the hub leases its batch again.
        try:
            reply = self._link.unary(self._stub.PullChanges, request, safe=True, longer=wait)
        except PenstockError as error:
            if error.reason not in LOST_PLACES:
                raise
            raise FeedEnded(error, reconcile="REPAIR", cursor="") from error
        if not reply.HasField("lease"):
            return None
        lease = reply.lease
        return LeasedBatch(
            tuple(map(self._reader, reply.changes)),
            lease.lease_id,
            lease.expire_time.ToDatetime(UTC),
            lease.attempt,
            lease.cursor,
            reply.view,
            self,
        )

    def batches(
        self, max_changes: int = 0, *, ack_seconds: int = 0, follow: bool = True
    ) -> Iterator[LeasedBatch]:
        """The batches as they come, each acknowledged when the next is asked for.

        Without ``follow`` it ends when there are no further changes. LEASE_EXPIRED if a batch took
        longer than ``ack_seconds``: the hub leases it again.
        """
        wait = WAIT if follow else 0.0
        while True:
            batch = self.pull(max_changes, ack_seconds=ack_seconds, wait=wait)
            if batch is not None:
                yield batch
                batch.acknowledge()
            elif not follow:
                return

    def __iter__(self) -> Iterator[LeasedBatch]:
        return self.batches()

    def acknowledge(self, lease_id: str = "", *, cursor: str = "") -> str:
        """Acknowledges a lease or, by its cursor, it and all before it; see ``LeasedBatch``.

        ACKNOWLEDGED_BACKWARDS if the cursor lies before what is already acknowledged.
        """
        request = subscriptions_pb2.AcknowledgeChangesRequest(
            subscription_id=self.name, lease_id=lease_id, cursor=cursor
        )
        reply = self._link.unary(self._stub.AcknowledgeChanges, request, safe=True)
        return str(reply.cursor)

    def extend(self, lease_id: str, seconds: int) -> datetime:
        """Extends a lease to so many seconds from now; returns its new end."""
        request = subscriptions_pb2.ExtendLeaseRequest(
            subscription_id=self.name, lease_id=lease_id, ack_seconds=seconds
        )
        reply = self._link.unary(self._stub.ExtendLease, request, safe=True)
        end: datetime = reply.expire_time.ToDatetime(UTC)
        return end

    def release(self, lease_id: str) -> None:
        """Ends a lease; its changes go to the next worker that asks."""
        request = subscriptions_pb2.ReleaseLeaseRequest(
            subscription_id=self.name, lease_id=lease_id
        )
        self._link.unary(self._stub.ReleaseLease, request, safe=False)


def list_subscriptions(link: Link) -> list[Any]:
    """All subscriptions of the caller (``penstock.hub.v1.Subscription``), by id."""
    stub = subscriptions_pb2_grpc.SubscriptionsStub(link.channel)
    request = subscriptions_pb2.ListSubscriptionsRequest()

    def ask(request: Any) -> Any:
        return link.unary(stub.ListSubscriptions, request, safe=True)

    return list(walk_pages(ask, request, "subscriptions"))
