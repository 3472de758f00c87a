"""ListDisclosures: who was shown a record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from penstockd.audit.disclosure import Disclosure, Question, disclosures, ever_shown
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.errors import ValueInvalid
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.model import Permission
from penstockd.store.database import Connection


async def list_disclosures(
    hub: Hub, call: Call, question: Question, size: int, token: str
) -> tuple[list[Disclosure], str]:
    """A page of disclosures, and the token of the next, "" on the last.

    What is asked for need not be there any more, neither the record nor its field or dataset. But
    it must have been: of a name that is misspelt, "nobody" would be a wrong answer. Raises
    PermissionDenied, ValueInvalid, PageTokenInvalid.
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
        known = await _known(hub, connection, question)
        found, end = await disclosures(connection, known, paging.size, position)
    return found, paging.end(found, end)


async def _known(hub: Hub, connection: Connection, question: Question) -> Question:
    """The question in names of the proto. Raises ValueInvalid for one that never was a name."""
    dataset, field = question.dataset, question.field
    if dataset in hub.catalog:
        named = dict(_names(hub.catalog[dataset]))
        if not field or field in named:
            return replace(question, field=named.get(field, ""))
    elif not await ever_shown(connection, dataset, ""):
        raise ValueInvalid.of("dataset", f"'{dataset}' never was one")
    if field and not await ever_shown(connection, dataset, field):
        raise ValueInvalid.of("field", f"'{field}' never was one of {dataset}")
    return question


def _names(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """What the fields of a dataset and the messages that hold them may be called, and the path."""
    for field in dataset.every_field:
        for end in range(1, len(field.steps) + 1):
            path = ".".join(field.steps[:end])
            yield path, path
            yield ".".join(field.json_steps[:end]), path
