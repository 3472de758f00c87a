"""The settings of the server's commands of ``penstock``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from penstockd.config import Settings


def load_settings() -> Settings:
    """Read the settings; ends the command if they are not valid.

    From then on the command logs to stderr, apart from its result.
    """
    from pydantic import ValidationError

    from penstockd.config import Settings
    from penstockd.observe import log_beside_results

    log_beside_results()
    try:
        return Settings()
    except ValidationError as exc:
        for error in exc.errors():
            # An error about several settings has no location; its message names them.
            name = "".join(f"PENSTOCK_{part}: ".upper() for part in error["loc"][:1])
            typer.echo(f"penstock: {name}{error['msg'].removeprefix('Value error, ')}", err=True)
        raise typer.Exit(2) from exc
