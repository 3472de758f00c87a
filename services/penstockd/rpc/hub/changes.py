"""The service Changes: feeds of several datasets with one cursor."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import changes_pb2
from penstockd.commands.get_change_log import get_change_log
from penstockd.commands.list_changes import list_changes
from penstockd.commands.watch_changes import watch_changes
from penstockd.feed.watching import Wanted, readable
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange, Method
from penstockd.rpc.feeds import StreamReply, poll_reply, wait_of, watch_of

_SERVICE = "penstock.hub.v1.Changes"


def routes() -> Iterator[Route]:
    """The service's methods."""
    yield Route(
        Method(_SERVICE, "WatchChanges"),
        _watch,
        changes_pb2.WatchChangesRequest,
        streams_reply=True,
    )
    yield Route(
        Method(_SERVICE, "ListChanges"),
        _list,
        changes_pb2.ListChangesRequest,
        changes_pb2.ListChangesResponse.SerializeToString,
    )
    yield Route(
        Method(_SERVICE, "GetChangeLog"),
        _log,
        changes_pb2.GetChangeLogRequest,
        changes_pb2.ChangeLog.SerializeToString,
    )


async def _watch(request: changes_pb2.WatchChangesRequest, exchange: Exchange) -> None:
    hub, call = exchange.hub, exchange.call
    wanted = Wanted(
        readable(hub.catalog, call, request.datasets),
        mixed=True,
        operations=request.operations,
        batch_size=request.batch_size,
        include_before=request.include_before,
        transaction_boundaries=request.transaction_boundaries,
    )
    await watch_changes(hub, call, wanted, watch_of(request, exchange), StreamReply(exchange))


async def _list(
    request: changes_pb2.ListChangesRequest, exchange: Exchange
) -> changes_pb2.ListChangesResponse:
    hub, call = exchange.hub, exchange.call
    wanted = Wanted(
        readable(hub.catalog, call, request.datasets),
        mixed=True,
        operations=request.operations,
        batch_size=request.page_size,
        include_before=request.include_before,
    )
    page = await list_changes(hub, call, wanted, request.cursor, wait_of(request))
    reply: changes_pb2.ListChangesResponse = poll_reply(changes_pb2.ListChangesResponse, page)
    return reply


async def _log(
    request: changes_pb2.GetChangeLogRequest, exchange: Exchange
) -> changes_pb2.ChangeLog:
    extent = await get_change_log(exchange.hub, exchange.call)
    reply = changes_pb2.ChangeLog(
        oldest_cursor=str(extent.oldest),
        newest_cursor=str(extent.newest),
        retention_hours=exchange.hub.feed.hours,
    )
    if extent.since is not None:
        reply.oldest_commit_time.FromDatetime(extent.since)
    return reply
