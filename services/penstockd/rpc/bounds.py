"""How large the fields of requests may be: one table by field name, and defaults for the others.

Counts are checked before contents, see ``reading``. Limits of a *record* are in the model
(``buf.validate``) and are checked with its values; only limits outside of records are here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstockd.commands.batch_upsert import MAX_RECORDS
from penstockd.digests.parts import MAX_RECORDS as MAX_DIGESTS
from penstockd.digests.repair import MAX_RANGES
from penstockd.webhooks.owners import MAX_HEADERS, MAX_RETRIES, MAX_SELECTIONS
from penstockd.webhooks.pulling import MAX_DELIVERIES
from penstockd.writes.incoming import MAX_ELEMENTS

#: The most bytes of a request without records or a file.
MESSAGE = 1024 * 1024
#: The most bytes of a request with records or a file; larger files come in chunks.
LARGE_MESSAGE = 17 * 1024 * 1024
#: The most bytes of a string, and of bytes.
TEXT = 16 * 1024
#: The most items of a repeated field, and pairs of a map.
ITEMS = 1000

_HUB = "penstock.hub.v1."
_RECORDS = "penstock.model.v1."

#: Exceptions from TEXT and ITEMS.
FIELDS: Mapping[str, int] = {
    _HUB + "Webhook.selections": MAX_SELECTIONS,
    _HUB + "Webhook.headers": MAX_HEADERS,
    _HUB + "WebhookOptions.retry_seconds": MAX_RETRIES,
    _HUB + "AcknowledgeDeliveriesRequest.outcomes": MAX_DELIVERIES,
    _HUB + "RangeDigest.records": MAX_DIGESTS,
    "google.api.HttpBody.data": LARGE_MESSAGE,
    # Each column of a table, of which PostgreSQL allows 1,600, and each message around them.
    "google.protobuf.FieldMask.paths": 3200,
}
#: Exceptions for the methods of datasets, by the ends of their names.
DATASET_FIELDS: Mapping[str, int] = {
    "Repair": MAX_RANGES,
    "BatchUpsert": MAX_RECORDS,
}


def is_record(message: Descriptor | None) -> bool:
    """Whether a message is a record of a dataset or a part of one."""
    return message is not None and message.full_name.startswith(_RECORDS)


def in_record(field: FieldDescriptor) -> bool:
    """Whether a field belongs to a record or to a part of one."""
    return is_record(field.containing_type)


@functools.cache
def limit_of(field: FieldDescriptor) -> int:
    """The most items, pairs or bytes that a field may hold."""
    if in_record(field):
        return MAX_ELEMENTS if field.is_repeated else LARGE_MESSAGE
    if (known := FIELDS.get(field.full_name)) is not None:
        return known
    if not field.is_repeated:
        return TEXT
    owner = field.containing_type
    assert owner is not None, "a field of a message is in one"
    for prefix, most in DATASET_FIELDS.items():
        if owner.name.startswith(prefix) and field.message_type is not None:
            return most
    return ITEMS


@functools.cache
def message_limit(message: Descriptor) -> int:
    """The most bytes that a request may have: more if it carries records or a file."""
    return LARGE_MESSAGE if _carries_much(message, frozenset()) else MESSAGE


def _carries_much(message: Descriptor, seen: frozenset[str]) -> bool:
    if is_record(message) or message.full_name in ("google.api.HttpBody", _HUB + "RangeDigest"):
        return True
    seen |= {message.full_name}
    return any(
        f.message_type is not None
        and f.message_type.full_name not in seen
        and _carries_much(f.message_type, seen)
        for f in message.fields
    )
