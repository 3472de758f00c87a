"""Which hub a command calls, and as which consumer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.failures import Failure

if TYPE_CHECKING:
    from penstock.client.client import Client

#: The options that come before the command, see ``declare_certificates``.
_files: dict[str, str] = {}

DEFAULT_URL = "http://127.0.0.1:8080"

#: The name on the package index, where another project is called penstock.
DISTRIBUTION = "penstock-hub"

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="PENSTOCK_URL",
        help=f"The hub's address; by default that of the demo here, or {DEFAULT_URL}.",
    ),
]
As = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="CONSUMER",
        help="A consumer of the demo: admin, crm or bi. By default PENSTOCK_CLIENT_ID and "
        "PENSTOCK_CLIENT_SECRET, PENSTOCK_API_KEY or PENSTOCK_TOKEN are used, and without "
        "these admin.",
    ),
]


def connect_client(url: str, consumer: str, scope: str = "") -> Client:
    """The client that the options and the environment ask for.

    Credentials come from the consumer's entry in the demo's file, from the environment, or, if
    there are none but a demo exists, from the demo's admin. Raises Failure.
    """
    given: dict[str, Any] = {} if consumer else _from_environment()
    demo = {} if given and url else _read_demo()
    if not given:
        given = _find_consumer(demo, consumer)
    from penstock.client.client import Client

    try:
        url = url or demo.get("url") or DEFAULT_URL
        return Client(url, scope=scope, **(given | _files))
    except ValueError as error:
        raise Failure(str(error)) from None


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"penstock {version(DISTRIBUTION)}")
        raise typer.Exit


def declare_certificates(
    ca_file: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_CA_FILE",
            help="PEM file of the authorities that the hub's certificate must come from.",
        ),
    ] = "",
    client_cert: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_CLIENT_CERT",
            help="PEM file of the certificate to show to the hub.",
        ),
    ] = "",
    client_key: Annotated[
        str,
        typer.Option(
            envvar="PENSTOCK_CLIENT_KEY",
            help="PEM file of its private key, if not in the same file.",
        ),
    ] = "",
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Read, write, export and import the datasets of a Penstock data hub."""
    _files.update(ca_file=ca_file, client_cert=client_cert, client_key=client_key)


def demo_file() -> Path:
    """The file with the demo's credentials, in the folder that PENSTOCK_DATA_DIR names."""
    return Path(os.environ.get("PENSTOCK_DATA_DIR") or ".penstock") / "demo.json"


def _from_environment() -> dict[str, str]:
    names = ("client_id", "client_secret", "api_key", "token")
    found = {name: os.environ.get(f"PENSTOCK_{name.upper()}", "") for name in names}
    return {name: value for name, value in found.items() if value}


def _read_demo() -> dict[str, Any]:
    """The content of the demo's file; empty if there is none."""
    path = demo_file()
    try:
        demo = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Failure(f"{path} is damaged: {error}") from None
    if not isinstance(demo, dict) or not isinstance(demo.get("consumers"), dict):
        raise Failure(f"{path} is damaged: it names no consumers")
    return demo


def _find_consumer(demo: dict[str, Any], consumer: str) -> dict[str, str]:
    if not demo:
        if consumer:
            raise Failure(f"--as is for the demo, and there is no {demo_file()}")
        raise Failure(
            "no credentials: set PENSTOCK_CLIENT_ID and PENSTOCK_CLIENT_SECRET, "
            "PENSTOCK_API_KEY or PENSTOCK_TOKEN"
        )
    known = demo["consumers"]
    entry = known.get(consumer or "admin")
    if not isinstance(entry, dict) or not {"client_id", "client_secret"} <= entry.keys():
        names = ", ".join(sorted(known))
        raise Failure(f"{demo_file()} has no consumer '{consumer or 'admin'}'; it has {names}")
    return {name: str(entry[name]) for name in ("client_id", "client_secret")}
