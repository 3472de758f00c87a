"""What an endpoint is sent: the body of a message, and the headers that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from penstockd.catalog import Catalog
from penstockd.store.cursor import Cursor
from penstockd.store.places import Places
from penstockd.webhooks.model import Body, Cause, Delivery, Envelope, Occurrence, Options, Sight
from penstockd.webhooks.records import RecordWriter, time_text, xml_of

#: Messages that are about the endpoint itself.
TEST = "webhook.test"
BATCH = "batch"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_MEDIA = {Body.JSON: "application/json", Body.XML: "application/xml"}
#: Attributes of a CloudEvent in a header: printable ASCII but for these (HTTP binding 3.1.3.2).
_PLAIN = frozenset(map(chr, range(0x21, 0x7F))) - {'"', "%"}


@dataclass(frozen=True, slots=True)
class Message:
    """A body with its own headers. ``disclosed`` are the records in it, by dataset."""

    body: bytes
    headers: Mapping[str, str]
    disclosed: Mapping[str, Sequence[str]]


class Payloads:
    """Writes messages. ``url`` is where the hub is reached, ``epoch`` that of its log, whose
    ``places`` it tells."""

    def __init__(self, catalog: Catalog, url: str, epoch: str, places: Places) -> None:
        self._places = places
        self._catalog, self._url, self._epoch = catalog, url, epoch
        self._writers: dict[tuple[str, str], RecordWriter] = {}

    def message(
        self,
        delivery: Delivery,
        options: Options,
        sights: Mapping[str, Sight],
        at: datetime,
        previous: Sequence[int] | None = None,
    ) -> Message:
        """The message of a delivery whose events are what the owner may see now.

        ``sights`` are by dataset; ``at`` is when the message is made. ``previous`` goes with the
        events, by default the delivery's own.
        """
        before = delivery.previous if previous is None else previous
        if delivery.cause in (Cause.TEST, Cause.NOTICE):
            events = [(delivery.event_type, delivery.event_time, dict(delivery.notice or {}), "")]
        else:
            pairs = zip(delivery.events, before, strict=True)
            events = [self._event(e, p, options, sights) for e, p in pairs]
        disclosed: dict[str, list[str]] = {}
        if not options.thin:
            for event in delivery.events:
                if event.after is not None:
                    disclosed.setdefault(event.dataset, []).append(event.key)
        body, headers = self._written(delivery, events, options, at)
        return Message(body, headers, disclosed)

    def _event(
        self, event: Occurrence, previous: int, options: Options, sights: Mapping[str, Sight]
    ) -> tuple[str, datetime, dict[str, Any], str]:
        dataset = self._catalog[event.dataset]
        data: dict[str, Any] = {"dataset": event.dataset, "key": event.key}
        if not options.thin:
            if event.after is not None:
                data["record"] = self._record(event, options.body, sights[event.dataset])
            if event.changed:
                data["changed"] = list(event.changed)
        sequence = self._places.sequences.sequence
        data["revision"] = str(sequence(event.number))
        if previous:
            data["previousRevision"] = str(sequence(previous))
        cursor = Cursor(self._epoch, event.number, mark=event.mark)
        data["cursor"] = self._places.seal(cursor)
        kind = f"{dataset.singular}.{event.operation}"
        return kind, event.commit_time, data, event.key

    def _record(self, event: Occurrence, body: Body, sight: Sight) -> Any:
        name = (event.dataset, sight.view_id)
        writer = self._writers.get(name)
        if writer is None:
            if len(self._writers) > 1000:  # Views come and go with the policy
                self._writers.clear()
            writer = self._writers[name] = RecordWriter(sight.dataset, sight.fields)
        assert event.after is not None
        return _Xml(writer.xml(event.after)) if body is Body.XML else writer.json(event.after)

    def _written(
        self,
        delivery: Delivery,
        events: Sequence[tuple[str, datetime, dict[str, Any], str]],
        options: Options,
        at: datetime,
    ) -> tuple[bytes, dict[str, str]]:
        if options.envelope is not Envelope.STANDARD:
            return self._cloud_events(delivery, events, options)
        found = [{"type": t, "timestamp": time_text(m), "data": d} for t, m, d, _ in events]
        whole: dict[str, Any] = found[0]
        if options.batch_size > 1 and delivery.cause not in (Cause.TEST, Cause.NOTICE):
            whole = {"type": BATCH, "timestamp": time_text(at), "data": found}
        return _encoded(whole, options.body), {"content-type": _MEDIA[options.body]}

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
                "time": time_text(moment),
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
            headers = {f"ce-{n}": _header(v) for n, v in attributes.items()}
            return _encoded(data, options.body), {"content-type": content_type, **headers}
        documents = [_structured(a, d, options.body) for a, d in made]
        if options.batch_size > 1 and delivery.cause not in (Cause.TEST, Cause.NOTICE):
            return orjson.dumps(documents), {"content-type": "application/cloudevents-batch+json"}
        return orjson.dumps(documents[0]), {"content-type": "application/cloudevents+json"}


class _Xml(str):
    """Text that is XML already."""


def _encoded(document: Mapping[str, Any], body: Body) -> bytes:
    if body is Body.JSON:
        return orjson.dumps(document)
    root = "webhook" if "type" in document and "data" in document else "data"
    return f"{_DECLARATION}<{root}>{_xml(document)}</{root}>".encode()


def _xml(value: Any) -> str:
    if isinstance(value, _Xml):
        return value
    if isinstance(value, Mapping):
        return "".join(f"<{n}>{_xml(v)}</{n}>" for n, v in value.items())
    if isinstance(value, list):
        return "".join(f"<item>{_xml(v)}</item>" for v in value)
    return xml_of(value)


def _structured(attributes: dict[str, str], data: Mapping[str, Any], body: Body) -> dict[str, Any]:
    """A CloudEvent as one JSON document; XML stands in it as text."""
    held: Any = data if body is Body.JSON else _encoded(data, body).decode()
    return {**attributes, "data": held}


def _header(text: str) -> str:
    """An attribute's value as a header: UTF-8, percent-encoded where it is not plain."""
    return "".join(
        c if c in _PLAIN else "".join(f"%{b:02X}" for b in c.encode("utf-8", "replace"))
        for c in text
    )
