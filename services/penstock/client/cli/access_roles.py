"""Commands on roles, which are read from and written to files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from penstock.client.cli.access_terms import Comment, DryRun, IfRevision, make_terms
from penstock.client.cli.connection import connect_client
from penstock.client.cli.files import read_document
from penstock.client.cli.printing import Column, print_document, print_rows
from penstock.client.cli.records import wrong_arguments

roles = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

RoleId = Annotated[str, typer.Argument(metavar="ROLE", help="The role's id.")]
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="The role in JSON, or in TOML if the name ends in .toml; - reads JSON from "
        "standard input.",
    ),
]

#: What a file may contain; an update removes what it leaves out.
_PARTS = ("description", "grants", "permissions")


@roles.command("list")
def list_roles() -> None:
    """Show the roles and their permissions."""
    with connect_client() as client:
        found = list(client.access.roles())
    print_rows(found, ["role_id", "description", Column("grants", _format_grants), "permissions"])


@roles.command("get")
def get_role(role_id: RoleId) -> None:
    """Print one role, by default as JSON, in the form that create and update read."""
    with connect_client() as client:
        role = client.access.role(role_id)
    role.ClearField("policy_revision")
    print_document(role)


@roles.command("create")
def create_role(
    file: File,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Create a role from a file, and print it."""
    with connect_client() as client, wrong_arguments():
        role = read_document(file, "role")
        print_document(client.access.create_role(role, make_terms(comment, if_revision, dry_run)))


@roles.command("update")
def update_role(
    file: File,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Replace a role by that of a file, and print it. `policy rehearse` shows the effects first."""
    with connect_client() as client, wrong_arguments():
        changed = client.access.update_role(
            read_document(file, "role"), _PARTS, make_terms(comment, if_revision, dry_run)
        )
        print_document(changed)


@roles.command("delete")
def delete_role(
    role_id: RoleId,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Delete a role that no consumer has."""
    with connect_client() as client:
        client.access.delete_role(role_id, make_terms(comment, if_revision, dry_run))


def _format_grants(role: Mapping[str, Any]) -> str:
    grants = role.get("grants", ())
    return " ".join(f"{g['dataset']}:{','.join(g.get('actions', ()))}" for g in grants)
