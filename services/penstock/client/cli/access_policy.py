"""Commands on the policy as a whole: history, diff, rollback, explain, preview, rehearse."""

from __future__ import annotations

from collections.abc import Iterator
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
)
from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.files import read_document
from penstock.client.cli.printing import document_of, print_document, print_outcome, print_rows
from penstock.client.cli.records import Dataset, Fields, Filter, OrderBy, wrong_arguments

policy = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Revision = Annotated[int, typer.Argument(metavar="REVISION", help="A revision's number.")]
Who = Annotated[str, typer.Option("--consumer", help="A consumer; or give --role.")]


@policy.command("history")
def show_history(
    limit: Annotated[int, typer.Option(min=1, help="The number of revisions to show.")] = 20,
) -> None:
    """Show the policy's revisions, newest first."""
    from itertools import islice

    with connect_client() as client:
        found = list(islice(client.access.revisions(), limit))
    print_rows(
        found, ["revision", "create_time", "consumer_id", "database_user", "comment", "request_id"]
    )


@policy.command("show")
def show_revision(revision: Revision) -> None:
    """Print all roles and consumers of a revision, by default as JSON."""
    with connect_client() as client:
        print_document(client.access.revision(revision))


@policy.command("diff")
def show_difference(
    before: Revision,
    after: Annotated[
        int, typer.Argument(metavar="[LATER]", help="The revision; by default the current one.")
    ] = 0,
) -> None:
    """Show what differs between two revisions."""
    with connect_client() as client:
        _print_differences(client.access.compare(before, after))


@policy.command("rollback")
def roll_back(
    revision: Revision,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
) -> None:
    """Restore the roles, and the consumers' roles and claims, of a revision as a new one."""
    with connect_client() as client:
        differences = client.access.rehearse(revision=revision, days=1).differences
        made = client.access.roll_back(revision, make_terms(comment, if_revision, dry_run))
    _print_differences(differences, revision=str(made.revision))
    typer.echo(f"revision {made.revision}" + (": nothing was changed" if dry_run else ""), err=True)


@policy.command("explain")
def explain_access(
    dataset: Dataset,
    who: Who = "",
    role: Roles = None,
    claim: Claims = None,
    key: Annotated[str, typer.Option(help="Also explain the record with this key.")] = "",
) -> None:
    """Explain what a consumer, or any holder of some roles, may do with a dataset, and why."""
    with connect_client() as client:
        reply = client.access.explain(
            dataset, consumer_id=who, roles=role or (), claims=claims_of(claim), key=key
        )
    print_outcome(reply, _format_explanation(reply, key))


@policy.command("preview")
def preview_records(
    dataset: Dataset,
    who: Who = "",
    role: Roles = None,
    claim: Claims = None,
    filter: Filter = "",
    order_by: OrderBy = "",
    fields: Fields = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="The number of records to show.")] = 10,
) -> None:
    """Show the first records that a consumer, or any holder of some roles, would get."""
    with connect_client() as client:
        reply = client.access.preview(
            dataset,
            consumer_id=who,
            roles=role or (),
            claims=claims_of(claim),
            filter=filter,
            order_by=order_by,
            fields=fields,
            limit=limit,
        )
        record_class = client.dataset(dataset).record_class
    records = [_unpack_record(packed, record_class) for packed in reply.records]
    _print_records(records, record_class, list(reply.fields))
    if reply.more:
        typer.echo("there are more", err=True)


@policy.command("rehearse")
def rehearse_role(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="The changed role in JSON or TOML.")
    ] = "",
    revision: Annotated[
        int, typer.Option(help="Use the policy of this revision instead of a role.")
    ] = 0,
    days: Annotated[
        int, typer.Option(min=1, max=90, help="The number of days of recent calls to check.")
    ] = 7,
) -> None:
    """Show what a changed role would mean for recent callers; changes nothing."""
    if bool(file) == bool(revision):
        raise Failure("give a file with a role or --revision, but not both")
    with connect_client() as client, wrong_arguments():
        role = read_document(file, "role") if file else None
        reply = client.access.rehearse(role, revision=revision, days=days)
    print_outcome(reply, _format_rehearsal(reply))


def _print_differences(differences: Any, **more: Any) -> None:
    documents = [document_of(difference) for difference in differences]
    print_outcome({"differences": documents, **more}, _difference_lines(differences))


def _format_explanation(reply: Any, key: str) -> Iterator[str]:
    """An explanation in lines; that of the fields is tab-separated."""
    if not reply.active:
        yield f"{reply.consumer_id} is inactive: it may do nothing of this"
    allowed = [a.action for a in reply.actions if a.allowed]
    yield f"may: {', '.join(allowed) or 'nothing'}"
    yield f"sees: {reply.rows.reason}"
    for rule in reply.rows.rules:
        used = " ".join(f"{n}={','.join(c.values) or '(none)'}" for n, c in rule.claims.items())
        yield f"  {rule.role}: {rule.row_filter or 'all rows'}" + (f"  [{used}]" * bool(used))
    if key:
        yield f"{key}: {reply.record.reason}"
    yield "\t".join(("field", "shown", "writable", "because"))
    for f in reply.fields:
        yield "\t".join((f.path, _name_mask(f.mask), "yes" if f.writable else "", f.reason))


def _difference_lines(differences: Any) -> Iterator[str]:
    yield from (difference.text for difference in differences)
    if not differences:
        yield "the policy is the same"


def _format_rehearsal(reply: Any) -> Iterator[str]:
    yield from _difference_lines(reply.differences)
    if not reply.consumers:
        yield "nothing would change for any consumer"
    for effect in reply.consumers:
        for dataset in effect.datasets:
            yield from _format_effect(effect.consumer_id, dataset)
        if effect.uncalled_datasets:
            uncalled = ", ".join(effect.uncalled_datasets)
            yield f"{effect.consumer_id}: changes, but was not called: {uncalled}"


def _format_effect(consumer: str, effect: Any) -> Iterator[str]:
    yield f"{consumer}: {effect.dataset}, {effect.call_count} calls"
    if effect.lost_actions:
        yield f"  may no longer {', '.join(effect.lost_actions)}"
    if effect.gained_actions:
        yield f"  may {', '.join(effect.gained_actions)}"
    yield (
        f"  rows: {effect.row_count} now, {effect.lost_row_count} lost, "
        f"{effect.gained_row_count} gained"
    )
    failing = effect.denied_call_count + effect.failing_call_count
    if failing:
        last = shown_time(effect, "last_failing_call_time")
        yield f"  calls that would fail: {failing}, the last at {last}"
    for field in effect.fields:
        named = f", named by {field.call_count} calls" if field.call_count else ""
        yield f"  {field.path}: {_name_mask(field.before)} -> {_name_mask(field.after)}{named}"


def _print_records(records: list[Any], record_class: Any, paths: list[str]) -> None:
    from penstock.client.cli.tables import columns_of
    from penstock.client.record_data import to_dict

    columns = columns_of(record_class, paths, len(paths))
    print_rows((to_dict(r, paths, model_names=True) for r in records), columns)


def _unpack_record(packed: Any, record_class: Any) -> Any:
    record = record_class()
    packed.Unpack(record)
    return record


def _name_mask(mask: str) -> str:
    return "hidden" if mask == "hide" else mask
