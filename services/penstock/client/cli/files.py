"""Files that commands read: documents in JSON or TOML."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from penstock.client.cli.failures import Failure


def read_document(name: str, what: str) -> dict[str, Any]:
    """The document in a file: TOML if the name ends in .toml, else JSON; - is standard input.

    ``what`` is what it should hold. Raises Failure if it is neither.
    """
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        found = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except ValueError as error:
        raise Failure(f"{name} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Failure(f"{name} contains no {what}")
    return found
