"""Repair: what a caller must write and delete so that its copy matches the dataset."""

from __future__ import annotations

from penstockd.audit.given import given_records
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.catalog.keys import key_paths
from penstockd.digests.comparison import DigestComparison
from penstockd.digests.repair import Repair, Repaired, RepairReply, check_ranges, find_repair
from penstockd.digests.state import held_state
from penstockd.hub import Hub
from penstockd.policy.view import View


async def repair_records(hub: Hub, call: Call, dataset: Dataset, repair: Repair) -> RepairReply:
    """Compare the caller's ranges with the records of one state.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid, RequestTooLarge, StateGone,
    RecordUnreadable.
    """
    comparison = DigestComparison.of(hub.catalog, call, dataset, repair.filter, repair.fields)
    call.asked(filter=repair.filter, fields=repair.fields, ranges=len(repair.ranges))
    check_ranges(repair.ranges)
    owner = call.entry.consumer_id or ""
    async with held_state(hub.states, hub.page_tokens, owner, repair.state) as (held, state):
        found = await find_repair(hub.database, comparison, held, repair.ranges)
        cursor = hub.places.seal(held.cursor)
    unequal = len(found.keys) + len(found.deletes)
    # What the scorecard counts (see ``metering.checks``), zeros included.
    call.asked(
        compared=str(found.rows),
        differing=str(unequal + len(found.differing)),
        unequal_records=str(unequal),
    )
    await _disclose_repair(call, comparison.view, repair.fields, found)
    return RepairReply(found, cursor, state, comparison.view_id)


async def _disclose_repair(call: Call, view: View, fields: str, found: Repaired) -> None:
    """Disclose the records shown, and the keys where ranges begin, without those records."""
    name = view.dataset.name
    await call.disclose(given_records(name, call.rule(view, fields), found.keys))
    starts = [r.start for r in found.differing if r.start]
    rule = call.rule(view, key_paths(view.dataset))
    await call.disclose_part(given_records(name, rule, starts))
