"""Commands of auditors: ``penstock audit`` with list, disclosures, export and checkpoint.

``verify``, ``archive`` and ``archives`` come with the server: they read the database itself.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.printing import Column, print_outcome, print_rows
from penstock.client.cli.records import Dataset, Key

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.hub.v1 import audit_pb2

#: The name of the group; the server adds commands to it.
GROUP = "audit"

Since = Annotated[
    str,
    typer.Option(
        "--since", help="From this day or time on, such as 2025-03-01 or an RFC 3339 time."
    ),
]
Until = Annotated[str, typer.Option("--until", help="Before this day or time.")]
Limit = Annotated[int, typer.Option(min=0, help="At most so many; 0 means no limit.")]


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the app."""
    group = typer.Typer(help="Show and verify what was done and by whom.", no_args_is_help=True)
    group.command("list")(list_entries)
    group.command("disclosures")(list_disclosures)
    group.command("export")(export_audit)
    group.command("checkpoint")(show_checkpoint)
    app.add_typer(group, name=GROUP)


def group_of(app: typer.Typer) -> typer.Typer:
    """The group in an app that it was added to."""
    found = next(g.typer_instance for g in app.registered_groups if g.name == GROUP)
    assert found is not None, "the group was added with an instance"
    return found


def list_entries(
    filter: Annotated[
        str,
        typer.Option(
            "--filter", help="Filter (AIP-160), such as 'outcome = \"PERMISSION_DENIED\"'."
        ),
    ] = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 100,
) -> None:
    """Print entries, the newest first."""
    from penstock.hub.v1 import audit_pb2

    request = audit_pb2.ListEntriesRequest(filter=filter, page_size=min(limit or 1000, 1000))
    _set_times(request, since, until)
    with connect_client() as client:
        entries = _read_pages(client, "ListEntries", request, "entries")
        columns: list[str | Column] = [
            "time", "consumer_id", _METHOD, "dataset", "record_key", "row_count", "outcome",
        ]  # fmt: skip
        print_rows(islice(entries, limit or None), columns)


def list_disclosures(
    dataset: Dataset,
    key: Key,
    field: Annotated[str, typer.Option(help="Only replies that contained this field.")] = "",
    to: Annotated[str, typer.Option(help="Only replies to this consumer.")] = "",
    since: Since = "",
    until: Until = "",
    limit: Limit = 100,
) -> None:
    """Print who was shown a record, the newest first; the record may be gone.

    Certainty: EXACT; PROBABLE, wrong once in a million times; POSSIBLE, for a stream whose end is
    unknown.
    """
    from penstock.hub.v1 import audit_pb2

    request = audit_pb2.ListDisclosuresRequest(
        dataset=dataset,
        record_key=key,
        field=field,
        recipient=to,
        page_size=min(limit or 1000, 1000),
    )
    _set_times(request, since, until)
    with connect_client() as client:
        found = _read_pages(client, "ListDisclosures", request, "disclosures")
        columns: list[str | Column] = [
            "time", "consumer_id", "surface", _METHOD, "format", _FIELDS, "roles", "certainty",
        ]  # fmt: skip
        print_rows(islice(found, limit or None), columns)


def export_audit(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A file, written only as a whole; - is standard output."
        ),
    ] = None,
    since: Annotated[str, typer.Option("--since", help="The first day, such as 2025-03-01.")] = "",
    until: Annotated[str, typer.Option("--until", help="The last day.")] = "",
) -> None:
    """Write a copy of the audit as NDJSON, which can be verified anywhere."""
    from penstock.client.dataset import write_all
    from penstock.client.files import replace_file
    from penstock.hub.v1 import audit_pb2, audit_pb2_grpc

    request = audit_pb2.ExportEntriesRequest(start_day=since, end_day=until)
    with connect_client() as client:
        stub = audit_pb2_grpc.AuditStub(client.channel)
        bodies = client.stream(stub.ExportEntries, request)
        data = (body.data for body in bodies)
        if output is None or str(output) == "-":
            write_all(data, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with replace_file(output) as file:
            size = write_all(data, file)
    typer.echo(f"{output}: {size:,} bytes", err=True)


def show_checkpoint() -> None:
    """Print the newest checkpoint, as a line of the file, and the fingerprint of its key."""
    from penstock.hub.v1 import audit_pb2

    with connect_client() as client:
        newest = _call_audit(client, "GetCheckpoint", audit_pb2.GetCheckpointRequest())
    print_outcome(newest, newest.line)
    typer.echo(f"public key {newest.public_key} {newest.fingerprint}", err=True)


def _call_audit(client: Client, method: str, request: Any) -> Any:
    from penstock.hub.v1 import audit_pb2_grpc

    stub = audit_pb2_grpc.AuditStub(client.channel)
    return client.call(getattr(stub, method), request, safe=True)


def _read_pages(client: Client, method: str, request: Any, field: str) -> Iterator[Any]:
    """The items of all pages; a page may be empty although more follow."""
    while True:
        reply = _call_audit(client, method, request)
        if reply.HasField("archived_days") and not request.page_token:
            _tell_archived(reply.archived_days)
        yield from getattr(reply, field)
        request.page_token = reply.next_page_token
        if not request.page_token:
            return


def _tell_archived(days: audit_pb2.ArchivedDays) -> None:
    """Print which of the requested days the hub has archived and dropped, and where."""
    span = days.first_day
    if days.last_day != span:
        span += f" to {days.last_day}"
    typer.echo(f"not searched, because archived: {span}, in {', '.join(days.places)}", err=True)


def _set_times(request: Any, since: str, until: str) -> None:
    for name, text in (("start_time", since), ("end_time", until)):
        if text:
            getattr(request, name).FromDatetime(_parse_time(text))


def _parse_time(text: str) -> dt.datetime:
    """The time of an option; a day means its start in UTC. Raises Failure."""
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise Failure(
            f"'{text}' is not a day or time such as 2025-03-01 or 2025-03-01T08:00:00Z"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=dt.UTC)


def _shown_fields(disclosure: Mapping[str, Any]) -> str:
    """The fields of a disclosure with their masks, or their number if there are many."""
    masks = disclosure.get("fields", {})
    shown = [p if m == "clear" else f"{p} ({m})" for p, m in sorted(masks.items())]
    return ", ".join(shown) if len(shown) <= 3 else f"{len(shown)} fields"


_METHOD = Column("method", lambda row: str(row.get("method", "")).rpartition("/")[2])
_FIELDS = Column("fields", _shown_fields)
