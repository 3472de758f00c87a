"""Functions at module level whose names have one word."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

#: Names of one word, and the files that may define them.
ONE_WORD = {
    # The entry of a program.
    "main": "services/*",
    # Alembic calls it.
    "upgrade": "services/penstockd/store/migrations/versions/*",
    # The entry point "penstock.commands" of installed distributions names it.
    "commands": "services/penstockd/cli.py",
    # The module is the object: ``records.register(app)``.
    "register": "services/penstock/client/cli/*",
    # The module is the object for users of the SDK: ``webhooks.verify(headers, body, secret)``.
    "verify": "services/penstock/client/webhooks.py",
}


def find_short_names(root: Path) -> Iterator[str]:
    """Functions at module level of the server and the client that have no verb and object."""
    for folder in ("penstockd", "penstock"):
        for path in sorted((root / "services" / folder).rglob("*.py")):
            place = path.relative_to(root).as_posix()
            for node in ast.parse(path.read_text()).body:
                if (
                    isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                    and "_" not in node.name.strip("_")
                    and not node.name.startswith("__")
                    and not fnmatch(place, ONE_WORD.get(node.name, ""))
                ):
                    yield f"{place}:{node.lineno}: {node.name} has no verb and object"
