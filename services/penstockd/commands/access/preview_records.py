"""Preview: the first records of a dataset as somebody else sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from penstockd.calls import Call
from penstockd.catalog import Field
from penstockd.commands.access.reach import check_reads
from penstockd.commands.access.subject import Subject, known_dataset
from penstockd.commands.list_records import Query, page_size, read_page
from penstockd.hub import Hub
from penstockd.policy.model import Action, Permission
from penstockd.query import parse_fields

DEFAULT_RECORDS = 10
MAX_RECORDS = 100


@dataclass(frozen=True, slots=True)
class Preview:
    """Records, the fields that they have, whether there are more, and the policy revision."""

    records: Sequence[Message]
    fields: Sequence[Field]
    more: bool
    revision: int


async def preview_records(
    hub: Hub, call: Call, dataset_name: str, subject: Subject, query: Query
) -> Preview:
    """The records that the subject's list would begin with; the audit says as whom.

    The caller must be an administrator, who could give itself the subject's roles: so it is no way
    around its own View. Raises PermissionDenied, also where the subject may not read, and what a
    list raises.
    """
    call.require(Permission.ACCESS_WRITE)
    dataset = known_dataset(hub, call, dataset_name)
    principal, _ = subject.principal(call)
    call.asked(
        consumer_id=subject.consumer_id,
        roles=sorted(principal.roles),
        claims={name: list(values) for name, values in principal.claims.items()},
        filter=query.filter,
        order_by=query.order_by,
        fields=query.fields,
    )
    view = call.policy.view(principal, dataset.name, Action.READ)
    check_reads(call, dataset.name, view.grants)
    size = min(page_size(query.page_size) if query.page_size else DEFAULT_RECORDS, MAX_RECORDS)
    call.entry.dataset = dataset.name
    records, end = await read_page(hub, call, view, query, size, None)
    fields = parse_fields(query.fields, view)
    return Preview(records, fields, end is not None, call.policy.revision)
