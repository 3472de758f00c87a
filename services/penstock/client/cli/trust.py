"""Commands on trusted keys and issuers: ``penstock keys`` and ``penstock issuers``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import As, Url, connect_client
from penstock.client.cli.failures import Failure

if TYPE_CHECKING:
    from penstock.client.client import Client

IssuerId = Annotated[str, typer.Argument(metavar="ISSUER", help="Its id, as entra.")]
Data = Annotated[
    str,
    typer.Option("--data", help="The issuer in JSON; by default from standard input."),
]


def register(app: typer.Typer) -> None:
    """Adds the two groups of commands to the app."""
    keys = typer.Typer(help="Show and replace the keys that sign tokens.", no_args_is_help=True)
    keys.command("list")(list_keys)
    keys.command("rotate")(rotate_keys)
    app.add_typer(keys, name="keys")
    issuers = typer.Typer(
        help="Say which issuers outside the hub may say who calls.", no_args_is_help=True
    )
    issuers.command("list")(list_issuers)
    issuers.command("get")(get_issuer)
    issuers.command("create")(create_issuer)
    issuers.command("update")(update_issuer)
    issuers.command("delete")(delete_issuer)
    app.add_typer(issuers, name="issuers")


def list_keys(url: Url = "", consumer: As = "") -> None:
    """Show the signing keys, the newest first."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client(url, consumer) as client:
        request = issuers_pb2.ListSigningKeysRequest()
        _print_keys(client.call(_open_keys(client).ListSigningKeys, request, safe=True).keys)


def rotate_keys(
    url: Url = "",
    consumer: As = "",
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="A key may be in wrong hands: all tokens that were signed so far are void.",
        ),
    ] = False,
) -> None:
    """Let another key sign, a minute after its publication; tokens stay valid."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client(url, consumer) as client:
        request = issuers_pb2.RotateSigningKeysRequest(now=now)
        _print_keys(client.call(_open_keys(client).RotateSigningKeys, request, safe=False).keys)


def list_issuers(url: Url = "", consumer: As = "") -> None:
    """Show the issuers."""
    from penstock.client.cli.tables import print_table
    from penstock.hub.v1 import issuers_pb2

    with connect_client(url, consumer) as client:
        request = issuers_pb2.ListIssuersRequest()
        found = client.call(_open_issuers(client).ListIssuers, request, safe=True).issuers
    rows = [
        [i.issuer_id, i.issuer, "yes" if i.active else "no", i.consumer_id or i.consumer_claim]
        for i in found
    ]
    print_table(["issuer", "iss", "active", "consumer"], rows)


def get_issuer(issuer: IssuerId, url: Url = "", consumer: As = "") -> None:
    """Print one issuer as JSON."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client(url, consumer) as client:
        request = issuers_pb2.GetIssuerRequest(issuer_id=issuer)
        _print_json(client.call(_open_issuers(client).GetIssuer, request, safe=True))


def create_issuer(issuer: IssuerId, data: Data = "", url: Url = "", consumer: As = "") -> None:
    """Trust an issuer, and print it.

    The data has the form of `penstock issuers get`: issuer, jwksUri and audiences at least, and
    consumerId or consumerClaim.
    """
    from penstock.hub.v1 import issuers_pb2

    request = issuers_pb2.CreateIssuerRequest(issuer=_make_issuer(issuer, _parse_issuer(data)))
    with connect_client(url, consumer) as client:
        _print_json(client.call(_open_issuers(client).CreateIssuer, request, safe=False))


def update_issuer(issuer: IssuerId, data: Data = "", url: Url = "", consumer: As = "") -> None:
    """Change the parts of an issuer that the JSON data names, and print it.

    `--data '{"active": false}'` refuses its tokens.
    """
    from penstock.hub.v1 import issuers_pb2

    given = _parse_issuer(data)
    fields = issuers_pb2.Issuer.DESCRIPTOR.fields
    request = issuers_pb2.UpdateIssuerRequest(issuer=_make_issuer(issuer, given))
    # Members that are present change, to an empty value too.
    named = [f.name for f in fields if f.name in given or f.json_name in given]
    request.update_mask.paths.extend(named)
    with connect_client(url, consumer) as client:
        _print_json(client.call(_open_issuers(client).UpdateIssuer, request, safe=False))


def delete_issuer(issuer: IssuerId, url: Url = "", consumer: As = "") -> None:
    """Delete an issuer: from then on its tokens are refused."""
    from penstock.hub.v1 import issuers_pb2

    with connect_client(url, consumer) as client:
        request = issuers_pb2.DeleteIssuerRequest(issuer_id=issuer)
        client.call(_open_issuers(client).DeleteIssuer, request, safe=False)


def _open_keys(client: Client) -> Any:
    from penstock.hub.v1 import issuers_pb2_grpc

    return issuers_pb2_grpc.SigningKeysStub(client.channel)


def _open_issuers(client: Client) -> Any:
    from penstock.hub.v1 import issuers_pb2_grpc

    return issuers_pb2_grpc.IssuersStub(client.channel)


def _print_keys(keys: Any) -> None:
    from penstock.client.cli.tables import print_table

    rows = [
        [
            key.key_id,
            key.State.Name(key.state).lower(),
            key.sign_time.ToJsonString(),
            key.retire_time.ToJsonString() if key.HasField("retire_time") else "",
        ]
        for key in keys
    ]
    print_table(["key", "state", "signs from", "retires"], rows)


def _parse_issuer(data: str) -> dict[str, Any]:
    if not data and sys.stdin.isatty():
        raise Failure("the issuer is missing: give it with --data or on standard input")
    try:
        given = json.loads(data or sys.stdin.read())
    except ValueError as error:
        raise Failure(f"the issuer is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise Failure("the issuer must be a JSON object")
    return given


def _make_issuer(issuer_id: str, given: dict[str, Any]) -> Any:
    from google.protobuf import json_format

    from penstock.hub.v1 import issuers_pb2

    try:
        issuer = json_format.ParseDict(given, issuers_pb2.Issuer())
    except json_format.ParseError as error:
        raise Failure(f"the data is no issuer: {error}") from None
    issuer.issuer_id = issuer_id
    return issuer


def _print_json(message: Any) -> None:
    from google.protobuf import json_format

    shown = json_format.MessageToDict(message)
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=2))
