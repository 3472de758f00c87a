"""Commands on consumers and their credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from penstock.client.cli.access_terms import (
    Claims,
    Comment,
    DryRun,
    IfRevision,
    Roles,
    claims_of,
    make_terms,
    shown_time,
    span_of,
    time_of,
)
from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.files import read_document
from penstock.client.cli.printing import Column, print_document, print_outcome, print_rows
from penstock.client.cli.records import wrong_arguments

consumers = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
credentials = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Consumer = Annotated[str, typer.Argument(metavar="CONSUMER", help="The consumer's id.")]
CredentialId = Annotated[str, typer.Argument(metavar="CREDENTIAL", help="The credential's id.")]
Title = Annotated[str | None, typer.Option(help="What people call it.")]
Plan = Annotated[str, typer.Option(help="The plan that limits what it may use.")]
LimitsFile = Annotated[
    str,
    typer.Option(
        "--limits",
        metavar="FILE",
        help="Limits of its own, over its plan's: rates, concurrent and quotas in JSON or TOML.",
    ),
]
Expire = Annotated[
    str, typer.Option("--expire", help="When it ends, such as 2027-03-01; never by default.")
]


@consumers.command("list")
def list_consumers() -> None:
    """Show the consumers with their roles."""
    with connect_client() as client:
        found = list(client.access.consumers())
    print_rows(
        found, ["consumer_id", "title", "active", "roles", "plan", Column("claims", _format_claims)]
    )


@consumers.command("get")
def get_consumer(consumer_id: Consumer) -> None:
    """Print one consumer, by default as JSON."""
    with connect_client() as client:
        print_document(client.access.consumer(consumer_id))


@consumers.command("create")
def create_consumer(
    consumer_id: Consumer,
    title: Title = None,
    role: Roles = None,
    claim: Claims = None,
    plan: Plan = "",
    limits: LimitsFile = "",
    inactive: Annotated[
        bool, typer.Option("--inactive", help="The consumer cannot call until it is activated.")
    ] = False,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Create a consumer, and print it. It can call when it has a credential and a role."""
    new = {
        "consumer_id": consumer_id,
        "title": title or "",
        "active": not inactive,
        "roles": role or [],
        "claims": _claims_json(claim),
        "plan": plan,
        "limits": _read_limits(limits),
    }
    with connect_client() as client, wrong_arguments():
        made = client.access.create_consumer(new, make_terms(comment, if_revision, dry_run))
    print_document(made)


@consumers.command("update")
def update_consumer(
    consumer_id: Consumer,
    title: Title = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Whether the consumer may call.")
    ] = None,
    role: Roles = None,
    no_roles: Annotated[bool, typer.Option("--no-roles", help="Remove all its roles.")] = False,
    claim: Claims = None,
    no_claims: Annotated[bool, typer.Option("--no-claims", help="Remove all its claims.")] = False,
    plan: Plan = "",
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Take its plan away.")] = False,
    limits: LimitsFile = "",
    no_limits: Annotated[
        bool, typer.Option("--no-limits", help="Remove the limits of its own.")
    ] = False,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Change a consumer, and print it. Roles, claims and limits are replaced as a whole."""
    change: dict[str, Any] = {}
    if title is not None:
        change["title"] = title
    if active is not None:
        change["active"] = active
    if role or no_roles:
        change["roles"] = role or []
    if claim or no_claims:
        change["claims"] = _claims_json(claim)
    if plan or no_plan:
        change["plan"] = plan
    if limits or no_limits:
        change["limits"] = _read_limits(limits)
    with connect_client() as client, wrong_arguments():
        changed = client.access.update_consumer(
            {"consumer_id": consumer_id, **change},
            list(change),
            make_terms(comment, if_revision, dry_run),
        )
    print_document(changed)


@consumers.command("delete")
def delete_consumer(
    consumer_id: Consumer,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Delete a consumer and all of its credentials."""
    with connect_client() as client:
        client.access.delete_consumer(consumer_id, make_terms(comment, if_revision, dry_run))


@credentials.command("list")
def list_credentials(consumer_id: Consumer) -> None:
    """Show a consumer's credentials; never their secrets."""
    with connect_client() as client:
        found = list(client.access.credentials(consumer_id))
    print_rows(
        found,
        [
            "credential_id",
            "kind",
            "prefix",
            "create_time",
            "expire_time",
            "revoked",
            "last_use_time",
        ],
    )


@credentials.command("issue")
def issue_credential(
    consumer_id: Consumer,
    kind: Annotated[str, typer.Option(help="CLIENT_SECRET or API_KEY.")] = "CLIENT_SECRET",
    expire: Expire = "",
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Issue a credential: prints only its secret on standard output, and only this once."""
    with connect_client() as client:
        issued = client.access.issue_credential(
            consumer_id,
            _kind_of(kind),
            time_of(expire),
            make_terms(comment, if_revision, dry_run),
        )
    _print_issued(issued)


@credentials.command("rotate")
def rotate_credential(
    consumer_id: Consumer,
    credential_id: CredentialId,
    overlap: Annotated[
        str, typer.Option(help="How long the old one stays valid, such as 24h; 30d at most.")
    ] = "0s",
    expire: Expire = "",
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Issue a credential in place of another, which ends after the overlap."""
    with connect_client() as client:
        issued = client.access.rotate_credential(
            consumer_id,
            credential_id,
            span_of(overlap),
            time_of(expire),
            make_terms(comment, if_revision, dry_run),
        )
    _print_issued(issued)


@credentials.command("revoke")
def revoke_credential(
    consumer_id: Consumer,
    credential_id: CredentialId,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """End a credential, and the tokens that were issued for it, for ever."""
    with connect_client() as client:
        client.access.revoke_credential(
            consumer_id, credential_id, make_terms(comment, if_revision, dry_run)
        )


def _print_issued(issued: Any) -> None:
    credential = issued.credential
    ends = shown_time(credential, "expire_time") or "never"
    typer.echo(
        f"credential {credential.credential_id} of {credential.consumer_id}, ends: {ends}", err=True
    )
    if issued.secret:
        print_outcome(issued, issued.secret)


def _kind_of(text: str) -> str:
    """The kind by its name in the model; api-key means API_KEY."""
    kind = text.upper().replace("-", "_")
    if kind not in ("CLIENT_SECRET", "API_KEY"):
        raise Failure(f"unknown kind '{text}': use CLIENT_SECRET or API_KEY")
    return kind


def _format_claims(consumer: Mapping[str, Any]) -> str:
    found = sorted(consumer.get("claims", {}).items())
    return " ".join(f"{name}={','.join(claim.get('values', ()))}" for name, claim in found)


def _read_limits(file: str) -> Any:
    """The limits of a file; none without one."""
    return read_document(file, "limits") if file else {}


def _claims_json(given: list[str] | None) -> dict[str, Any]:
    return {name: {"values": values} for name, values in claims_of(given).items()}
