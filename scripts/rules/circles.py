"""Modules that import each other in a circle, inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def find_circles(root: Path) -> Iterator[str]:
    """A circle of imports in the server and the client, if there is one."""
    modules = _read_modules(root / "services")
    graph = {name: _imports_of(name, modules) for name in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"modules import each other: {' -> '.join(error.args[1])}"


def _read_modules(services: Path) -> dict[str, ast.Module]:
    found = {}
    for folder in ("penstockd", "penstock"):
        for path in sorted((services / folder).rglob("*.py")):
            parts = path.relative_to(services).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def _imports_of(name: str, modules: Mapping[str, ast.Module]) -> set[str]:
    """The other modules that a module imports; imports for types alone do not count."""
    tree = modules[name]
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
            found |= inside or {node.module}
    return (found & modules.keys()) - {name}
