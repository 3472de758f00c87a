"""Commands on single records and pages: token, datasets, get, list, create, update, delete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure, read_document
from penstock.client.cli.printing import Column, print_document, print_outcome, print_rows

if TYPE_CHECKING:
    from penstock.client.dataset import DatasetClient


def complete_dataset(incomplete: str) -> list[str]:
    """The datasets whose names begin so."""
    from penstock.client.stubs import known_datasets

    return [name for name in known_datasets() if name.startswith(incomplete)]


Dataset = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="The dataset, such as customers.", autocompletion=complete_dataset
    ),
]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The record's key.")]
Fields = Annotated[
    str,
    typer.Option(
        "--fields", help="Field paths separated by commas, such as name,billing_address.city."
    ),
]
Filter = Annotated[
    str, typer.Option("--filter", help="Filter (AIP-160), such as 'status = \"ACTIVE\"'.")
]
OrderBy = Annotated[str, typer.Option("--order-by", help="The order, such as 'name desc'.")]
Data = Annotated[
    str, typer.Option("--data", help="The record in JSON; by default read from standard input.")
]
RequestId = Annotated[
    str,
    typer.Option(
        "--request-id",
        help="An id of the call, such as a UUID: repeating it within 24 hours has no further "
        "effect.",
    ),
]
ValidateOnly = Annotated[
    bool, typer.Option("--validate-only", help="Check everything without writing anything.")
]
Etag = Annotated[str, typer.Option("--etag", help="Only if the record still has this etag.")]

#: Columns of a table unless --fields names others.
_COLUMNS = 6


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
    scope: Annotated[
        str, typer.Option(help="Scopes to narrow the token to, such as 'customers:read orders:*'.")
    ] = "",
) -> None:
    """Print an access token, for use as 'authorization: Bearer …'."""
    with connect_client(scope) as client, wrong_arguments():
        found = client.access_token()
    print_outcome({"token": found}, found)


def show_datasets(
    fields: Annotated[bool, typer.Option("--fields", help="Also show the fields.")] = False,
) -> None:
    """Show the datasets and what you may do with them."""
    with connect_client() as client:
        found = client.datasets()
    if not fields:
        print_rows(found, ["name", "title", "actions", Column("fields", _count_fields)])
        return
    rows = (
        {"dataset": d.name, "path": f.path, "type": f.Type.Name(f.type)} | _describe_field(f)
        for d in found
        for f in d.fields
    )
    print_rows(rows, ["dataset", "path", "type", Column("facts"), "description"])


def print_record(dataset: Dataset, key: Key, fields: Fields = "") -> None:
    """Print one record, by default as JSON."""
    with connect_client() as client:
        record = client.dataset(dataset).get(key, fields=fields)
    _print_record(record, fields)


def list_records(
    dataset: Dataset,
    filter: Filter = "",
    order_by: OrderBy = "",
    fields: Fields = "",
    page_size: Annotated[int, typer.Option(min=0, help="The number of records of one call.")] = 0,
    limit: Annotated[
        int, typer.Option(min=0, help="The most records to return; 0 means no limit.")
    ] = 100,
) -> None:
    """Print records, by default 100.

    Each page sees what is committed when it is read. To get many records, use export.
    """
    with connect_client() as client:
        source = client.dataset(dataset)
        found = source.list(
            filter=filter,
            order_by=order_by,
            fields=fields,
            page_size=page_size or min(limit, 1000),
        )
        _print_records(source, islice(found, limit or None), fields)


def create_record(
    dataset: Dataset,
    data: Data = "",
    validate_only: ValidateOnly = False,
    request_id: RequestId = "",
) -> None:
    """Create a record from JSON, and print it."""
    with connect_client() as client, wrong_arguments():
        target = client.dataset(dataset)
        record = read_document(data, "record")
        _print_record(target.create(record, validate_only=validate_only, request_id=request_id))


def update_record(
    dataset: Dataset,
    key: Key,
    data: Data = "",
    mask: Annotated[
        str,
        typer.Option(help="Fields to change, separated by commas; by default those in the data."),
    ] = "",
    etag: Etag = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Create the record if it does not exist.")
    ] = False,
    validate_only: ValidateOnly = False,
    request_id: RequestId = "",
) -> None:
    """Change fields of a record to those in JSON, and print it.

    A null sets the field to null.
    """
    with connect_client() as client, wrong_arguments():
        target = client.dataset(dataset)
        changed = target.update(
            read_document(data, "record"),
            mask.split(",") if mask else None,
            key=key,
            etag=etag,
            allow_missing=allow_missing,
            validate_only=validate_only,
            request_id=request_id,
        )
        _print_record(changed)


def delete_record(
    dataset: Dataset,
    key: Key,
    etag: Etag = "",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Succeed if the record does not exist.")
    ] = False,
    validate_only: ValidateOnly = False,
    request_id: RequestId = "",
) -> None:
    """Delete a record."""
    with connect_client() as client:
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


def _count_fields(dataset: Mapping[str, Any]) -> str:
    return str(len(dataset.get("fields", ())))


def _describe_field(field: Any) -> dict[str, Any]:
    """Special properties of a field, such as INTERNAL and nullable, and its meaning."""
    from penstock.options.v1 import options_pb2

    facts = [options_pb2.FieldClass.Name(getattr(field, "class"))]
    facts += ["required"] * field.required
    facts += ["nullable"] * field.nullable + ["output only"] * field.output_only
    if field.mask:
        facts.append(f"mask {field.Mask.Name(field.mask).lower()}")
    return {"facts": facts, "description": field.description}


def _print_record(record: Any, fields: str = "") -> None:
    from penstock.client.record_data import to_dict

    print_document(to_dict(record, fields.split(","), model_names=True))


def _print_records(source: DatasetClient, found: Iterable[Any], fields: str) -> None:
    from penstock.client.cli.tables import columns_of
    from penstock.client.record_data import to_dict

    paths = fields.split(",")
    columns = columns_of(source.record_class, paths, _COLUMNS)
    print_rows((to_dict(r, paths, model_names=True) for r in found), columns)
