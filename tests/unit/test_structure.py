"""How the modules of the server and the client hang together, read from their sources."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2] / "services"


def read_modules() -> dict[str, ast.Module]:
    """The modules by name, parsed."""
    found = {}
    for folder in ("penstockd", "penstock"):
        for path in (SERVICES / folder).rglob("*.py"):
            parts = path.relative_to(SERVICES).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imports_of(name: str, modules: Mapping[str, ast.Module]) -> set[str]:
    """What a module imports of the others, inside its functions too; not what types alone need."""
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


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of imports; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = read_modules()
    assert len(modules) > 400, "the walk has lost the modules"
    assert circle_in({name: imports_of(name, modules) for name in modules}) == []


@pytest.mark.parametrize(
    "source", ["from b import f", "def g() -> None:\n    from b import f", "import b"]
)
def test_the_walk_finds_a_circle(source: str) -> None:
    modules = {"a": ast.parse(source), "b": ast.parse("def f() -> None:\n    import a")}
    assert circle_in({name: imports_of(name, modules) for name in modules})
    modules["b"] = ast.parse("if TYPE_CHECKING:\n    import a")
    assert not circle_in({name: imports_of(name, modules) for name in modules})
