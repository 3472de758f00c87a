"""The command ``penstock``.

This module imports only what ``--help`` needs; gRPC and rich's tables load with the command
that uses them.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, NoReturn

import typer

from penstock.client.cli import (
    access,
    audit,
    feeds,
    limits,
    plans,
    records,
    replicas,
    reviews,
    sessions,
    shapes,
    subscriptions,
    transfers,
    trust,
    usage,
    webhooks,
)
from penstock.client.cli.failures import INSTALL_SERVER, report_failures, use_utf_8
from penstock.client.cli.options import share_options
from penstock.client.cli.printing import print_outcome

#: Distributions add commands here: each entry is a callable that takes the typer app.
COMMANDS = "penstock.commands"

#: The name on the package index, where another project is called penstock.
DISTRIBUTION = "penstock-hub"

_SERVER_COMMANDS = {
    "up": "Start the hub.",
    "down": "Stop the hub.",
    "migrate": "Bring the hub's tables up to date.",
    "administrator": "Let a consumer change access.",
    "nodes": "Show the nodes that share the database.",
    "backup": "Back the hub up.",
    "restore": "Restore a backup.",
    "epoch": "Declare that the database was restored or failed over.",
    "cursors": "The keys that seal cursors.",
    "secret": "Rotate the root secret while the hub runs.",
}
#: The server's commands in the group ``audit``.
_SERVER_AUDIT_COMMANDS = {
    "verify": "Prove that nobody has changed the audit.",
    "archive": "Archive old days of the audit to files, and drop them.",
    "archives": "Print the days that were archived.",
}


def build_app() -> Any:
    """The root command: the consumer's commands, and those that other distributions register."""
    app = typer.Typer(
        name="penstock",
        help="Read, write, export and import the datasets of a Penstock data hub.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Coloured help takes half a second longer.
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_run_root)
    sessions.register(app)
    records.register(app)
    transfers.register(app)
    access.register(app)
    audit.register(app)
    trust.register(app)
    feeds.register(app)
    replicas.register(app)
    subscriptions.register(app)
    shapes.register(app)
    plans.register(app)
    limits.register(app)
    usage.register(app)
    reviews.register(app)
    webhooks.register(app)
    # By name: an environment may still hold the distribution under its earlier name.
    found = {entry.name: entry for entry in entry_points(group=COMMANDS)}
    for _, entry in sorted(found.items()):
        _add_commands(app, entry)
    if not found:
        _add_absent(app, f"they come with the server: {INSTALL_SERVER}")
    return share_options(typer.main.get_command(app))


def main() -> NoReturn:
    """Runs the command line and exits: 0 done, 1 failed, 2 used wrongly, 130 interrupted."""
    with report_failures():
        use_utf_8()
        build_app()(prog_name="penstock")
    sys.exit(0)


def _run_root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Read, write, export and import the datasets of a Penstock data hub."""
    if version:
        from importlib.metadata import version as version_of

        number = version_of(DISTRIBUTION)
        print_outcome({"version": number}, f"penstock {number}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")


def _add_commands(app: typer.Typer, entry: EntryPoint) -> None:
    try:
        register = entry.load()
    except ImportError as error:
        # The entry point exists even if the server's libraries are not installed.
        reason = f"{error.name or error} is missing; they come with the server"
        _add_absent(app, f"{reason}: {INSTALL_SERVER}")
        return
    register(app)


def _add_absent(app: typer.Typer, reason: str) -> None:
    """Commands that say what to install, in place of the missing ones."""

    def absent(context: typer.Context) -> None:
        typer.echo(f"error: penstock {context.info_name}: {reason}", err=True)
        raise typer.Exit(1)

    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    for name, about in _SERVER_COMMANDS.items():
        text = f"{about} (needs penstock-hub[server])"
        app.command(name, help=text, context_settings=settings)(absent)
    for name, about in _SERVER_AUDIT_COMMANDS.items():
        text = f"{about} (needs penstock-hub[server])"
        audit.group_of(app).command(name, help=text, context_settings=settings)(absent)
    text = "Prove that usage agrees with the audit (needs penstock-hub[server])"
    usage.group_of(app).command("reconcile", help=text, context_settings=settings)(absent)
