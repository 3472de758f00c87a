"""The service Changes: feeds of several datasets with one cursor."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import changes_pb2
from penstockd.commands.get_change_log import get_change_log
from penstockd.commands.list_changes import list_changes
from penstockd.commands.watch_changes import watch_changes
from penstockd.feed.watching import Wanted, list_readable
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.feeds import StreamReply, poll_reply, show_lenses, wait_of, watch_of
from penstockd.rpc.routes import routes_of

_SERVICE = changes_pb2.DESCRIPTOR.services_by_name["Changes"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "WatchChanges": _watch_changes,
            "ListChanges": _list_changes,
            "GetChangeLog": _get_change_log,
        },
    )


async def _watch_changes(request: changes_pb2.WatchChangesRequest, call: ServedCall) -> None:
    hub = call.hub
    wanted = Wanted(
        list_readable(hub.catalog, call, request.datasets),
        mixed=True,
        operations=request.operations,
        batch_size=request.batch_size,
        include_before=request.include_before,
        transaction_boundaries=request.transaction_boundaries,
        shape_names=request.shapes,
    )
    await watch_changes(
        hub, call, wanted, watch_of(request, call.exchange), StreamReply(call.exchange)
    )


async def _list_changes(
    request: changes_pb2.ListChangesRequest, call: ServedCall
) -> changes_pb2.ListChangesResponse:
    hub = call.hub
    wanted = Wanted(
        list_readable(hub.catalog, call, request.datasets),
        mixed=True,
        operations=request.operations,
        batch_size=request.page_size,
        include_before=request.include_before,
        shape_names=request.shapes,
    )
    page = await list_changes(hub, call, wanted, request.cursor, wait_of(request))
    show_lenses(call.exchange, page.lenses)
    reply: changes_pb2.ListChangesResponse = poll_reply(changes_pb2.ListChangesResponse, page)
    return reply


async def _get_change_log(
    request: changes_pb2.GetChangeLogRequest, call: ServedCall
) -> changes_pb2.ChangeLog:
    extent = await get_change_log(call.hub, call)
    reply = changes_pb2.ChangeLog(
        oldest_cursor=call.hub.places.seal(extent.oldest),
        newest_cursor=call.hub.places.seal(extent.newest),
        retention_hours=call.hub.feed.hours,
    )
    if extent.since is not None:
        reply.oldest_commit_time.FromDatetime(extent.since)
    return reply
