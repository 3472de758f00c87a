"""Tickets in the URLs of feeds: what they are bound to, and how a call shows them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import orjson

from penstockd.auth.tickets import ShownTicket
from penstockd.errors import Refused
from penstockd.rpc.feeds import LAST_EVENT_ID, split_id
from penstockd.rpc.rest.queries import parse_query

#: The parameter of a feed that holds a ticket.
TICKET = "ticket"
#: The parameter that says where a stream goes on. (``snapshot`` also decides what it shows: all
#: that there is, not only what changes.)
_CURSOR = "cursor"


def name_feed(path: str, query: str) -> str:
    """What a ticket is bound to: a path and all parameters that decide what a feed shows.

    Raises RequestMalformed.
    """
    pairs = [pair for pair in parse_query(query) if pair[0] != _CURSOR]
    return orjson.dumps([path, pairs]).decode()


def add_ticket(path: str, query: str, ticket: str) -> str:
    """The URL of a feed with its ticket, relative to the hub."""
    return f"{path}?{urlencode([*parse_query(query), (TICKET, ticket)])}"


def split_ticket(query: str) -> tuple[str, str]:
    """A query without its ticket, and the ticket; several count as one that is not valid."""
    head = f"{TICKET}="
    parts = query.split("&")
    tickets = [part.removeprefix(head) for part in parts if part.startswith(head)]
    return "&".join(part for part in parts if not part.startswith(head)), ",".join(tickets)


def read_ticket(
    path: str, query: str, ticket: str, metadata: Mapping[str, str]
) -> ShownTicket | None:
    """The ticket that a call to a feed shows, if any."""
    if not ticket:
        return None
    try:
        feed = name_feed(path, query)
    except Refused:
        feed = ""  # no ticket is bound to it
    return ShownTicket(ticket, feed, split_id(metadata.get(LAST_EVENT_ID, ""))[1])
