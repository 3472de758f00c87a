"""Commands on the policy as a whole: history, diff, rollback, explain, preview, rehearse."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penstock.client.cli.access_roles import role_file
from penstock.client.cli.access_terms import (
    Claims,
    Comment,
    DryRun,
    IfRevision,
    Roles,
    claims_of,
    make_terms,
    print_json,
    shown_time,
)
from penstock.client.cli.connection import As, Url, connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.records import Dataset, Fields, Filter, OrderBy, wrong_arguments

policy = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Revision = Annotated[int, typer.Argument(metavar="REVISION", help="A revision's number.")]
Who = Annotated[str, typer.Option("--consumer", help="A consumer; or give --role.")]
Json = Annotated[bool, typer.Option("--json", help="Print all of the reply as JSON.")]


@policy.command("history")
def show_history(
    limit: Annotated[int, typer.Option(min=1, help="Revisions shown.")] = 20,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Show the policy's revisions, newest first."""
    from itertools import islice

    from penstock.client.cli.tables import print_table

    with connect_client(url, consumer) as client:
        found = list(islice(client.access.revisions(), limit))
    rows = [
        [
            str(r.revision),
            shown_time(r, "create_time"),
            r.consumer_id or f"({r.database_user})",
            r.comment,
            r.request_id,
        ]
        for r in found
    ]
    print_table(["revision", "time", "by", "comment", "request"], rows)


@policy.command("show")
def show_revision(revision: Revision, url: Url = "", consumer: As = "") -> None:
    """Print all roles and consumers of a revision as JSON."""
    with connect_client(url, consumer) as client:
        print_json(client.access.revision(revision))


@policy.command("diff")
def show_difference(
    before: Revision,
    after: Annotated[
        int, typer.Argument(metavar="[LATER]", help="By default the one in force.")
    ] = 0,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Show what differs between two revisions."""
    with connect_client(url, consumer) as client:
        _print_differences(client.access.compare(before, after))


@policy.command("rollback")
def roll_back(
    revision: Revision,
    comment: Comment = "",
    if_revision: IfRevision = 0,
    dry_run: DryRun = False,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Restore the roles, and the consumers' roles and claims, of a revision as a new one."""
    with connect_client(url, consumer) as client:
        differences = client.access.rehearse(revision=revision, days=1).differences
        made = client.access.roll_back(revision, make_terms(comment, if_revision, dry_run))
    _print_differences(differences)
    typer.echo(f"revision {made.revision}" + (": nothing was changed" if dry_run else ""), err=True)


@policy.command("explain")
def explain_access(
    dataset: Dataset,
    who: Who = "",
    role: Roles = None,
    claim: Claims = None,
    key: Annotated[str, typer.Option(help="Also explain the record with this key.")] = "",
    json: Json = False,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Explain what a consumer, or any holder of some roles, may do with a dataset, and why."""
    with connect_client(url, consumer) as client:
        reply = client.access.explain(
            dataset, consumer_id=who, roles=role or (), claims=claims_of(claim), key=key
        )
    if json:
        print_json(reply)
        return
    from penstock.client.cli.tables import print_table

    if not reply.active:
        typer.echo(f"{reply.consumer_id} is inactive: it may do nothing of this")
    allowed = [a.action for a in reply.actions if a.allowed]
    typer.echo(f"may: {', '.join(allowed) or 'nothing'}")
    typer.echo(f"sees: {reply.rows.reason}")
    for rule in reply.rows.rules:
        used = " ".join(f"{n}={','.join(c.values) or '(none)'}" for n, c in rule.claims.items())
        typer.echo(f"  {rule.role}: {rule.row_filter or 'all rows'}" + (f"  [{used}]" * bool(used)))
    if key:
        typer.echo(f"{key}: {reply.record.reason}")
    rows = [
        [f.path, _name_mask(f.mask), "yes" if f.writable else "", f.reason] for f in reply.fields
    ]
    print_table(["field", "shown", "writable", "because"], rows)


@policy.command("preview")
def preview_records(
    dataset: Dataset,
    who: Who = "",
    role: Roles = None,
    claim: Claims = None,
    filter: Filter = "",
    order_by: OrderBy = "",
    fields: Fields = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="Records shown.")] = 10,
    json: Json = False,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Show the first records that a consumer, or any holder of some roles, would get."""
    with connect_client(url, consumer) as client:
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
    _print_records(records, list(reply.fields), json)
    if reply.more:
        typer.echo("there are more", err=True)


@policy.command("rehearse")
def rehearse_role(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="The role as it would be; JSON or TOML.")
    ] = "",
    revision: Annotated[int, typer.Option(help="Or the policy of this revision.")] = 0,
    days: Annotated[int, typer.Option(min=1, max=90, help="Days of calls to look at.")] = 7,
    json: Json = False,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Show what a changed role would mean for recent callers; changes nothing."""
    if bool(file) == bool(revision):
        raise Failure("give either a file with a role or --revision")
    with connect_client(url, consumer) as client, wrong_arguments():
        role = role_file(file) if file else None
        reply = client.access.rehearse(role, revision=revision, days=days)
    if json:
        print_json(reply)
        return
    _print_differences(reply.differences)
    if not reply.consumers:
        typer.echo("nothing would change for any consumer")
    for effect in reply.consumers:
        for dataset in effect.datasets:
            _print_effect(effect.consumer_id, dataset)
        if effect.uncalled_datasets:
            uncalled = ", ".join(effect.uncalled_datasets)
            typer.echo(f"{effect.consumer_id}: changes, but was not called: {uncalled}")


def _print_differences(differences: Any) -> None:
    for difference in differences:
        typer.echo(difference.text)
    if not differences:
        typer.echo("the policy is the same")


def _print_effect(consumer: str, effect: Any) -> None:
    typer.echo(f"{consumer}: {effect.dataset}, {effect.call_count} calls")
    if effect.lost_actions:
        typer.echo(f"  may no longer {', '.join(effect.lost_actions)}")
    if effect.gained_actions:
        typer.echo(f"  may {', '.join(effect.gained_actions)}")
    typer.echo(
        f"  rows: {effect.row_count} now, {effect.lost_row_count} lost, "
        f"{effect.gained_row_count} gained"
    )
    failing = effect.denied_call_count + effect.failing_call_count
    if failing:
        last = shown_time(effect, "last_failing_call_time")
        typer.echo(f"  calls that would fail: {failing}, the last at {last}")
    for field in effect.fields:
        named = f", named by {field.call_count} calls" if field.call_count else ""
        typer.echo(
            f"  {field.path}: {_name_mask(field.before)} -> {_name_mask(field.after)}{named}"
        )


def _print_records(records: list[Any], paths: list[str], as_json: bool) -> None:
    import json

    from penstock.client.record import to_dict

    if as_json:
        dicts = [to_dict(record, paths) for record in records]
        typer.echo(json.dumps(dicts, ensure_ascii=False, indent=2))
        return
    from penstock.client.cli.tables import columns_of, print_table

    if not records:
        typer.echo("no records")
        return
    columns = columns_of(type(records[0]), paths, len(paths))
    print_table([c.title for c in columns], ([c.text(r) for c in columns] for r in records))


def _unpack_record(packed: Any, record_class: Any) -> Any:
    record = record_class()
    packed.Unpack(record)
    return record


def _name_mask(mask: str) -> str:
    return "hidden" if mask == "hide" else mask
