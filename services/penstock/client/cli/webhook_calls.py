"""Shared by commands on webhooks: their options, and how they call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.failures import Failure
from penstock.client.pages import walk_pages

if TYPE_CHECKING:
    from penstock.client.client import Client

Datasets = Annotated[
    list[str] | None,
    typer.Option(
        "--dataset", metavar="DATASET", help="A dataset, such as customers; may be repeated."
    ),
]
Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        metavar="TYPE",
        help="As customer.created, of updated, deleted, entered_view and left_view; may be "
        "repeated. By default all of the datasets.",
    ),
]
Filter = Annotated[str, typer.Option(help="Filter (AIP-160); needs exactly one --dataset.")]
Fields = Annotated[
    str, typer.Option(help="Field paths, separated by commas; needs exactly one --dataset.")
]
ShapeName = Annotated[
    str,
    typer.Option(
        "--shape",
        metavar="SHAPE",
        help="Send records in the columns of this shape (its id, or id@version); needs exactly one"
        " --dataset.",
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME: VALUE", help="A header to send; may be repeated."),
]
Signature = Annotated[str, typer.Option(help="HMAC_SHA256 (v1) or ED25519 (v1a).")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="envelope, body, thin, ordering, batch_size, concurrency, rate, retry_seconds, "
        "notices; may be repeated.",
    ),
]


def call_webhooks(client: Client, method: str, request: Any, *, safe: bool = True) -> Any:
    """The reply of a method; ``safe`` says that the call changes nothing."""
    from penstock.hub.v1 import webhooks_pb2_grpc

    stub = webhooks_pb2_grpc.WebhooksStub(client.channel)
    return client.call(getattr(stub, method), request, safe=safe)


def read_pages(client: Client, method: str, request: Any, field: str) -> Iterator[Any]:
    """The items of all pages."""
    return walk_pages(lambda asked: call_webhooks(client, method, asked), request, field)


def make_selections(
    client: Client,
    datasets: list[str] | None,
    events: list[str] | None,
    filter: str,
    fields: str,
    shape: str,
) -> list[Any]:
    """The selections that the options ask for, by default all datasets that the caller may see."""
    from penstock.hub.v1 import webhooks_pb2 as pb

    known = {_singular_name(d): d.name for d in client.datasets()}
    operations: dict[str, list[str]] = {}
    for event in events or ():
        record, dot, operation = event.partition(".")
        if not dot or record not in known:
            raise Failure(
                f"'{event}' is not a type of event; records are {', '.join(sorted(known))}"
            )
        operations.setdefault(known[record], []).append(operation)
    names = list(dict.fromkeys([*(datasets or ()), *operations])) or sorted(known.values())
    if (filter or fields or shape) and len(names) > 1:
        raise Failure("--filter, --fields and --shape need exactly one --dataset")
    return [
        pb.Selection(
            dataset=n,
            operations=operations.get(n, ()),
            filter=filter,
            fields=fields,
            shape=shape,
        )
        for n in names
    ]


def headers_of(given: list[str] | None) -> dict[str, str]:
    """Headers from options such as ``name: value``."""
    found = {}
    for text in given or ():
        name, colon, value = text.partition(":")
        if not colon:
            raise Failure(f"'{text}' is not a header such as 'authorization: Bearer …'")
        found[name.strip()] = value.strip()
    return found


def options_of(given: Any) -> Any:
    """Options from arguments such as ``name=value``. Raises Failure."""
    from google.protobuf import json_format

    from penstock.hub.v1 import webhooks_pb2 as pb

    document: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        document[name] = value
        if name == "retry_seconds":
            document[name] = value.split(",")
        elif name in ("thin", "notices"):
            document[name] = value.lower() in ("true", "yes", "1")
    try:
        return json_format.ParseDict(document, pb.WebhookOptions())
    except json_format.ParseError as error:
        raise Failure(f"--option: {error}") from None


def _singular_name(dataset: Any) -> str:
    """The record's name as used in event types."""
    from penstock.client.stubs import load_stubs

    name = load_stubs(dataset.name).singular
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
