"""Compiles SQLAlchemy Core for asyncpg; callers compile once and keep the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql import ClauseElement

from penstockd.store.database import Connection

_DIALECT: Any = asyncpg_dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it bare
#: Renders ``$n`` and no casts, so that a parameter is easy to find; no name or text has a "$".
_COPY_DIALECT: Any = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # bare
_PARAMETER = re.compile(r"\$(\d+)")


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text with ``$n`` parameters, and the values of those already known."""

    text: str
    names: tuple[str, ...]
    values: Mapping[str, Any]

    def arguments(self, **given: Any) -> Sequence[Any]:
        """The positional arguments; ``given`` are values by the name of their bind parameter."""
        return [given[n] if n in given else self.values[n] for n in self.names]


def compile_statement(statement: ClauseElement) -> Statement:
    """Compile for asyncpg. Literals stay bind parameters: none is ever part of the text."""
    compiled: Any = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return Statement(str(compiled), tuple(compiled.positiontup or ()), dict(compiled.params or {}))


def compile_for_copy(statement: ClauseElement) -> tuple[str, Mapping[str, str]]:
    """SQL for ``COPY (…) TO STDOUT``, which takes no parameters, and the settings it reads.

    Every parameter becomes an uncorrelated subquery on a transaction-local setting, which
    PostgreSQL evaluates once: so no literal, whatever its origin, is ever part of the text.
    """
    compiled: Any = statement.compile(
        dialect=_COPY_DIALECT, compile_kwargs={"render_postcompile": True}
    )
    settings: dict[str, str] = {}
    names = list(compiled.positiontup or ())

    def setting(match: re.Match[str]) -> str:
        name = names[int(match[1]) - 1]
        bind = compiled.binds[name]
        type_name = bind.type.compile(dialect=_DIALECT).split(" COLLATE")[0]
        key = f"penstock.p{match[1]}"
        settings[key] = _as_text(compiled.params[name])
        return f"(SELECT current_setting('{key}')::{type_name})"

    return _PARAMETER.sub(setting, str(compiled)), settings


def _as_text(value: Any) -> str:
    """A parameter's value as PostgreSQL reads it from text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, list):
        raise TypeError("COPY takes no array parameters")
    return str(value)


async def apply_settings(connection: Connection, settings: Mapping[str, str]) -> None:
    """Give a COPY its parameters, for the rest of the connection's transaction."""
    if settings:
        await connection.execute(
            "SELECT set_config(s.name, s.value, true)"
            " FROM unnest($1::text[], $2::text[]) AS s (name, value)",
            list(settings),
            list(settings.values()),
        )
