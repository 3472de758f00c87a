"""Turns claimed deliveries into messages, checked against the current policy.

An event was seen through a View when it was queued. While the owner's View stays the same, the
queued event is what it shows. Otherwise the event is read again, through the current View.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog
from google.protobuf.message import DecodeError

from penstockd.audit.bounds import query_text
from penstockd.audit.entry import DELIVERIES, Entry
from penstockd.audit.keys import page_keys
from penstockd.audit.shown import Shown
from penstockd.budget import let_others_run, offload_large
from penstockd.catalog import Catalog
from penstockd.catalog.record import UNREADABLE
from penstockd.catalog.scalars import timestamp_text
from penstockd.errors import CursorExpired, RecordUnreadable, ShapeUnfit
from penstockd.policy.lens import Lens
from penstockd.policy.model import Permission
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.shapes.lens import ShapedLens
from penstockd.store.cursor import Cursor
from penstockd.store.database import Connection, Database
from penstockd.store.places import Places
from penstockd.webhooks.bodies import (
    RecordWriter,
    ShapedWriter,
    encode_document,
    make_writer,
)
from penstockd.webhooks.endpoints import Endpoint
from penstockd.webhooks.events import FeedLog
from penstockd.webhooks.model import (
    Body,
    Cause,
    Delivery,
    DeliveryState,
    Envelope,
    Occurrence,
    Options,
    Reason,
    Webhook,
)
from penstockd.webhooks.operators import DISK_ENOUGH, DISK_LOW
from penstockd.webhooks.owners import Owners, owner_of
from penstockd.webhooks.queue import SendResult
from penstockd.webhooks.settling import SKIPPED, UNDONE
from penstockd.webhooks.sign_ins import CONSUMER_FAILED, FAILED

#: The method under which the audit records webhook deliveries.
METHOD = DELIVERIES
SURFACE = "WEBHOOK"

#: The most bytes of a message's events in the columns of shapes.
MAX_SHAPED = 4 << 20
#: How long a delivery waits before the next attempt while its webhook's shape does not fit.
UNFIT_PAUSE = timedelta(minutes=1)

#: The type of messages about the endpoint itself.
TEST = "webhook.test"
BATCH = "batch"
_MEDIA = {Body.JSON: "application/json", Body.XML: "application/xml"}
#: Characters that a CloudEvents header holds unencoded (HTTP binding 3.1.3.2).
_PLAIN = frozenset(map(chr, range(0x21, 0x7F))) - {'"', "%"}

_log = structlog.get_logger(__name__)

#: What the owner must be allowed to be told by a notice. Others describe the owner's other
#: webhooks, including their URLs.
_NEEDED_FOR: Mapping[str, Permission | None] = {
    UNDONE: None,
    SKIPPED: None,
    DISK_LOW: Permission.ACCESS_WRITE,
    DISK_ENOUGH: Permission.ACCESS_WRITE,
    FAILED: None,
    CONSUMER_FAILED: Permission.ACCESS_WRITE,
}


@dataclass(frozen=True, slots=True)
class Message:
    """A body with its headers. ``disclosed`` are the keys of its records, by dataset."""

    body: bytes
    headers: Mapping[str, str]
    disclosed: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Composed:
    """A delivery with its message, made under a policy."""

    delivery: Delivery
    message: Message
    policy: PolicySnapshot


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
        needed = None
        if delivery.cause is Cause.NOTICE:
            needed = _NEEDED_FOR.get(delivery.event_type, Permission.WEBHOOKS_READ)
        if owner is None or (needed is not None and not policy.permits(owner, needed)):
            return SendResult(delivery, DeliveryState.DEAD, Reason.ACCESS_LOST.value)
        sights = self._owners.sights(policy, webhook)
        if delivery.cause is not Cause.NOTICE and self._owners.find_unfit(policy, webhook):
            # The delivery waits until the webhook is paused, and then until its shape fits again.
            return SendResult(delivery, DeliveryState.PENDING, next_time=at + UNFIT_PAUSE)
        previous = delivery.previous
        if delivery.cause not in (Cause.TEST, Cause.NOTICE):
            try:
                kept, reason = await self._keep_shown(webhook, delivery, sights)
            except (RecordUnreadable, DecodeError, *UNREADABLE) as exc:
                return _bury_unreadable(delivery, exc)
            if not kept:
                return SendResult(delivery, DeliveryState.DEAD, reason.value)
            delivery.events = [event for event, _ in kept]
            previous = [number for _, number in kept]
        write = functools.partial(
            self._payloads.message, delivery, webhook.options, sights, at, previous
        )
        message = await self._write_safely(delivery, write)
        return Composed(delivery, message, policy) if isinstance(message, Message) else message

    @staticmethod
    async def _write_safely(
        delivery: Delivery, write: Callable[[], Message]
    ) -> Message | SendResult:
        """The message, or a DEAD result: one that cannot be made must not stop all others."""
        # Writing a batch of large records takes long, and keeper and workers have other work.
        size = sum(len(event.after or b"") for event in delivery.events)
        try:
            message = await offload_large(size, write)
        except ShapeUnfit as exc:
            _log.warning("webhook_shape_unfit", webhook=delivery.webhook_id, error=exc.message)
            return SendResult(delivery, DeliveryState.DEAD, Reason.SHAPE_UNFIT.value)
        except Exception as exc:
            return _bury_unreadable(delivery, exc)
        await let_others_run()
        return message

    async def _keep_shown(
        self, webhook: Webhook, delivery: Delivery, sights: Mapping[str, Lens]
    ) -> tuple[list[tuple[Occurrence, int]], Reason]:
        """The events that may be sent, with their previous numbers; and the reason why others are
        not."""
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


def _bury_unreadable(delivery: Delivery, why: Exception) -> SendResult:
    """The result of a delivery whose message cannot be made."""
    place = {"webhook": delivery.webhook_id, "delivery": delivery.delivery_id}
    if isinstance(why, RecordUnreadable):  # its text has the value, which is not for a log
        _log.warning("webhook_record_unreadable", **place, **why.metadata)
    else:
        _log.error("webhook_record_unreadable", **place, exc_info=why)
    return SendResult(delivery, DeliveryState.DEAD, Reason.RECORD_UNREADABLE.value)


def place_of(url: str) -> str:
    """Scheme and host of a URL; the rest may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if url else ""


def make_entries(
    endpoint: Endpoint,
    sights: Mapping[str, Lens],
    composed: Sequence[Composed],
    *,
    pulled: bool = False,
) -> tuple[list[Entry], list[Shown]]:
    """The audit's entries and rules for messages to one endpoint, before any of them leaves.

    One entry for each dataset; the first counts the messages and their bytes, unless they are
    ``pulled`` by a call, whose own entry does.
    """
    webhook = endpoint.webhook
    calls = 0 if pulled else len(composed)
    size = 0 if pulled else sum(len(c.message.body) for c in composed)
    keys: dict[str, list[str]] = {}
    for each in composed:
        for dataset, found in each.message.disclosed.items():
            keys.setdefault(dataset, []).extend(found)
    made: list[Entry] = []
    shown: list[Shown] = []
    first = composed[0]
    told = {"webhook": webhook.webhook_id, "deliveries": len(composed)}
    for dataset, found in sorted(keys.items()) or [("", [])]:
        entry = Entry(
            request_id=first.delivery.delivery_id,
            method=METHOD,
            policy_revision=first.policy.revision,
            consumer_id=webhook.consumer_id,
            dataset=dataset or None,
            query=query_text(told | {"calls": 0 if made else calls}),
            row_count=len(found),
            peer=place_of(webhook.url) or None,
            surface=SURFACE,
            byte_count=0 if made else size,
        )
        if found:
            sight = sights[dataset]
            rule = sight.view.prepared(Shown, sight.rule_fields)
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
    owners: Owners,
    connection: Connection,
) -> Composer:
    """A Composer for messages in the log's current epoch."""
    epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
    log = FeedLog(database, catalog)
    return Composer(Payloads(catalog, public_url, epoch, places), owners, log)


class Payloads:
    """Writes messages.

    ``url`` is the hub's URL, ``epoch`` that of its log, and ``places`` seals its cursors.
    """

    def __init__(self, catalog: Catalog, url: str, epoch: str, places: Places) -> None:
        self._places = places
        self._catalog, self._url, self._epoch = catalog, url, epoch
        self._writers: dict[tuple[str, str, str], RecordWriter | ShapedWriter] = {}

    def message(
        self,
        delivery: Delivery,
        options: Options,
        sights: Mapping[str, Lens],
        at: datetime,
        previous: Sequence[int] | None = None,
    ) -> Message:
        """The message of a delivery whose events are those that the owner may see now.

        ``sights`` are lenses by dataset; ``at`` is the time when the message is made. ``previous``
        goes with the events, by default the delivery's own.
        """
        before = delivery.previous if previous is None else previous
        if delivery.cause in (Cause.TEST, Cause.NOTICE):
            events = [(delivery.event_type, delivery.event_time, dict(delivery.notice or {}), "")]
        else:
            pairs = zip(delivery.events, before, strict=True)
            events, size = [], 0
            for event, p in pairs:
                events.append(self._event(event, p, options, sights))
                if isinstance(sights[event.dataset], ShapedLens):
                    size += len(encode_document(events[-1][2], options.body))
                if size > MAX_SHAPED:
                    raise ShapeUnfit(f"a message would have more than {MAX_SHAPED >> 20} MiB")
        disclosed: dict[str, list[str]] = {}
        if not options.thin:
            for event in delivery.events:
                if event.after is not None:
                    disclosed.setdefault(event.dataset, []).append(event.key)
        body, headers = self._write_body(delivery, events, options, at)
        return Message(body, headers, disclosed)

    def _event(
        self, event: Occurrence, previous: int, options: Options, sights: Mapping[str, Lens]
    ) -> tuple[str, datetime, dict[str, Any], str]:
        dataset = self._catalog[event.dataset]
        data: dict[str, Any] = {"dataset": event.dataset, "key": event.key}
        if not options.thin:
            sight = sights[event.dataset]
            if event.after is not None:
                data["record"] = self._record(event, options.body, sight)
            changed: Sequence[str] = event.changed
            if isinstance(sight, ShapedLens):
                data["shape"] = sight.shape.name
                changed = sight.changed_columns(changed)
            if changed:
                data["changed"] = list(changed)
        sequence = self._places.sequences.sequence
        data["revision"] = str(sequence(event.number))
        if previous:
            data["previousRevision"] = str(sequence(previous))
        cursor = Cursor(self._epoch, event.number, mark=event.mark)
        data["cursor"] = self._places.seal(cursor)
        kind = f"{dataset.singular}.{event.operation.word}"
        return kind, event.commit_time, data, event.key

    def _record(self, event: Occurrence, body: Body, sight: Lens) -> Any:
        assert event.after is not None
        shape = sight.shape.name if isinstance(sight, ShapedLens) else ""
        name = (event.dataset, sight.view_id, shape)
        writer = self._writers.get(name)
        if writer is None:
            if len(self._writers) > 1000:  # Views come and go with the policy
                self._writers.clear()
            writer = self._writers[name] = make_writer(sight)
        write = writer.xml if body is Body.XML else writer.json
        return write(event.key, event.after)

    def _write_body(
        self,
        delivery: Delivery,
        events: Sequence[tuple[str, datetime, dict[str, Any], str]],
        options: Options,
        at: datetime,
    ) -> tuple[bytes, dict[str, str]]:
        if options.envelope is not Envelope.STANDARD:
            return self._cloud_events(delivery, events, options)
        found = [{"type": t, "timestamp": timestamp_text(m), "data": d} for t, m, d, _ in events]
        whole: dict[str, Any] = found[0]
        if options.batch_size > 1 and delivery.cause not in (Cause.TEST, Cause.NOTICE):
            whole = {"type": BATCH, "timestamp": timestamp_text(at), "data": found}
        return encode_document(whole, options.body), {"content-type": _MEDIA[options.body]}

    def _cloud_events(
        self,
        delivery: Delivery,
        events: Sequence[tuple[str, datetime, dict[str, Any], str]],
        options: Options,
    ) -> tuple[bytes, dict[str, str]]:
        made = []
        for i, (kind, moment, data, key) in enumerate(events):
            name = delivery.delivery_id if len(events) == 1 else f"{delivery.delivery_id}-{i}"
            attributes = {
                "specversion": "1.0",
                "id": name,
                "source": f"{self._url}/v1/{data.get('dataset', 'webhooks')}",
                "type": kind,
                "time": timestamp_text(moment),
                "datacontenttype": _MEDIA[options.body],
            }
            if key:
                attributes["subject"] = key
            for extension in ("revision", "previousRevision", "cursor"):
                if extension in data:
                    attributes[extension.lower()] = data[extension]
            made.append((attributes, data))
        if options.envelope is Envelope.CLOUDEVENTS_BINARY:
            attributes, data = made[0]
            content_type = attributes.pop("datacontenttype")
            headers = {f"ce-{n}": _encode_header(v) for n, v in attributes.items()}
            return encode_document(data, options.body), {"content-type": content_type, **headers}
        documents = [_structured_event(a, d, options.body) for a, d in made]
        if options.batch_size > 1 and delivery.cause not in (Cause.TEST, Cause.NOTICE):
            return orjson.dumps(documents), {"content-type": "application/cloudevents-batch+json"}
        return orjson.dumps(documents[0]), {"content-type": "application/cloudevents+json"}


def _structured_event(
    attributes: dict[str, str], data: Mapping[str, Any], body: Body
) -> dict[str, Any]:
    """A CloudEvent as one JSON document, with XML as text in it."""
    held: Any = data if body is Body.JSON else encode_document(data, body).decode()
    return {**attributes, "data": held}


def _encode_header(text: str) -> str:
    """An attribute's value as a header: UTF-8, percent-encoded where it is not plain."""
    return "".join(
        c if c in _PLAIN else "".join(f"%{b:02X}" for b in c.encode("utf-8", "replace"))
        for c in text
    )
