"""Preview: the first records of a dataset as another subject sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from penstockd.access.reach import check_reads
from penstockd.access.subject import Subject, find_dataset
from penstockd.audit.given import given_records
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Action, Permission
from penstockd.policy.pages import Query, read_page
from penstockd.policy.rendering import render_message
from penstockd.policy.view import View
from penstockd.query import page_size

DEFAULT_RECORDS = 10
MAX_RECORDS = 100


@dataclass(frozen=True, slots=True)
class RecordPreview:
    """Records, the View that shows them, whether there are more, and the policy revision."""

    records: Sequence[Message]
    view: View
    more: bool
    revision: int


async def preview_records(
    hub: Hub, call: Call, dataset_name: str, subject: Subject, query: Query
) -> RecordPreview:
    """The first records that the subject would list; the audit entry names the subject.

    The caller must be an administrator, who could grant itself the subject's roles, so this
    bypasses no View. Raises PermissionDenied, also if the subject may not read, and what a list
    raises.
    """
    call.require(Permission.ACCESS_WRITE)
    dataset = find_dataset(hub.catalog, call, dataset_name)
    principal, _ = subject.principal(call)
    claims = {name: list(values) for name, values in principal.claims.items()}
    roles = sorted(principal.roles)
    call.asked(consumer_id=subject.consumer_id, roles=roles, claims=claims, **query.said)
    view = call.policy.view(principal, dataset.name, Action.READ)
    check_reads(call, dataset.name, view.grants)
    size = min(page_size(query.page_size) if query.page_size else DEFAULT_RECORDS, MAX_RECORDS)
    page = await read_page(
        hub.database, view, query, size, render=render_message, surface=call.entry.surface
    )
    await call.disclose(given_records(dataset.name, call.rule(view, query.fields), page.keys))
    return RecordPreview(page.records, view, page.end is not None, call.policy.revision)
