"""Turns a claimed delivery into a message, checked against the current policy.

An event was seen through a View when it was queued. While the owner's View stays the same, the
queued event is what it shows. Otherwise the event is read again, through the current View.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import urlsplit

from penstockd.audit.bounds import query_text
from penstockd.audit.entry import Entry
from penstockd.audit.keys import page_keys
from penstockd.audit.shown import Shown
from penstockd.budget import let_others_run, offload_large
from penstockd.catalog import Catalog
from penstockd.errors import CursorExpired
from penstockd.policy.lens import Lens
from penstockd.policy.model import Permission
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.store.database import Connection, Database
from penstockd.store.places import Places
from penstockd.webhooks.endpoints import Endpoint
from penstockd.webhooks.events import FeedLog
from penstockd.webhooks.lanes import Composed
from penstockd.webhooks.model import (
    Cause,
    Delivery,
    DeliveryState,
    Occurrence,
    Reason,
    Webhook,
)
from penstockd.webhooks.owners import Owners, owner_of
from penstockd.webhooks.payload import Payloads
from penstockd.webhooks.queue import SendResult
from penstockd.webhooks.settling import UNDONE

#: The method under which the audit records webhook deliveries.
METHOD = "/penstock.hub.v1.Webhooks/Deliver"
SURFACE = "WEBHOOK"


class Composer:
    """Makes messages from deliveries, or reports why one cannot be made."""

    def __init__(self, payloads: Payloads, owners: Owners, log: FeedLog) -> None:
        self._payloads, self._owners, self._log = payloads, owners, log

    async def compose(
        self, policy: PolicySnapshot, endpoint: Endpoint, delivery: Delivery, at: datetime
    ) -> Composed | SendResult:
        """The message of a delivery, or a DEAD result if its owner can see nothing of it."""
        webhook = endpoint.webhook
        owner = owner_of(policy, webhook)
        # Notices other than UNDONE describe the owner's other webhooks, including their URLs.
        notice = delivery.cause is Cause.NOTICE and delivery.event_type != UNDONE
        if owner is None or (notice and not policy.permits(owner, Permission.WEBHOOKS_READ)):
            return SendResult(delivery, DeliveryState.DEAD, Reason.ACCESS_LOST.value)
        sights = self._owners.sights(policy, webhook)
        previous = delivery.previous
        if delivery.cause not in (Cause.TEST, Cause.NOTICE):
            kept, reason = await self._shown(webhook, delivery, sights)
            if not kept:
                return SendResult(delivery, DeliveryState.DEAD, reason.value)
            delivery.events = [event for event, _ in kept]
            previous = [number for _, number in kept]
        # Writing a batch of large records takes long, and keeper and workers have other work.
        size = sum(len(event.after or b"") for event in delivery.events)
        write = functools.partial(
            self._payloads.message, delivery, webhook.options, sights, at, previous
        )
        message = await offload_large(size, write)
        await let_others_run()
        return Composed(delivery, message, policy)

    async def _shown(
        self, webhook: Webhook, delivery: Delivery, sights: Mapping[str, Lens]
    ) -> tuple[list[tuple[Occurrence, int]], Reason]:
        """The events that may be sent, with their previous numbers; and why others are not."""
        reason = Reason.EVENT_EXPIRED
        wanted = {s.dataset: s.operations for s in webhook.selections}
        kept = []
        for event, before in zip(delivery.events, delivery.previous, strict=True):
            sight = sights.get(event.dataset)
            if sight is None:
                reason = Reason.ACCESS_LOST
                continue
            seen: Occurrence | None = event
            if sight.view_id != event.view_id:
                try:
                    seen = await self._log.reread(sight, event)
                except CursorExpired:
                    continue
            operations = wanted.get(event.dataset, ())
            if seen is None or (operations and seen.operation.word not in operations):
                reason = Reason.NOT_VISIBLE
                continue
            kept.append((seen, before))
        return kept, reason


def place_of(url: str) -> str:
    """Scheme and host of a URL; the rest may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def make_entries(
    endpoint: Endpoint, sights: Mapping[str, Lens], composed: Sequence[Composed]
) -> tuple[list[Entry], list[Shown]]:
    """The audit's entries and rules for messages to one endpoint, before any of them leaves."""
    webhook = endpoint.webhook
    fields = {s.dataset: s.fields for s in webhook.selections}
    keys: dict[str, list[str]] = {}
    for each in composed:
        for dataset, found in each.message.disclosed.items():
            keys.setdefault(dataset, []).extend(found)
    made, shown = [], []
    first = composed[0]
    query = {"webhook": webhook.webhook_id, "deliveries": len(composed)}
    for dataset, found in sorted(keys.items()) or [("", [])]:
        entry = Entry(
            request_id=first.delivery.delivery_id,
            method=METHOD,
            policy_revision=first.policy.revision,
            consumer_id=webhook.consumer_id,
            dataset=dataset or None,
            query=query_text(query),
            row_count=len(found),
            peer=place_of(webhook.url) or None,
            surface=SURFACE,
            byte_count=sum(len(c.message.body) for c in composed),
        )
        if found:
            sight = sights[dataset]
            rule = sight.view.prepared(Shown, fields[dataset])
            entry.shown = rule.digest
            shown.append(rule)
        if len(found) == 1:
            entry.record_key = found[0]
        elif found:
            entry.low_key, entry.high_key = min(found), max(found)
            entry.keys = page_keys(found)
        made.append(entry)
    return made, shown


async def make_composer(
    database: Database,
    catalog: Catalog,
    public_url: str,
    places: Places,
    connection: Connection,
) -> tuple[Composer, Owners]:
    """A Composer, and the Owners whose lenses it uses."""
    epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
    owners = Owners(catalog)
    log = FeedLog(database, catalog)
    payloads = Payloads(catalog, public_url, epoch, places)
    return Composer(payloads, owners, log), owners
