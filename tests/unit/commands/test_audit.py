"""Commands of the audit: who may ask, and that each question is recorded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from fake_organs import HubLike
from penstockd.audit.disclosure import DisclosureQuestion
from penstockd.audit.search import Span
from penstockd.commands.audit.export_entries import export_entries
from penstockd.commands.audit.get_checkpoint import get_checkpoint
from penstockd.commands.audit.list_disclosures import list_disclosures
from penstockd.commands.audit.list_entries import list_entries
from penstockd.commands.audit.verify_entries import verify_entries
from penstockd.errors import ClientStalled, DatabaseUnavailable, PermissionDenied, ValueInvalid

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def test_list_entries(hub: HubLike) -> None:
    found, token, archived = await list_entries(hub, call := hub.call(), "", Span(NOW), 0, "")
    assert (found, token, archived, call.entry.row_count) == ([], "", None, 0)
    assert "2026-03-01" in (call.entry.query or "")
    with pytest.raises(ValueInvalid):
        await list_entries(hub, hub.call(), "", Span(NOW, NOW - timedelta(days=1)), 0, "")


async def test_list_disclosures(hub: HubLike) -> None:
    question = DisclosureQuestion("customers", "c1")
    found, token, archived = await list_disclosures(hub, call := hub.call(), question, 0, "")
    assert (found, token, archived) == ([], "", None)
    assert (call.entry.dataset, call.entry.record_key) == ("customers", "c1")
    with pytest.raises(ValueInvalid) as raised:
        await list_disclosures(hub, hub.call(), DisclosureQuestion("", ""), 0, "")
    assert [v.field for v in raised.value.violations] == ["dataset", "record_key"]


async def test_get_checkpoint_before_the_first(hub: HubLike) -> None:
    with pytest.raises(DatabaseUnavailable):
        await get_checkpoint(hub, hub.call())


async def test_export_entries(hub: HubLike) -> None:
    pieces: list[bytes] = []

    async def send(piece: bytes) -> None:
        pieces.append(piece)

    call = hub.call()
    call.recorded = True  # set by the first piece
    await export_entries(hub, call, "2026-03-01", "", send)
    assert b"".join(pieces).endswith(b'{"end":{"entries":0}}\n')
    assert [e.outcome for e in hub.journal.entries] == ["OK"]
    with pytest.raises(ValueInvalid):
        await export_entries(hub, hub.call(), "yesterday", "", send)


async def test_export_entries_to_a_client_that_takes_nothing(hub: HubLike) -> None:
    async def send(_: bytes) -> None:
        await asyncio.Event().wait()

    call = hub.call()
    call.recorded = True
    with pytest.raises(ClientStalled):
        await export_entries(hub, call, "", "", send)
    assert [e.outcome for e in hub.journal.entries] == [ClientStalled.reason]


async def test_verify_entries_takes_a_permission_before_it_reads(make_hub: Any) -> None:
    hub = make_hub()
    hub.audit_file = SimpleNamespace()  # reading it fails
    with pytest.raises(PermissionDenied):
        await verify_entries(hub, hub.call())
    assert hub.database.connected.statements == []


async def test_verify_entries_without_a_file(hub: HubLike) -> None:
    def missing() -> Any:
        raise FileNotFoundError

    hub.audit_file = SimpleNamespace(read=missing, path="checkpoints")
    hub.give({"count(*) FILTER": [(0, 0)], "sum(last_sequence)": [(0,)], "SELECT now()": [(NOW,)]})
    report, archived = await verify_entries(hub, call := hub.call())
    assert archived is None and report.entries == 0 == call.entry.row_count
