"""Options that every command takes, before or after its name: who calls which hub, and the format.

They are defined once, here, and added to the root, to every group and to every command, so that
``penstock --as crm list customers`` and ``penstock list customers --as crm`` are the same. The one
nearest to the end of the line counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from penstock.client.cli.failures import Failure


class Format(StrEnum):
    """How a command prints its results."""

    table = "table"
    json = "json"
    csv = "csv"
    yaml = "yaml"
    ndjson = "ndjson"


#: Formats of files, which commands with a ``--format`` of their own (export, import) take.
FILE_FORMATS = ("csv", "json", "ndjson", "xml", "parquet", "arrow", "xlsx")

#: Environment variables for options and for credentials.
VARIABLES = {
    "consumer": "PENSTOCK_AS",
    "profile": "PENSTOCK_PROFILE",
    "url": "PENSTOCK_URL",
    "format": "PENSTOCK_FORMAT",
    "ca_file": "PENSTOCK_CA_FILE",
    "client_cert": "PENSTOCK_CLIENT_CERT",
    "client_key": "PENSTOCK_CLIENT_KEY",
    "client_id": "PENSTOCK_CLIENT_ID",
    "client_secret": "PENSTOCK_CLIENT_SECRET",
    "api_key": "PENSTOCK_API_KEY",
    "token": "PENSTOCK_TOKEN",
}

#: The beginning of the shared options' parameter names: commands have a consumer and a url, too.
_PREFIX = "shared_"

_given: dict[str, str | None] = {}


def given_option(name: str) -> str:
    """The value of a shared option on the command line; "" if it is not there."""
    return _given.get(name) or ""


def read_variable(name: str) -> str:
    """The value of the environment variable for an option or a credential; "" if it is not set."""
    return os.environ.get(VARIABLES[name], "")


def chosen_format(default: Format) -> Format:
    """The format that the option, or else the environment, asks for. Raises Failure."""
    text = given_option("format") or read_variable("format")
    try:
        return Format(text.lower()) if text else default
    except ValueError:
        raise Failure(f"unknown format '{text}'; there are {', '.join(Format)}") from None


def share_options(command: Any) -> Any:
    """Add the shared options to a command and to all below it; return the command."""
    app = typer.Typer(add_completion=False)
    app.command()(_declare_options)
    shared = [p for p in typer.main.get_command(app).params if p.name != "help"]
    for _, each in walk_commands(command):
        taken = {text for parameter in each.params for text in getattr(parameter, "opts", ())}
        each.params.extend(p for p in shared if not taken & set(p.opts))
    return command


def walk_commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each with the words that name it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk_commands(child, *path, name)


def _keep_option(
    context: typer.Context, parameter: typer.CallbackParam, value: str | None
) -> str | None:
    name = (parameter.name or "").removeprefix(_PREFIX)
    if name == "format" and value is not None:
        known = [*Format, *(FILE_FORMATS if context.parent is None else ())]
        if value.lower() not in known:
            raise typer.BadParameter(f"'{value}' is not one of {', '.join(Format)}")
    # The root is read first, in every run.
    if context.parent is None or value is not None:
        _given[name] = value
    return value


def _complete_consumer(incomplete: str) -> list[str]:
    from penstock.client.cli.demo import demo_consumers

    return [name for name in demo_consumers() if name.startswith(incomplete)]


def _complete_profile(incomplete: str) -> list[str]:
    from penstock.client.cli.profiles import read_profiles

    return [name for name in read_profiles().profiles if name.startswith(incomplete)]


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in Format if name.startswith(incomplete)]


def _declare_options(
    shared_consumer: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="CONSUMER",
            callback=_keep_option,
            expose_value=False,
            autocompletion=_complete_consumer,
            help="Call as this consumer of the demo on this machine: admin, crm or bi.",
        ),
    ] = None,
    shared_profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            callback=_keep_option,
            expose_value=False,
            autocompletion=_complete_profile,
            help="Call with this profile (see penstock login) instead of the current one.",
        ),
    ] = None,
    shared_url: Annotated[
        str | None,
        typer.Option(
            "--url",
            callback=_keep_option,
            expose_value=False,
            help="The hub's address; by default that of the profile or of the demo here.",
        ),
    ] = None,
    shared_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            callback=_keep_option,
            expose_value=False,
            autocompletion=_complete_format,
            metavar="|".join(Format),
            help="How results are printed.",
        ),
    ] = None,
    shared_ca_file: Annotated[
        str | None,
        typer.Option(
            "--ca-file",
            callback=_keep_option,
            expose_value=False,
            help="PEM file of the authorities that the hub's certificate must come from.",
        ),
    ] = None,
    shared_client_cert: Annotated[
        str | None,
        typer.Option(
            "--client-cert",
            callback=_keep_option,
            expose_value=False,
            help="PEM file of the certificate to present to the hub.",
        ),
    ] = None,
    shared_client_key: Annotated[
        str | None,
        typer.Option(
            "--client-key",
            callback=_keep_option,
            expose_value=False,
            help="PEM file of its private key, if it is not in the same file.",
        ),
    ] = None,
) -> None:
    """The shared options; this function is never called."""
