"""Messages made by a worker: to be shown, or to be pulled."""

from __future__ import annotations

from penstockd.catalog import Catalog
from penstockd.store.database import Connection, Database
from penstockd.store.places import Places
from penstockd.webhooks.composer import Composer
from penstockd.webhooks.log import FeedLog
from penstockd.webhooks.owners import Owners
from penstockd.webhooks.payload import Payloads


async def make_composer(
    database: Database,
    catalog: Catalog,
    public_url: str,
    places: Places,
    connection: Connection,
) -> tuple[Composer, Owners]:
    """What makes messages, and the sights that it makes them by."""
    epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
    owners = Owners(catalog)
    log = FeedLog(database, catalog)
    payloads = Payloads(catalog, public_url, epoch, places)
    return Composer(payloads, owners.sights, log.reread), owners
