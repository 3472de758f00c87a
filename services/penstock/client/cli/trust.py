"""Commands on trusted keys and issuers: ``penstock keys`` and ``penstock issuers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure, read_document
from penstock.client.cli.printing import print_document, print_rows
from penstock.client.pages import walk_pages

if TYPE_CHECKING:
    from penstock.client.client import Client

IssuerId = Annotated[str, typer.Argument(metavar="ISSUER", help="The issuer's id, such as entra.")]
Data = Annotated[
    str,
    typer.Option("--data", help="The issuer in JSON; by default read from standard input."),
]


def register(app: typer.Typer) -> None:
    """Adds the two groups of commands to the app."""
    keys = typer.Typer(help="Show and replace the keys that sign tokens.", no_args_is_help=True)
    keys.command("list")(list_keys)
    keys.command("rotate")(rotate_keys)
    app.add_typer(keys, name="keys")
    issuers = typer.Typer(
        help="Manage the external issuers whose tokens the hub accepts.", no_args_is_help=True
    )
    issuers.command("list")(list_issuers)
    issuers.command("get")(get_issuer)
    issuers.command("create")(create_issuer)
    issuers.command("update")(update_issuer)
    issuers.command("delete")(delete_issuer)
    app.add_typer(issuers, name="issuers")


def list_keys() -> None:
    """Show the signing keys, the newest first."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client() as client:
        method = _open_keys(client).ListSigningKeys
        _print_keys(_read_all(client, method, issuers_pb2.ListSigningKeysRequest(), "keys"))


def rotate_keys(
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="The key may be compromised: revoke all tokens signed so far.",
        ),
    ] = False,
) -> None:
    """Let another key sign, a minute after its publication; tokens stay valid."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client() as client:
        request = issuers_pb2.RotateSigningKeysRequest(now=now)
        _print_keys(client.call(_open_keys(client).RotateSigningKeys, request, safe=False).keys)


def list_issuers() -> None:
    """Show the issuers."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client() as client:
        method = _open_issuers(client).ListIssuers
        found = _read_all(client, method, issuers_pb2.ListIssuersRequest(), "issuers")
    print_rows(found, ["issuer_id", "issuer", "active", "consumer_id", "consumer_claim"])


def get_issuer(issuer: IssuerId) -> None:
    """Print one issuer, by default as JSON."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client() as client:
        request = issuers_pb2.GetIssuerRequest(issuer_id=issuer)
        print_document(client.call(_open_issuers(client).GetIssuer, request, safe=True))


def create_issuer(issuer: IssuerId, data: Data = "") -> None:
    """Trust an issuer, and print it.

    The data has the form of `penstock issuers get`: issuer, jwksUri and audiences at least, and
    consumerId or consumerClaim.
    """
    from penstock.hub.v1 import issuers_pb2

    request = issuers_pb2.CreateIssuerRequest(
        issuer=_make_issuer(issuer, read_document(data, "issuer"))
    )
    with connect_client() as client:
        print_document(client.call(_open_issuers(client).CreateIssuer, request, safe=False))


def update_issuer(issuer: IssuerId, data: Data = "") -> None:
    """Change the parts of an issuer that the JSON data names, and print it.

    `--data '{"active": false}'` refuses its tokens.
    """
    from penstock.hub.v1 import issuers_pb2

    given = read_document(data, "issuer")
    fields = issuers_pb2.Issuer.DESCRIPTOR.fields
    request = issuers_pb2.UpdateIssuerRequest(issuer=_make_issuer(issuer, given))
    # Members that are present change, to an empty value too.
    named = [f.name for f in fields if f.name in given or f.json_name in given]
    request.update_mask.paths.extend(named)
    with connect_client() as client:
        print_document(client.call(_open_issuers(client).UpdateIssuer, request, safe=False))


def delete_issuer(issuer: IssuerId) -> None:
    """Delete an issuer: from then on its tokens are refused."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client() as client:
        request = issuers_pb2.DeleteIssuerRequest(issuer_id=issuer)
        client.call(_open_issuers(client).DeleteIssuer, request, safe=False)


def _open_keys(client: Client) -> Any:
    from penstock.hub.v1 import issuers_pb2_grpc

    return issuers_pb2_grpc.SigningKeysStub(client.channel)


def _open_issuers(client: Client) -> Any:
    from penstock.hub.v1 import issuers_pb2_grpc

    return issuers_pb2_grpc.IssuersStub(client.channel)


def _read_all(client: Client, method: Any, request: Any, field: str) -> list[Any]:
    """The items of all pages."""
    return [*walk_pages(lambda asked: client.call(method, asked, safe=True), request, field)]


def _print_keys(keys: Any) -> None:
    print_rows(keys, ["key_id", "state", "sign_time", "retire_time"])


def _make_issuer(issuer_id: str, given: dict[str, Any]) -> Any:
    from google.protobuf import json_format

    from penstock.hub.v1 import issuers_pb2

    try:
        issuer = json_format.ParseDict(given, issuers_pb2.Issuer())
    except json_format.ParseError as error:
        raise Failure(f"the data is not an issuer: {error}") from None
    issuer.issuer_id = issuer_id
    return issuer
