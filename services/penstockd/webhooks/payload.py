"""Writes messages to endpoints: the body, its records, and the headers."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import orjson

from penstockd.catalog import Catalog, Dataset, Field, Kind
from penstockd.catalog.record import Codec
from penstockd.catalog.structs import parse_struct
from penstockd.policy.lens import Lens
from penstockd.store.cursor import Cursor
from penstockd.store.places import Places
from penstockd.webhooks.model import Body, Cause, Delivery, Envelope, Occurrence, Options

Convert = Callable[[Any], Any]

#: Characters that XML 1.0 cannot hold; U+FFFD replaces them.
_NOT_XML = {c: 0xFFFD for c in (*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF)}

#: The type of messages about the endpoint itself.
TEST = "webhook.test"
BATCH = "batch"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_MEDIA = {Body.JSON: "application/json", Body.XML: "application/xml"}
#: Characters that a CloudEvents header holds unencoded (HTTP binding 3.1.3.2).
_PLAIN = frozenset(map(chr, range(0x21, 0x7F))) - {'"', "%"}


class RecordWriter:
    """Writes records of a dataset, reduced to ``fields``."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._dataset, self._codec = dataset, Codec(dataset, fields)
        self._parse = dataset.message_class.FromString
        self._converts = [_make_convert(f) for f in fields]
        self._json = [f.json_steps for f in fields]
        self._xml = [f.steps for f in fields]

    def json(self, image: bytes) -> dict[str, Any]:
        """A serialised record as JSON data, without unset fields."""
        return self._tree(image, self._json)

    def xml(self, image: bytes) -> str:
        """A serialised record as an element, as in XML exports."""
        name = self._dataset.singular
        return f"<{name}>{xml_of(self._tree(image, self._xml))}</{name}>"

    def _tree(self, image: bytes, places: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        row = self._codec.row(self._parse(image))
        for value, convert, steps in zip(row, self._converts, places, strict=True):
            if value is None:
                continue
            holder = tree
            for step in steps[:-1]:
                holder = holder.setdefault(step, {})
            holder[steps[-1]] = convert(value) if convert is not None else value
        return tree


def xml_of(value: Any) -> str:
    """JSON data as the content of an element: lists become items, maps become members."""
    if isinstance(value, StructData):
        return escape(orjson.dumps(value).decode())
    if isinstance(value, Mapping):
        return "".join(_xml_element(name, v) for name, v in value.items())
    if isinstance(value, list | tuple):
        return "".join(f"<item>{xml_of(v)}</item>" for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else escape(str(value).translate(_NOT_XML))


def time_text(moment: dt.datetime) -> str:
    """RFC 3339 in UTC with microseconds."""
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Entries(dict[str, Any]):
    """A map field, which XML writes as entries with keys."""


class StructData(dict[str, Any]):
    """A Struct, which XML writes as JSON."""


def _xml_element(name: str, value: Any) -> str:
    if isinstance(value, Entries):
        inner = "".join(
            f"<entry key={quoteattr(str(k).translate(_NOT_XML))}>{xml_of(v)}</entry>"
            for k, v in value.items()
        )
        return f"<{name}>{inner}</{name}>"
    return f"<{name}>{xml_of(value)}</{name}>"


def _make_convert(field: Field) -> Convert | None:
    """Converts a value of ``Codec.row`` to JSON data; None if they are the same."""
    match field.kind:
        case Kind.INT64 | Kind.UINT64:
            return str
        case Kind.FLOAT | Kind.DOUBLE:
            return _json_number
        case Kind.BYTES:
            return lambda value: base64.b64encode(value).decode()
        case Kind.ENUM:
            assert field.enum_values is not None
            names = {number: name for name, number in reversed([*field.enum_values.items()])}
            return lambda value: names.get(value, value)
        case Kind.TIMESTAMP:
            return time_text
        case Kind.MAP:
            return Entries
        case Kind.STRUCT:
            return lambda value: StructData(parse_struct(value))
    return None


def _json_number(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


@dataclass(frozen=True, slots=True)
class Message:
    """A body with its headers. ``disclosed`` are the keys of its records, by dataset."""

    body: bytes
    headers: Mapping[str, str]
    disclosed: Mapping[str, Sequence[str]]


class Payloads:
    """Writes messages.

    ``url`` is the hub's URL, ``epoch`` that of its log, and ``places`` seals its cursors.
    """

    def __init__(self, catalog: Catalog, url: str, epoch: str, places: Places) -> None:
        self._places = places
        self._catalog, self._url, self._epoch = catalog, url, epoch
        self._writers: dict[tuple[str, str], RecordWriter] = {}

    def message(
        self,
        delivery: Delivery,
        options: Options,
        sights: Mapping[str, Lens],
        at: datetime,
        previous: Sequence[int] | None = None,
    ) -> Message:
        """The message of a delivery whose events are what the owner may see now.

        ``sights`` are lenses by dataset; ``at`` is when the message is made. ``previous`` goes with
        the events, by default the delivery's own.
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
        self, event: Occurrence, previous: int, options: Options, sights: Mapping[str, Lens]
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
        kind = f"{dataset.singular}.{event.operation.word}"
        return kind, event.commit_time, data, event.key

    def _record(self, event: Occurrence, body: Body, sight: Lens) -> Any:
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
        return _encode_document(whole, options.body), {"content-type": _MEDIA[options.body]}

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
            headers = {f"ce-{n}": _encode_header(v) for n, v in attributes.items()}
            return _encode_document(data, options.body), {"content-type": content_type, **headers}
        documents = [_structured_event(a, d, options.body) for a, d in made]
        if options.batch_size > 1 and delivery.cause not in (Cause.TEST, Cause.NOTICE):
            return orjson.dumps(documents), {"content-type": "application/cloudevents-batch+json"}
        return orjson.dumps(documents[0]), {"content-type": "application/cloudevents+json"}


class _Xml(str):
    """Text that is already XML."""


def _encode_document(document: Mapping[str, Any], body: Body) -> bytes:
    if body is Body.JSON:
        return orjson.dumps(document)
    root = "webhook" if "type" in document and "data" in document else "data"
    return f"{_DECLARATION}<{root}>{_xml_value(document)}</{root}>".encode()


def _xml_value(value: Any) -> str:
    if isinstance(value, _Xml):
        return value
    if isinstance(value, Mapping):
        return "".join(f"<{n}>{_xml_value(v)}</{n}>" for n, v in value.items())
    if isinstance(value, list):
        return "".join(f"<item>{_xml_value(v)}</item>" for v in value)
    return xml_of(value)


def _structured_event(
    attributes: dict[str, str], data: Mapping[str, Any], body: Body
) -> dict[str, Any]:
    """A CloudEvent as one JSON document, with XML as text in it."""
    held: Any = data if body is Body.JSON else _encode_document(data, body).decode()
    return {**attributes, "data": held}


def _encode_header(text: str) -> str:
    """An attribute's value as a header: UTF-8, percent-encoded where it is not plain."""
    return "".join(
        c if c in _PLAIN else "".join(f"%{b:02X}" for b in c.encode("utf-8", "replace"))
        for c in text
    )
