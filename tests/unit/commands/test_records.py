"""Commands of datasets: the Views by which they read and write, and what they disclose."""

from __future__ import annotations

import asyncio
import base64
import threading
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from fake_organs import CALLER, HubLike, Row
from penstock.model.v1 import customers_pb2
from penstockd.audit.entry import Entry
from penstockd.auth.token_requests import TokenRefused
from penstockd.budget import run_offloaded
from penstockd.calls import ArrivingCall
from penstockd.catalog import Dataset, FieldClass
from penstockd.commands.batch_upsert import MAX_RECORDS, batch_upsert
from penstockd.commands.create_record import create_record
from penstockd.commands.delete_record import delete_record
from penstockd.commands.digest_records import digest_records
from penstockd.commands.export_page import export_page
from penstockd.commands.get_change_log import get_change_log
from penstockd.commands.get_receipt import get_receipt
from penstockd.commands.get_record import get_record
from penstockd.commands.import_records import import_records
from penstockd.commands.issue_token import issue_token
from penstockd.commands.list_changes import list_changes
from penstockd.commands.list_datasets import list_datasets
from penstockd.commands.list_records import list_records
from penstockd.commands.repair_records import repair_records
from penstockd.commands.stream_export import stream_export
from penstockd.commands.update_record import update_record
from penstockd.commands.watch_changes import watch_changes
from penstockd.commands.xml_schema import xml_schema
from penstockd.digests.parts import Asked
from penstockd.digests.repair import Repair
from penstockd.errors import (
    EtagMismatch,
    ExportNotResumable,
    FormatUnknown,
    ImportTruncated,
    PermissionDenied,
    ReceiptNotFound,
    RecordNotFound,
    RequestTooLarge,
    ValueInvalid,
)
from penstockd.exports.plan import ExportRequest
from penstockd.feed.stream import Watch
from penstockd.feed.watching import Wanted
from penstockd.policy.model import Action, Grant, Mask, Permission, Principal, Role
from penstockd.policy.pages import Query
from penstockd.policy.rendering import render_message
from penstockd.query import FieldUnknown
from penstockd.writes.arrival import ImportLimits
from penstockd.writes.idempotency import Request
from penstockd.writes.uploads import FileForm

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLEAR = dict.fromkeys(FieldClass, Mask.CLEAR)


def role(name: str, *actions: Action, permissions: frozenset[Permission] = frozenset()) -> Role:
    grant = Grant(name, "customers", frozenset(actions), CLEAR, {}, "")
    return Role(name, "", (grant,), permissions)


READER = role("reader", Action.READ)
WRITER = role("writer", Action.CREATE, Action.UPDATE, Action.DELETE)


@pytest.fixture
def customers(catalog: Any) -> Dataset:
    return catalog["customers"]  # type: ignore[no-any-return]


@pytest.fixture
def hub(make_hub: Any) -> HubLike:
    """A hub whose caller reads customers."""
    hub = make_hub(READER)
    hub.give({"FROM data.customers": [("Ada", "c1", 10)]})  # the last is the size in bytes
    return hub


@pytest.fixture
def writing(make_hub: Any) -> HubLike:
    """A hub whose caller writes customers and reads nothing."""
    hub = make_hub(WRITER)
    hub.give({"FROM data.customers": [("7",)], "pg_try_advisory_xact_lock": [(True,)]})
    return hub


def customer(key: str = "c1", **values: Any) -> customers_pb2.Customer:
    return customers_pb2.Customer(customer_id=key, **({"name": "Ada"} | values))


async def test_get_record(hub: HubLike, customers: Dataset) -> None:
    hub.give({"FROM data.customers": [("c1", "Ada")]})
    record: Any = await get_record(
        hub, call := hub.call(), customers, "c1", "name,customer_id", render_message
    )
    assert (record.name, record.customer_id) == ("Ada", "c1")
    assert (call.disclosed, call.entry.record_key, call.entry.row_count) == (1, "c1", 1)
    with pytest.raises(FieldUnknown):
        await get_record(hub, hub.call(), customers, "c1", "no_such_field", render_message)
    hub.give({"FROM data.customers": []})
    with pytest.raises(RecordNotFound):
        await get_record(hub, call := hub.call(), customers, "c1", "", render_message)
    assert call.disclosed is None


async def test_list_records(hub: HubLike, customers: Dataset) -> None:
    query = Query(fields="name", page_size=1)
    records, token = await list_records(hub, call := hub.call(), customers, query, render_message)
    assert ([r.name for r in records], token) == (["Ada"], "")  # type: ignore[attr-defined]
    assert (call.disclosed, call.entry.low_key) == (1, "c1")
    hub.give({"FROM data.customers": [("Ada", "c1", 10), ("Bob", "c2", 10)]})
    _, token = await list_records(hub, hub.call(), customers, query, render_message)
    again = replace(query, page_token=token)
    await list_records(hub, hub.call(), customers, again, render_message)
    assert "c1" in hub.asked("FROM data.customers")[-1]
    with pytest.raises(ValueInvalid):
        await list_records(hub, hub.call(), customers, Query(page_size=-1), render_message)


async def test_list_datasets(hub: HubLike) -> None:
    views = list_datasets(hub, call := hub.call())
    assert [v.dataset.name for v in views] == ["customers"] and call.entry.row_count == 1
    assert list_datasets(hub, hub.call(caller="nobody")) == []


async def test_xml_schema(hub: HubLike) -> None:
    assert b"schema" in xml_schema(hub, hub.call(), "customers")
    for name in ("orders", "nothing"):
        with pytest.raises(PermissionDenied):
            xml_schema(hub, hub.call(), name)


async def test_create_record(writing: HubLike, customers: Dataset) -> None:
    made: Any = await create_record(call := writing.call(), customers, customer(), Request())
    assert [name for name, _ in writing.writer.write.done] == ["upsert"]
    # The reply contains only what the call itself has set: the caller may not read.
    assert (made.name, made.customer_id) == ("Ada", "c1")
    assert call.recorded and call.disclosed == 1 and writing.database.committed == 1


async def test_create_record_that_is_only_validated(writing: HubLike, customers: Dataset) -> None:
    request = Request(validate_only=True)
    await create_record(call := writing.call(), customers, customer(), request)
    assert writing.database.transactions == ["rolled back"] and not call.recorded


async def test_update_record(writing: HubLike, customers: Dataset) -> None:
    call = writing.call()
    changed: Any = await update_record(call, customers, customer(), ["name"], "", Request())
    assert changed.name == "Ada" and call.recorded and call.entry.record_key == "c1"
    assert [name for name, _ in writing.writer.write.done] == ["upsert"]
    writing.writer.write.fails = EtagMismatch("the record has changed")
    with pytest.raises(EtagMismatch):
        await update_record(writing.call(), customers, customer(), ["name"], "", Request())
    assert writing.database.transactions[-1] == "rolled back"


async def test_delete_record(writing: HubLike, customers: Dataset) -> None:
    await delete_record(call := writing.call(), customers, "c1", "", Request())
    ((name, arguments),) = writing.writer.write.done
    assert (name, arguments[1]) == ("delete", "c1") and call.entry.row_count == 1
    writing.writer.write.fails = RecordNotFound("customer 'c1' does not exist")
    with pytest.raises(RecordNotFound):
        await delete_record(writing.call(), customers, "c1", "", Request())
    await delete_record(call := writing.call(), customers, "c1", "", Request(), allow_missing=True)
    assert call.entry.row_count == 0


async def test_batch_upsert_has_a_bound(writing: HubLike, customers: Dataset) -> None:
    with pytest.raises(RequestTooLarge):
        await batch_upsert(writing.call(), customers, [customer()] * (MAX_RECORDS + 1), Request())
    assert writing.database.transactions == []


async def test_a_batch_is_made_before_its_transaction_begins(
    writing: HubLike, customers: Dataset
) -> None:
    """A batch that waits for a thread holds no connection."""
    end = threading.Event()
    others = [asyncio.create_task(run_offloaded(end.wait)) for _ in range(100)]
    await asyncio.sleep(0)
    batch = asyncio.create_task(
        batch_upsert(writing.call(), customers, [customer()] * 20, Request())
    )
    done, _ = await asyncio.wait({batch}, timeout=0.05)
    assert not done and writing.database.transactions == []
    end.set()
    await asyncio.gather(*others)
    # The same key twice: found within the transaction, which has begun by then.
    with pytest.raises(ValueInvalid, match="twice"):
        await batch
    assert len(writing.database.transactions) == 1


class CutOff:
    """An upload that ends before its first chunk."""

    async def pieces(self) -> Any:
        for piece in list[Any]():
            yield piece

    async def confirm_whole(self) -> None:
        raise ImportTruncated("cut off")


async def test_import_records_of_nothing(writing: HubLike, customers: Dataset) -> None:
    with pytest.raises(ImportTruncated):
        await import_records(
            writing,
            writing.call(),
            customers,
            CutOff(),
            Request(),
            FileForm(),
            limits=ImportLimits(1.0),
        )
    assert writing.database.transactions == []


async def test_who_may_not_write_opens_no_transaction(hub: HubLike, customers: Dataset) -> None:
    call, request = hub.call(), Request()
    for work in (
        create_record(call, customers, customer(), request),
        update_record(call, customers, customer(), [], "", request),
        delete_record(call, customers, "c1", "", request),
        batch_upsert(call, customers, [customer()], request),
        import_records(
            hub, call, customers, CutOff(), request, FileForm(), limits=ImportLimits(1.0)
        ),
    ):
        with pytest.raises(PermissionDenied):
            await work
    assert hub.database.transactions == []


async def test_export_page(hub: HubLike, customers: Dataset) -> None:
    hub.give({"FROM data.customers": [], "SELECT count(*) AS count_1": [(0,)]})
    call = hub.call()
    page, token = await export_page(hub, call, customers, Query(fields="name"), "CSV")
    assert page.body.startswith(b"name") and token == "" and call.disclosed == 0
    with pytest.raises(FormatUnknown):
        await export_page(hub, hub.call(), customers, Query(), "DOCX")


async def test_stream_export_sends_nothing_that_is_refused(
    hub: HubLike, customers: Dataset
) -> None:
    reply: Any = SimpleNamespace()  # any use of it fails
    with pytest.raises(FieldUnknown):
        await stream_export(
            hub, hub.call(), customers, ExportRequest("CSV", fields="no_such"), reply
        )
    with pytest.raises((ReceiptNotFound, ExportNotResumable)):
        export = ExportRequest("CSV", resume_receipt="r1")
        await stream_export(hub, hub.call(), customers, export, reply)
    with pytest.raises(PermissionDenied):
        nobody = hub.call(caller="nobody")
        await stream_export(hub, nobody, customers, ExportRequest("CSV"), reply)


async def test_digest_records_checks_what_is_asked(hub: HubLike, customers: Dataset) -> None:
    with pytest.raises(ValueInvalid):
        await digest_records(hub, hub.call(), customers, Asked(parts=-1))
    with pytest.raises(ValueInvalid):  # a state that nobody was given
        await digest_records(hub, hub.call(), customers, Asked(state="made-up"))
    with pytest.raises(PermissionDenied):
        await digest_records(hub, hub.call(caller="nobody"), customers, Asked())


async def test_repair_records_checks_what_is_asked(hub: HubLike, customers: Dataset) -> None:
    with pytest.raises(ValueInvalid):
        await repair_records(hub, hub.call(), customers, Repair([]))
    with pytest.raises(PermissionDenied):
        await repair_records(hub, hub.call(caller="nobody"), customers, Repair([]))


async def test_get_change_log(hub: HubLike) -> None:
    assert (await get_change_log(hub, hub.call())).newest == hub.feed.cursor
    with pytest.raises(PermissionDenied):
        await get_change_log(hub, hub.call(caller="nobody"))


async def test_list_changes_without_a_cursor_gives_the_one_of_now(
    hub: HubLike, customers: Dataset
) -> None:
    page = await list_changes(hub, call := hub.call(), Wanted([customers]), "", 0)
    assert (page.changes, page.more) == (b"", False) and page.next_cursor
    assert call.entry.row_count == 0 and not call.disclosed
    with pytest.raises(ValueInvalid):
        await list_changes(hub, hub.call(), Wanted([customers]), "", 31)


async def test_watch_changes_sends_nothing_that_is_refused(
    hub: HubLike, customers: Dataset
) -> None:
    reply: Any = SimpleNamespace()
    with pytest.raises(ValueInvalid):
        watch = Watch(heartbeat_seconds=-1)
        await watch_changes(hub, hub.call(), Wanted([customers]), watch, reply)
    with pytest.raises(PermissionDenied):
        nobody = hub.call(caller="nobody")
        await watch_changes(hub, nobody, Wanted([customers]), Watch(), reply)


def receipt_row(consumer: str, **changes: Any) -> Row:
    known: dict[str, Any] = {
        "receipt_id": "r1", "request_id": "q", "consumer_id": consumer, "dataset": "customers",
        "format": "CSV", "request_digest": b"", "policy_revision": 7, "cursor": "",
        "start_time": NOW, "state": "COMPLETE", "reason": "", "row_count": 1, "byte_count": 9,
        "sha256": b"s" * 32, "finish_time": NOW, "resume_count": 0, "snapshot": None,
        "record_count": 1, "lossy_cells": "{}",
        "held": False,
    }  # fmt: skip
    return Row.of(**(known | changes))


async def test_get_receipt(hub: HubLike) -> None:
    hub.give({"FROM hub.receipt": [receipt_row(CALLER)]})
    assert (await get_receipt(hub, hub.call(), "r1")).row_count == 1
    with pytest.raises(ReceiptNotFound):  # a token that may not read the records
        await get_receipt(hub, hub.call(scopes=frozenset({"orders:read"})), "r1")
    for rows in ([receipt_row("other")], []):
        hub.give({"FROM hub.receipt": rows})
        with pytest.raises(ReceiptNotFound):
            await get_receipt(hub, hub.call(), "r1")


def test_issue_token(hub: HubLike) -> None:
    principal = Principal("crm", "k7", frozenset({"reader"}))
    hub.credentials.known = {"s3cret": principal}
    hub.tokens.issue = lambda *said: said

    def ask(form: bytes, authorization: str | None = None) -> Any:
        arriving = ArrivingCall(Entry("r", "/token"), hub.policy.current)
        return issue_token(hub, arriving, form, authorization)

    form = b"grant_type=client_credentials&client_id=crm&client_secret=s3cret"
    assert ask(form).access_token == ("crm", "k7", None) and hub.noted == ["k7"]
    narrowed = ask(form + b"&scope=customers:read")
    assert narrowed.access_token[2] == frozenset({"customers:read"})
    basic = base64.b64encode(b"crm:s3cret").decode()
    assert ask(b"grant_type=client_credentials", f"Basic {basic}").scope is None
    for refused, code in (
        (b"grant_type=password", "unsupported_grant_type"),
        (b"", "invalid_request"),
        (b"grant_type=client_credentials", "invalid_client"),
        (form.replace(b"s3cret", b"guess"), "invalid_client"),
        (form.replace(b"=crm", b"=erp"), "invalid_client"),
        (form + b"&scope=orders:delete", "invalid_scope"),
        (form + b"&client_id=crm", "invalid_request"),
    ):
        with pytest.raises(TokenRefused) as raised:
            ask(refused)
        assert raised.value.code == code
