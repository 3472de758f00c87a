"""Digest: the content of a dataset, as digests of ranges of keys."""

from __future__ import annotations

from dataclasses import replace

from penstockd.audit.given import given_records
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.catalog.keys import key_paths
from penstockd.digests.comparison import DigestComparison
from penstockd.digests.parts import Asked, DigestReply, RangeCutter, digest_parts
from penstockd.digests.state import check_state, held_state
from penstockd.hub import Hub


async def digest_records(hub: Hub, call: Call, dataset: Dataset, asked: Asked) -> DigestReply:
    """Cut a range of keys into ranges and return their digests, all of one state.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid, StateGone, RecordUnreadable.
    """
    comparison = DigestComparison.of(hub.catalog, call, dataset, asked.filter, asked.fields)
    call.asked(**asked.said)
    asked.check()
    owner = call.entry.consumer_id or ""
    if call.headers_only:
        check_state(hub.page_tokens, owner, asked.state)
        return DigestReply([], "", "", asked.state, comparison.view_id)
    async with held_state(hub.states, hub.page_tokens, owner, asked.state) as (held, state):
        found, next_key = await digest_parts(hub.database, comparison, held, asked)
        cursor = hub.places.seal(held.cursor)
    await _disclose_keys(call, comparison, found)
    return DigestReply(found.ranges, next_key, cursor, state, comparison.view_id)


async def _disclose_keys(call: Call, comparison: DigestComparison, found: RangeCutter) -> None:
    """Disclose keys only: a digest names keys and shows no other values."""
    view = comparison.view
    keys = [r.start for r in found.ranges if r.start] if not found.keys else found.keys
    given = given_records(view.dataset.name, call.rule(view, key_paths(view.dataset)), keys)
    await call.disclose(replace(given, count=sum(r.count for r in found.ranges)))
