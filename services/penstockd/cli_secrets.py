"""``penstock secret``: rotate the root secret while the hub runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.printing import print_outcome
from penstockd.cli_settings import load_settings

if TYPE_CHECKING:
    from datetime import datetime

    from penstockd.rotation.survey import SecretStatus


def add_secret_commands(app: typer.Typer) -> None:
    """Add the group ``secret``."""
    group = typer.Typer(no_args_is_help=True, help="Rotate the root secret while the hub runs.")
    group.callback()(_describe_secrets)
    group.command("status")(show_secrets)
    group.command("rotate")(rotate_secret)
    group.command("retire")(retire_secret)
    app.add_typer(group, name="secret")


def _describe_secrets() -> None:
    """Rotate the root secret while the hub runs."""


def show_secrets() -> None:
    """Show each root secret by its id, and what it still protects.

    It works on the database itself, whether the hub runs or not.
    """
    import asyncio

    from penstockd.rotation.survey import survey_secrets
    from penstockd.up import StartRefused

    try:
        found = asyncio.run(survey_secrets(load_settings()))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    print_outcome({"secrets": [_as_document(s) for s in found]}, _format_secrets(found))


def rotate_secret() -> None:
    """Let a new root secret seal, starting in one minute, once every running node knows it.

    The new one is made in the data folder, or is that of PENSTOCK_SECOND_SECRET. The earlier one
    goes on opening until it is retired. It works on the database itself, whether the hub runs or
    not.
    """
    import asyncio

    from penstockd.rotation.switch import start_rotation
    from penstockd.up import StartRefused

    try:
        done = asyncio.run(start_rotation(load_settings()))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    print_outcome(
        {"secret_id": done.secret_id, "seal_time": done.seal_time.isoformat()},
        f"secret {done.secret_id} seals in a minute; the one before opens until it is retired:"
        " see penstock secret status. Back up now (penstock backup): earlier backups do not have"
        " the new one",
    )


def retire_secret(
    secret_id: Annotated[str, typer.Argument(metavar="SECRET", help="The id, as status shows it.")],
    now: Annotated[
        bool, typer.Option("--now", help="Also while something depends on it: that is refused.")
    ] = False,
) -> None:
    """Open nothing with an earlier root secret any more.

    It is refused, with what depends on the secret, until nothing does. If the data folder holds the
    secret, the other one takes its place there.
    """
    import asyncio

    from penstockd.rotation.retire import retire_secret as retire
    from penstockd.up import StartRefused

    settings = load_settings()
    try:
        done = asyncio.run(retire(settings, secret_id, now=now))
    except StartRefused as exc:
        typer.echo(f"penstock: {exc}", err=True)
        raise typer.Exit(1) from exc
    text = f"secret {done.secret_id} is retired"
    if done.promoted:
        text += f"; {settings.data_dir / 'secret'} holds the one that seals"
    elif settings.secret is not None:
        text += (
            "; let PENSTOCK_SECRET be the one that seals and unset PENSTOCK_SECOND_SECRET on every"
            " node, and restart the nodes one after the other"
        )
    print_outcome({"secret_id": done.secret_id, "promoted": done.promoted}, text)


def _as_document(status: SecretStatus) -> dict[str, Any]:
    return {
        "secret_id": status.secret_id,
        "state": status.state,
        "known": status.known,
        "seal_time": _format_time(status.seal_time),
        "end_time": _format_time(status.end_time),
        "retire_time": _format_time(status.retire_time),
        "missing_on": list(status.missing_on),
        "protects": [
            {
                "what": p.what,
                "count": p.count,
                "until": _format_time(p.until),
                "holds": p.holds,
                "note": p.note,
            }
            for p in status.protects
        ],
    }


def _format_secrets(found: Sequence[SecretStatus]) -> Iterator[str]:
    """The secrets for people."""
    from penstockd.rotation.survey import describe_protected

    for status in found:
        since = f" since {status.seal_time:%Y-%m-%d %H:%M} UTC" if status.seal_time else ""
        here = "" if status.known or status.state == "retired" else ", not known here"
        yield f"{status.secret_id}  {_STATES[status.state]}{since}{here}"
        if status.missing_on:
            yield f"  not known on: {', '.join(status.missing_on)}"
        for each in status.protects:
            yield f"  protects {describe_protected(each)}"


#: What each state means, as a time may follow.
_STATES = {
    "new": "is known, and does not seal yet",
    "next": "is to seal",
    "seals": "seals",
    "opens": "opens what it sealed",
    "retired": "is retired; it sealed",
}


def _format_time(time: datetime | None) -> str | None:
    return time.isoformat() if time is not None else None
