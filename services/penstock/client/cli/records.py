"""Commands on single records and pages: token, datasets, get, list, create, update, delete."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import As, Url, connect_client
from penstock.client.cli.failures import Failure

if TYPE_CHECKING:
    from penstock.client.dataset import DatasetClient

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="As customers.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The record's key.")]
Fields = Annotated[
    str, typer.Option("--fields", help="Field paths with commas, as name,billing_address.city.")
]
Filter = Annotated[
    str, typer.Option("--filter", help="Which records (AIP-160), as 'status = \"ACTIVE\"'.")
]
OrderBy = Annotated[str, typer.Option("--order-by", help="In which order, as 'name desc'.")]
Data = Annotated[
    str, typer.Option("--data", help="The record in JSON; by default from standard input.")
]
RequestId = Annotated[
    str,
    typer.Option(
        "--request-id",
        help="Best a UUID: the same command again within 24 hours changes nothing more.",
    ),
]
ValidateOnly = Annotated[
    bool, typer.Option("--validate-only", help="Check everything, write nothing.")
]
Etag = Annotated[str, typer.Option("--etag", help="Only if the record still has this etag.")]

#: Columns of a table unless --fields names others.
_COLUMNS = 6


class Shape(StrEnum):
    """How records are printed."""

    table = "table"
    json = "json"
    ndjson = "ndjson"


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command("token")(print_token)
    app.command("datasets")(show_datasets)
    app.command("get")(print_record)
    app.command("create")(create_record)
    app.command("update")(update_record)
    app.command("delete")(delete_record)
    app.command("list")(list_records)


def print_token(
    url: Url = "",
    consumer: As = "",
    scope: Annotated[
        str, typer.Option(help="What to narrow it to, as 'customers:read orders:*'.")
    ] = "",
) -> None:
    """Print an access token, for use as 'authorization: Bearer …'."""
    with connect_client(url, consumer, scope) as client, wrong_arguments():
        typer.echo(client.access_token())


def show_datasets(
    url: Url = "",
    consumer: As = "",
    fields: Annotated[bool, typer.Option("--fields", help="Show the fields as well.")] = False,
) -> None:
    """Show the datasets and what you may do with them."""
    from penstock.client.cli.tables import print_table

    with connect_client(url, consumer) as client:
        found = client.datasets()
    if not fields:
        rows = [[d.name, d.title, ", ".join(d.actions), str(len(d.fields))] for d in found]
        print_table(["dataset", "title", "actions", "fields"], rows)
        return
    rows = [
        [f"{d.name}.{f.path}", f.Type.Name(f.type), _describe_field(f), f.description]
        for d in found
        for f in d.fields
    ]
    print_table(["field", "type", "", "meaning"], rows)


def print_record(
    dataset: Dataset, key: Key, fields: Fields = "", url: Url = "", consumer: As = ""
) -> None:
    """Print one record as JSON."""
    with connect_client(url, consumer) as client:
        record = client.dataset(dataset).get(key, fields=fields)
    _print_json(record, fields)


def list_records(
    dataset: Dataset,
    filter: Filter = "",
    order_by: OrderBy = "",
    fields: Fields = "",
    page_size: Annotated[int, typer.Option(min=0, help="Records in one call.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Records in all; 0 is no limit.")] = 100,
    format: Annotated[Shape, typer.Option(help="How they are printed.")] = Shape.table,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Print records, by default 100.

    Each page sees what is committed when it is read. To get many records, use export.
    """
    with connect_client(url, consumer) as client:
        source = client.dataset(dataset)
        found = source.list(
            filter=filter,
            order_by=order_by,
            fields=fields,
            page_size=page_size or min(limit, 1000),
        )
        _print_records(source, islice(found, limit or None), fields, format)


def create_record(
    dataset: Dataset,
    data: Data = "",
    validate_only: ValidateOnly = False,
    request_id: RequestId = "",
    url: Url = "",
    consumer: As = "",
) -> None:
    """Create a record from JSON, and print it."""
    with connect_client(url, consumer) as client, wrong_arguments():
        target = client.dataset(dataset)
        record = _parse_record(data)
        _print_json(target.create(record, validate_only=validate_only, request_id=request_id))


def update_record(
    dataset: Dataset,
    key: Key,
    data: Data = "",
    mask: Annotated[
        str, typer.Option(help="Fields to change, with commas; by default those in the data.")
    ] = "",
    etag: Etag = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Create the record if there is none.")
    ] = False,
    validate_only: ValidateOnly = False,
    request_id: RequestId = "",
    url: Url = "",
    consumer: As = "",
) -> None:
    """Change fields of a record to those in JSON, and print it.

    A null sets the field to null.
    """
    with connect_client(url, consumer) as client, wrong_arguments():
        target = client.dataset(dataset)
        record = {**_parse_record(data), target.key: key}
        changed = target.update(
            record,
            mask.split(",") if mask else None,
            etag=etag,
            allow_missing=allow_missing,
            validate_only=validate_only,
            request_id=request_id,
        )
        _print_json(changed)


def delete_record(
    dataset: Dataset,
    key: Key,
    etag: Etag = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Succeed if there is none.")
    ] = False,
    validate_only: ValidateOnly = False,
    request_id: RequestId = "",
    url: Url = "",
    consumer: As = "",
) -> None:
    """Delete a record."""
    with connect_client(url, consumer) as client:
        client.dataset(dataset).delete(
            key,
            etag=etag,
            allow_missing=allow_missing,
            validate_only=validate_only,
            request_id=request_id,
        )


@contextmanager
def wrong_arguments() -> Iterator[None]:
    """Turns the SDK's argument errors into failures. Only for blocks that print no tables."""
    try:
        yield
    except ValueError as error:
        raise Failure(str(error)) from None


def _describe_field(field: Any) -> str:
    """Special properties of a field, such as "INTERNAL, nullable"."""
    from penstock.options.v1 import options_pb2

    facts = [options_pb2.FieldClass.Name(getattr(field, "class"))]
    facts += ["nullable"] * field.nullable + ["output only"] * field.output_only
    if field.mask:
        facts.append(f"mask {field.Mask.Name(field.mask).lower()}")
    return ", ".join(facts)


def _parse_record(data: str) -> dict[str, Any]:
    if not data and sys.stdin.isatty():
        raise Failure("the record is missing: give it with --data or on standard input")
    text = data or sys.stdin.read()
    try:
        record = json.loads(text)
    except ValueError as error:
        raise Failure(f"the record is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise Failure("the record must be a JSON object")
    return record


def _print_json(record: Any, fields: str = "") -> None:
    from penstock.client.record import to_dict

    typer.echo(json.dumps(to_dict(record, fields.split(",")), ensure_ascii=False, indent=2))


def _print_records(source: DatasetClient, found: Iterable[Any], fields: str, format: Shape) -> None:
    from penstock.client.record import to_dict

    paths = fields.split(",")
    if format is Shape.ndjson:
        for record in found:
            typer.echo(json.dumps(to_dict(record, paths), ensure_ascii=False))
    elif format is Shape.json:
        dicts = [to_dict(record, paths) for record in found]
        typer.echo(json.dumps(dicts, ensure_ascii=False, indent=2))
    else:
        from penstock.client.cli.tables import columns_of, print_table

        records = list(found)
        columns = columns_of(source.record_class, paths, _COLUMNS)
        print_table([c.title for c in columns], ([c.text(r) for c in columns] for r in records))
