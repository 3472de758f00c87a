"""The service StreamTickets: tickets with which browsers follow feeds."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from penstock.hub.v1 import stream_tickets_pb2 as api
from penstockd.auth.presented import SignInWay, read_presented
from penstockd.catalog import Catalog
from penstockd.commands.create_stream_ticket import create_stream_ticket
from penstockd.errors import ValueInvalid
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.rest.paths import Paths, bound_values
from penstockd.rpc.rest.queries import parse_query, query_reader, split_target
from penstockd.rpc.rest.tickets import TICKET, add_ticket, name_feed
from penstockd.rpc.routes import FILE, name_service, routes_of

#: The hub's services that have feeds.
_HUB_SERVICES = ("penstock.hub.v1.Changes", "penstock.hub.v1.Subscriptions")
_SERVICE = api.DESCRIPTOR.services_by_name["StreamTickets"]


class _Feed(NamedTuple):
    """The method of a feed, and its dataset, None for several."""

    method: MethodDescriptor
    dataset: str | None


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(_SERVICE, {"CreateStreamTicket": _create_stream_ticket})


async def _create_stream_ticket(
    request: api.CreateStreamTicketRequest, call: ServedCall
) -> api.StreamTicket:
    call.readable(call.hub.catalog)  # who may follow nothing learns nothing of paths
    path, query = split_target(request.feed)
    _check_feed(call, path, query)
    presented = read_presented(call.exchange.metadata)
    shown = presented is not None and presented.way is SignInWay.TOKEN
    token = presented.secret if presented is not None and shown else ""
    text, ticket = create_stream_ticket(call.hub, call, name_feed(path, query), token)
    reply = api.StreamTicket(ticket=text, url=add_ticket(path, query, text))
    reply.begin_before_time.FromMilliseconds(int(ticket.opens_until * 1000))
    reply.expire_time.FromMilliseconds(int(ticket.expires * 1000))
    return reply


def _check_feed(call: ServedCall, path: str, query: str) -> None:
    """Raise ValueInvalid unless path and query are those of a feed, RequestMalformed if they cannot
    be read. An EventSource does not show its page why the hub refuses a call.

    A dataset with which the caller may do nothing is like one that does not exist.
    """
    found = _list_feeds(call.hub.catalog).find("GET", path)
    if found is None or not _sees_feed(call, found.target):
        raise ValueInvalid.of("feed", "is not the path of a feed, such as /v1/customers:watch")
    bound_values(found)
    parameters = parse_query(query)
    if any(name == TICKET for name, _ in parameters):
        raise ValueInvalid.of("feed", "has a ticket already")
    kind: Any = GetMessageClass(found.target.method.input_type)
    taken = tuple(variable.path for variable in found.rule.variables)
    query_reader(kind.DESCRIPTOR, taken).read(parameters, kind())


def _sees_feed(call: ServedCall, feed: _Feed) -> bool:
    return feed.dataset is None or call.policy.visible(call.principal, feed.dataset) is not None


@functools.lru_cache(maxsize=4)
def _list_feeds(catalog: Catalog) -> Paths[_Feed]:
    """All feeds by their paths."""
    services: list[tuple[str, str | None]] = [(name, None) for name in _HUB_SERVICES]
    services += [(name_service(dataset), dataset.name) for dataset in catalog]
    feeds = [
        _Feed(method, dataset)
        for name, dataset in services
        for method in catalog.pool.FindServiceByName(name).methods
        if method.server_streaming and method.output_type.full_name != FILE
    ]
    return Paths((feed.method, feed) for feed in feeds)
