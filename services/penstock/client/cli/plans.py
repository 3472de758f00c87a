"""Commands on plans, which are read from and written to files: ``penstock plans``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from penstock.client.cli.access_terms import Comment, DryRun, IfRevision, make_terms
from penstock.client.cli.connection import connect_client
from penstock.client.cli.files import read_document
from penstock.client.cli.plan_rehearsals import rehearse_plan
from penstock.client.cli.printing import (
    Column,
    document_of,
    print_document,
    print_outcome,
    print_rows,
)
from penstock.client.cli.records import wrong_arguments

PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's id.")]
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="The plan in JSON, or in TOML if the name ends in .toml; - reads JSON from "
        "standard input.",
    ),
]
Revision = Annotated[int, typer.Argument(metavar="REVISION", help="A revision's number.")]

#: What a file may contain; an update removes what it leaves out.
_PARTS = ("description", "time_zone", "shadow", "rates", "concurrent", "quotas")


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the app."""
    about = "Plans: what consumers may use."
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    for name, command in (
        ("list", list_plans),
        ("show", show_plan),
        ("create", create_plan),
        ("update", update_plan),
        ("delete", delete_plan),
        ("history", show_history),
        ("diff", show_difference),
        ("rollback", roll_back),
        ("rehearse", rehearse_plan),
    ):
        group.command(name)(command)
    app.add_typer(group, name="plans", help=about)


def list_plans() -> None:
    """Show the plans with their limits."""
    with connect_client() as client:
        found = list(client.plans.all())
    print_rows(
        found,
        [
            "plan_id",
            "description",
            Column("rates", _format_rates),
            Column("concurrent", _format_concurrent),
            Column("quotas", _format_quotas),
        ],
    )


def show_plan(plan_id: PlanId) -> None:
    """Print one plan, by default as JSON, in the form that create and update read."""
    with connect_client() as client:
        plan = client.plans.get(plan_id)
    plan.ClearField("policy_revision")
    print_document(plan)


def create_plan(
    file: File,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Create a plan from a file, and print it."""
    with connect_client() as client, wrong_arguments():
        plan = read_document(file, "plan")
        print_document(client.plans.create(plan, make_terms(comment, if_revision, dry_run)))


def update_plan(
    file: File,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Replace a plan by that of a file, and print it. It is in force within 5 seconds."""
    with connect_client() as client, wrong_arguments():
        terms = make_terms(comment, if_revision, dry_run)
        print_document(client.plans.update(read_document(file, "plan"), _PARTS, terms))


def delete_plan(
    plan_id: PlanId,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Delete a plan that no consumer has."""
    with connect_client() as client:
        client.plans.delete(plan_id, make_terms(comment, if_revision, dry_run))


def show_history(
    limit: Annotated[int, typer.Option(min=1, help="The number of revisions to show.")] = 20,
) -> None:
    """Show the policy's revisions that changed plans, newest first."""
    with connect_client() as client:
        found = list(islice(client.plans.revisions(), limit))
    print_rows(
        found, ["revision", "create_time", "consumer_id", "database_user", "comment", "request_id"]
    )


def show_difference(
    before: Revision,
    after: Annotated[
        int, typer.Argument(metavar="[LATER]", help="The revision; by default the current one.")
    ] = 0,
) -> None:
    """Show how the plans of two revisions, and the plans of their consumers, differ."""
    with connect_client() as client:
        _print_differences(client.plans.compare(before, after))


def roll_back(
    revision: Revision,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Restore the plans of a revision, and which consumer had which, as a new revision."""
    with connect_client() as client:
        made = client.plans.roll_back(revision, make_terms(comment, if_revision, dry_run))
    _print_differences(made.differences, revision=str(made.revision))
    typer.echo(f"revision {made.revision}" + (": nothing was changed" if dry_run else ""), err=True)


def _print_differences(differences: Any, **more: Any) -> None:
    documents = [document_of(difference) for difference in differences]
    lines = [difference.text for difference in differences] or ["the plans are the same"]
    print_outcome({"differences": documents, **more}, lines)


def _format_rates(plan: Mapping[str, Any]) -> str:
    return " ".join(
        f"{rate.get('per_second', 0):g}/s{_format_reach(rate)}" for rate in plan.get("rates", ())
    )


def _format_concurrent(plan: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={number}" for name, number in plan.get("concurrent", {}).items())


def _format_quotas(plan: Mapping[str, Any]) -> str:
    return " ".join(
        f"{q['what']}/{q['per']}{_format_reach(q)}={q.get('limit', 0)}{'(soft)' * q.get('soft', 0)}"
        for q in plan.get("quotas", ())
    )


def _format_reach(limit: Mapping[str, Any]) -> str:
    """The one method or dataset that a limit counts."""
    found = limit.get("method", "").rpartition(".")[2] or limit.get("dataset", "")
    return f":{found}" if found else ""
