"""Errors as shown to people: one line on standard error, no traceback, exit code 1."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


class Failure(Exception):
    """A command cannot continue; the message says everything."""


@contextmanager
def report_failures() -> Iterator[None]:
    """Turns the errors that a command expects into a line and an exit code."""
    try:
        yield
    except Failure as error:
        exit_failed(str(error))
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        exit_failed(f"{name}{error.strerror or error}")
    except Exception as error:
        # Only a process that has called a hub has loaded the classes of its errors.
        from penstock.client.errors import PenstockError

        if not isinstance(error, PenstockError):
            raise
        report_error(error)
        sys.exit(1)


def report_error(error: Exception) -> None:
    """The line for a PenstockError, and one for each refused value."""
    from penstock.client.errors import PenstockError

    typer.echo(f"error: {one_line(str(error))}", err=True)
    if isinstance(error, PenstockError):
        for violation in error.violations:
            typer.echo(f"  {violation.field}: {one_line(violation.description)}", err=True)


def exit_failed(message: str) -> None:
    """Prints the reason and exits with 1."""
    typer.echo(f"error: {one_line(message)}", err=True)
    sys.exit(1)


def one_line(text: str) -> str:
    """The text without line ends and control characters."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
