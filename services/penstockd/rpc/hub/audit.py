"""The audit's service: entries, disclosures, copies and proofs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from penstock.hub.v1 import audit_pb2
from penstockd.audit.checkpoint import fingerprint_key, key_text
from penstockd.audit.disclosure import Disclosure, DisclosureQuestion
from penstockd.audit.search import Found, Span
from penstockd.audit.shown import StoredShown
from penstockd.audit.stored_archives import ArchivedDays
from penstockd.audit.verify import Finding
from penstockd.commands.audit.export_entries import export_entries
from penstockd.commands.audit.get_checkpoint import get_checkpoint
from penstockd.commands.audit.list_disclosures import list_disclosures
from penstockd.commands.audit.list_entries import list_entries
from penstockd.commands.audit.verify_entries import verify_entries
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.files import make_file_sender
from penstockd.rpc.routes import routes_of

_SERVICE = audit_pb2.DESCRIPTOR.services_by_name["Audit"]
_NDJSON = "application/x-ndjson"


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "ListEntries": _list_entries,
            "ListDisclosures": _list_disclosures,
            "VerifyEntries": _verify_entries,
            "GetCheckpoint": _get_checkpoint,
            "ExportEntries": _export_entries,
        },
        documents={"ExportEntries"},
    )


async def _list_entries(
    request: audit_pb2.ListEntriesRequest, call: ServedCall
) -> audit_pb2.ListEntriesResponse:
    found, token, archived = await list_entries(
        call.hub,
        call,
        request.filter,
        Span(_read_time(request, "start_time"), _read_time(request, "end_time")),
        request.page_size,
        request.page_token,
    )
    return audit_pb2.ListEntriesResponse(
        entries=map(_entry_message, found),
        next_page_token=token,
        archived_days=_archived_message(archived),
    )


async def _list_disclosures(
    request: audit_pb2.ListDisclosuresRequest, call: ServedCall
) -> audit_pb2.ListDisclosuresResponse:
    question = DisclosureQuestion(
        request.dataset,
        request.record_key,
        request.field,
        _read_time(request, "start_time"),
        _read_time(request, "end_time"),
        request.recipient or None,
    )
    found, token, archived = await list_disclosures(
        call.hub, call, question, request.page_size, request.page_token
    )
    return audit_pb2.ListDisclosuresResponse(
        disclosures=map(_disclosure_message, found),
        next_page_token=token,
        archived_days=_archived_message(archived),
    )


async def _export_entries(request: audit_pb2.ExportEntriesRequest, call: ServedCall) -> None:
    send = make_file_sender(call.exchange, "audit.ndjson", _NDJSON)
    await export_entries(call.hub, call, request.start_day, request.end_day, send)


async def _verify_entries(
    request: audit_pb2.VerifyEntriesRequest, call: ServedCall
) -> audit_pb2.VerifyEntriesResponse:
    report, archived = await verify_entries(call.hub, call)
    return audit_pb2.VerifyEntriesResponse(
        intact=report.intact,
        findings=map(_finding_message, report.findings),
        entry_count=report.entries,
        unsealed_count=report.unsealed,
        checkpoint_count=report.checkpoints,
        filed_count=report.outside,
        archived_days=_archived_message(archived),
    )


async def _get_checkpoint(
    request: audit_pb2.GetCheckpointRequest, call: ServedCall
) -> audit_pb2.Checkpoint:
    newest = await get_checkpoint(call.hub, call)
    return audit_pb2.Checkpoint(
        number=newest.number,
        time=newest.time,
        day=newest.day.isoformat(),
        sequence=newest.sequence,
        hash=newest.hash.hex(),
        public_key=key_text(newest.public_key),
        fingerprint=fingerprint_key(newest.public_key),
        line=newest.line(),
    )


def _archived_message(days: ArchivedDays | None) -> audit_pb2.ArchivedDays | None:
    return None if days is None else audit_pb2.ArchivedDays(**days.document())


def _entry_message(found: Found) -> audit_pb2.AuditEntry:
    values = {n: v for n, v in found.values.items() if v is not None}
    shown = values.pop("shown", b"").hex()
    time = values.pop("entry_time")
    rule = _rule_message(found.rule) if found.rule is not None else None
    return audit_pb2.AuditEntry(**values, time=time, shown=shown, rule=rule)


def _rule_message(rule: StoredShown) -> audit_pb2.Rule:
    return audit_pb2.Rule(
        dataset=rule.dataset, fields=rule.fields, roles=rule.roles, row_filters=rule.row_filters
    )


def _disclosure_message(found: Disclosure) -> audit_pb2.Disclosure:
    names = (
        "entry_id", "consumer_id", "credential_id", "method", "surface", "policy_revision",
        "receipt_id", "request_id", "peer",
    )  # fmt: skip
    return audit_pb2.Disclosure(
        **{name: found.values[name] for name in names},
        time=found.values["entry_time"],
        format=found.format,
        fields=found.fields,
        roles=found.rule.roles,
        row_filters=found.rule.row_filters,
        certainty=found.certainty.value,
        complete=found.complete,
    )


def _finding_message(finding: Finding) -> audit_pb2.Finding:
    return audit_pb2.Finding(
        fault=finding.fault.value,
        description=finding.description,
        day=finding.day.isoformat() if finding.day is not None else "",
        sequence=finding.sequence,
        entry_id=finding.entry_id,
        checkpoint=finding.checkpoint,
    )


def _read_time(request: Message, name: str) -> dt.datetime | None:
    """A time of a request; None if it is unset. Out of range it is the nearest possible one."""
    if not request.HasField(name):
        return None
    given: Timestamp = getattr(request, name)
    try:
        return given.ToDatetime(dt.UTC)
    except (ValueError, OverflowError):
        edge = dt.datetime.max if given.seconds > 0 else dt.datetime.min
        return edge.replace(tzinfo=dt.UTC)
