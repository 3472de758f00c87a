"""ListDisclosures: who was shown a record."""

from __future__ import annotations

from penstockd.audit.disclosure import Disclosure, DisclosureQuestion, find_shown, name_question
from penstockd.audit.search import Span
from penstockd.audit.stored_archives import ArchivedDays, find_archived
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.model import Permission


async def list_disclosures(
    hub: Hub, call: Call, question: DisclosureQuestion, size: int, token: str
) -> tuple[list[Disclosure], str, ArchivedDays | None]:
    """A page of disclosures, the token of the next page ("" on the last page), and the archived
    days of the time span.

    The record, its field and its dataset need not exist any more, but must have existed: for a
    misspelt name, "nobody" would be a wrong answer. Raises PermissionDenied, ValueInvalid,
    PageTokenInvalid.
    """
    call.require(Permission.AUDIT_READ)
    call.entry.record_key = question.key
    call.entry.dataset = question.dataset
    call.asked(**question.said)
    question.check()
    what = f"audit/disclosures\n{question.dataset}\n{question.key}\n{question.said}"
    paging = Paging(hub.page_tokens, call, what, size, token)
    position = (paging.position[0], paging.position[1]) if paging.position else None
    async with hub.database.connection() as connection:
        known = await name_question(connection, hub.catalog, question)
        found, end = await find_shown(connection, known, paging.size, position)
        archived = await find_archived(connection, *Span(question.start, question.end).days)
    page = paging.fit(found)
    if len(page) < len(found):
        end = page[-1].values["entry_time"], page[-1].values["entry_id"]
    return page, paging.end(page, end), archived
