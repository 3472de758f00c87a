"""ListDisclosures: who was shown a record."""

from __future__ import annotations

from penstockd.audit.disclosure import Disclosure, Question, disclosures
from penstockd.calls import Call
from penstockd.commands.list_records import page_size
from penstockd.errors import ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.policy.model import Permission
from penstockd.query import query_digest


async def list_disclosures(
    hub: Hub, call: Call, question: Question, size: int, token: str
) -> tuple[list[Disclosure], str]:
    """A page of disclosures, and the token of the next, "" on the last.

    What is asked for need not be there any more, neither the record nor its field or dataset.
    Raises PermissionDenied, ValueInvalid, PageTokenInvalid.
    """
    call.require(Permission.AUDIT_READ)
    call.entry.record_key = question.key
    call.entry.dataset = question.dataset
    said = {
        "field": question.field,
        "recipient": question.consumer_id or "",
        "start_time": question.start.isoformat() if question.start is not None else "",
        "end_time": question.end.isoformat() if question.end is not None else "",
    }
    call.asked(**said)
    needed = {"dataset": question.dataset, "record_key": question.key}
    missing = [Violation(name, "is missing") for name, value in needed.items() if not value]
    if missing:
        raise ValueInvalid(f"{missing[0].field} is missing", violations=missing)
    bound = query_digest(
        dataset="/audit/disclosures",
        filter=f"{question.dataset}\n{question.key}",
        order_by=repr(sorted(said.items())),
        fields="",
        scope=call.entry.consumer_id or "",
    )
    after = hub.page_tokens.read(token, bound) if token else None
    position = (after[0], after[1]) if after is not None else None
    async with hub.database.connection() as connection:
        found, end = await disclosures(connection, question, page_size(size), position)
    call.entry.row_count = len(found)
    return found, hub.page_tokens.issue(bound, end) if end is not None else ""
