"""Options that administrators' commands share: terms of changes, claims, times, JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.failures import Failure

if TYPE_CHECKING:
    from penstock.client.access import Terms

Comment = Annotated[str, typer.Option("--comment", help="The reason, for the history.")]
IfRevision = Annotated[
    int, typer.Option("--if-revision", help="Only if the policy is still at this revision.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything without changing anything.")
]
Roles = Annotated[list[str] | None, typer.Option("--role", help="A role; may be repeated.")]
Claims = Annotated[
    list[str] | None,
    typer.Option("--claim", metavar="NAME=VALUE,…", help="A claim; may be repeated."),
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def make_terms(comment: str, revision: int, dry_run: bool) -> Terms:
    """The terms that the options ask for."""
    from penstock.client.access import Terms

    return Terms(comment, revision, dry_run)


def claims_of(given: list[str] | None) -> dict[str, list[str]]:
    """The claims from options such as ``org=o1,o2``; without values the claim is empty."""
    found: dict[str, list[str]] = {}
    for text in given or ():
        name, separator, values = text.partition("=")
        if not separator:
            raise Failure(f"'{text}' is not a claim such as org=o1,o2")
        found[name] = [v for v in values.split(",") if v]
    return found


def time_of(text: str) -> datetime | None:
    """An option's time: RFC 3339, or a date, which means its start in UTC; None if empty."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(
            f"'{text}' is not a time such as 2027-03-01 or 2027-03-01T12:00:00Z"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def span_of(text: str) -> timedelta:
    """A time span from an option such as 90s, 30m, 24h or 7d."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal():
        raise Failure(f"'{text}' is not a duration such as 90s, 30m, 24h or 7d")
    return timedelta(seconds=int(number) * _UNITS[unit])


def shown_time(message: Any, field: str) -> str:
    """A time of a message, to the second; empty if it is not set."""
    if not message.HasField(field):
        return ""
    return f"{getattr(message, field).ToDatetime(UTC):%Y-%m-%d %H:%M:%SZ}"
