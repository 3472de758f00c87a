"""One step of a migration of the datasets' tables, and the consent that it needs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from penstockd.store.script import run_script

Apply = Callable[[Connection], None]


class Consent(enum.Enum):
    """The consent that a step needs."""

    START = "additive"  # nothing stored is affected: applied when the hub starts
    COMMAND = "caution"  # by `penstock migrate --apply`
    NEVER = "refused"  # not while the values that the step names exist


@dataclass(frozen=True, slots=True)
class Step:
    """One difference between the database and the model, and the operation that removes it."""

    description: str
    consent: Consent
    apply: Apply = field(compare=False, repr=False)

    @property
    def additive(self) -> bool:
        """Whether the hub applies it by itself at start."""
        return self.consent is Consent.START


def script_step(sql: str) -> Apply:
    """An operation that applies a step by an SQL script."""
    return lambda connection: run_script(connection, sql)


def do_nothing(_: Connection) -> None:
    """Do nothing: for steps that only report."""


def quote_literal(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"
