"""What reads the records in the bodies of a call: by what its caller sees of those it may write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.errors import PermissionDenied
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.rpc.exchange import Exchange
from penstockd.rpc.rest.bodies import FindReader
from penstockd.rpc.rest.problems import Problems
from penstockd.rpc.rest.records import BlindReader, RecordBodies
from penstockd.rpc.rest.xml_bodies import XmlRecords

#: Reads a document in XML as data that JSON would give.
ReadXml = Callable[[bytes, Problems], Any]

_BOTH = (Action.CREATE, Action.UPDATE)
#: What methods that take records do, by the first six letters of their names; the others do both.
_ACTIONS = {"Create": (Action.CREATE,), "Update": (Action.UPDATE,)}


def record_readers(exchange: Exchange, reader: type[RecordBodies]) -> FindReader:
    """Finds the readers of records, of a class."""
    datasets = {d.message_type.full_name: d for d in exchange.hub.catalog}

    def find(kind: Descriptor) -> RecordBodies | BlindReader | None:
        dataset = datasets.get(kind.full_name)
        if dataset is None or not isinstance(exchange.arriving, Call):
            return None
        view = _written_view(exchange, dataset)
        return BlindReader() if view is None else view.prepared(reader)

    return find


def xml_reader(exchange: Exchange, target: Message) -> ReadXml | None:
    """The reader of a body in XML that becomes ``target``; None if its method takes none.

    A document is one record, or for a batch many.
    """
    if exchange.method.dataset is None:
        return None
    dataset = exchange.hub.catalog[exchange.method.dataset]
    kind, record = target.DESCRIPTOR, dataset.message_type.full_name
    many = kind.fields_by_name.get(dataset.name)
    held = many.message_type if many is not None else None
    if record not in (kind.full_name, held.full_name if held is not None else ""):
        return None
    view = _written_view(exchange, dataset)
    if view is None:
        return lambda data, problems: {}
    records = view.prepared(XmlRecords)
    return records.read_one if kind.full_name == record else records.read_many


def _written_view(exchange: Exchange, dataset: Dataset) -> View | None:
    """The View of what the call would do; None if the caller may not: the command refuses it."""
    try:
        return exchange.call.view(dataset, *_ACTIONS.get(exchange.method.name[:6], _BOTH))
    except PermissionDenied:
        return None
