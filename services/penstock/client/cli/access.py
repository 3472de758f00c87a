"""Commands of administrators: consumers, credentials, roles, policy."""

from __future__ import annotations

import typer

from penstock.client.cli import access_consumers, access_policy, access_roles


def register(app: typer.Typer) -> None:
    """Adds the groups of commands to the app."""
    for name, group, about in (
        ("consumers", access_consumers.consumers, "The integrations that call the hub."),
        ("credentials", access_consumers.credentials, "The secrets of consumers."),
        ("roles", access_roles.roles, "What consumers may do, by the roles that they have."),
        ("policy", access_policy.policy, "History, rollback, explanations and rehearsals."),
    ):
        app.add_typer(group, name=name, help=about)
