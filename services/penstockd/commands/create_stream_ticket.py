"""CreateStreamTicket: a ticket with which a browser follows one feed."""

from __future__ import annotations

from penstockd.auth.tickets import Ticket
from penstockd.calls import Call
from penstockd.hub import Hub


def create_stream_ticket(hub: Hub, call: Call, feed: str, token: str) -> tuple[str, Ticket]:
    """A ticket for a feed, and its contents; ``token`` is the one that the caller showed, if any.

    Whether the caller may follow the feed is decided with each use. Raises PermissionDenied if it
    may read no dataset at all.
    """
    call.asked(feed=feed)
    call.readable(hub.catalog)
    return hub.tickets.issue(call.principal, feed, token)
