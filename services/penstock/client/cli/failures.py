"""Errors as shown to people: one line on standard error, no traceback, exit code 1."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

#: What to run where the commands of the server, or what they import, are missing.
INSTALL_SERVER = "pip install 'penstock-hub[server]'"


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
    except ModuleNotFoundError as error:
        if (error.name or "penstock").partition(".")[0] in ("penstock", "penstockd"):
            raise
        exit_failed(f"{error.name} is missing; it comes with the server: {INSTALL_SERVER}")
    except UnicodeError as error:
        exit_failed(f"something that was read is not UTF-8: {error}")
    except Exception as error:
        # Only a process that has called a hub has loaded the classes of its errors.
        from penstock.client.errors import PenstockError

        if not isinstance(error, PenstockError):
            raise
        report_error(error)
        sys.exit(1)


def use_utf_8() -> None:
    """Checks that the arguments and Penstock's environment variables are UTF-8, and lets output
    escape the characters that the terminal cannot show.

    Raises Failure for an argument or a variable that is not UTF-8.
    """
    for name, value in os.environ.items():
        if name.startswith("PENSTOCK_") and any("\ud800" <= c <= "\udfff" for c in value):
            raise Failure(f"the variable {name} is not UTF-8")
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="surrogateescape").decode(errors="replace")
            raise Failure(f"the argument '{shown}' is not UTF-8") from None
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def read_document(given: str, what: str) -> dict[str, Any]:
    """The JSON object of an option or, without one, of standard input.

    ``what`` names it in errors. Raises Failure.
    """
    if not given and sys.stdin.isatty():
        raise Failure(f"the {what} is missing: give it with --data or on standard input")
    try:
        found = json.loads(given or sys.stdin.read())
    except UnicodeDecodeError:
        raise Failure(f"the {what} is not UTF-8") from None
    except ValueError as error:
        raise Failure(f"the {what} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Failure(f"the {what} must be a JSON object")
    return found


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
