"""Messages made by a worker: to be shown, or to be pulled."""

from __future__ import annotations

from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.composer import Composer
from penstockd.webhooks.log import FeedLog
from penstockd.webhooks.owners import Owners
from penstockd.webhooks.payload import Payloads


async def composer(hub: Hub, connection: Connection) -> tuple[Composer, Owners]:
    """What makes messages, and the sights that it makes them by."""
    epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
    owners = Owners(hub.catalog)
    log = FeedLog(hub.database, hub.catalog)
    payloads = Payloads(hub.catalog, hub.public_url, epoch)
    return Composer(payloads, owners.sights, log.reread), owners
