"""The types of handlers' requests and replies match their routes."""

from __future__ import annotations

import ast
import typing
from pathlib import Path

import pytest
from google.protobuf.message import Message

import penstockd
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import PublicCall, ServedCall
from penstockd.rpc.hub import list_hub_routes

ROOT = Path(penstockd.__file__).parent
#: Code for any dataset or any method, whose message types come from the model.
ANY_REQUEST = frozenset(
    f"rpc/{name}.py"
    for name in ("datasets", "digests", "forms", "writes", "feeds")  # of all datasets
) | {
    *("rpc/door.py", "rpc/exchange.py"),
    # of all methods
    *("rpc/rest/conditions.py", "rpc/rest/door.py", "rpc/rest/wire.py"),
}

ROUTES = {r.method.path: r for r in list_hub_routes()}


@pytest.mark.parametrize("path", ROUTES)
def test_a_handler_is_typed_as_its_method(path: str) -> None:
    assert fault(ROUTES[path]) == ""


def fault(route: Route) -> str:
    """How a handler's types differ from its route; "" if they agree."""
    hints = typing.get_type_hints(route.handler)
    if hints.get("request") is not route.request:
        return f"request: {hints.get('request')}"
    if hints.get("call") is not (PublicCall if route.method.public else ServedCall):
        return f"call: {hints.get('call')}"
    reply = hints["return"]
    if reply in (bytes, type(None)) or (isinstance(reply, type) and issubclass(reply, Message)):
        return ""
    return f"reply: {reply}"


def test_the_rule_finds_a_handler_without_types_or_with_those_of_another() -> None:
    first, second, *_ = ROUTES.values()

    async def untyped(request: typing.Any, call: typing.Any) -> typing.Any:
        """A handler that accepts anything."""

    async def open_to_all(request: typing.Any, call: PublicCall) -> None:
        """A handler for a call by an unknown caller."""

    open_to_all.__annotations__ = {"request": first.request, "call": PublicCall, "return": None}
    assert fault(Route(first.method, open_to_all, first.request)).startswith("call")
    assert fault(Route(first.method, untyped, first.request)).startswith("request")
    assert fault(Route(first.method, second.handler, first.request)).startswith("request")


def untyped_requests(source: str) -> list[str]:
    """Untyped parameters of a source that stand for requests."""
    return [
        f"{node.name}({argument.arg})"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in node.args.args
        if argument.arg in ("request", "requests", "message")
        and argument.annotation is not None
        and ast.unparse(argument.annotation) == "Any"
    ]


def literal_splats(source: str) -> list[str]:
    """Calls that unpack a literal tuple, which only saves lines."""
    return [
        ast.unparse(argument)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for argument in node.args
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple)
    ]


def sources(folder: str) -> dict[str, str]:
    found = {p.relative_to(ROOT).as_posix(): p.read_text() for p in (ROOT / folder).rglob("*.py")}
    assert found, folder
    return found


def test_requests_may_be_anything_only_where_one_servicer_serves_all_datasets() -> None:
    found = {p: untyped_requests(t) for p, t in sources("rpc/hub").items()}
    assert {p: f for p, f in found.items() if f} == {}
    places = {p for p, t in sources("rpc").items() if "request: Any" in t or "requests: Any" in t}
    assert places <= ANY_REQUEST
    assert untyped_requests("async def _get(request: Any, call: ServedCall) -> Any: ...")


def test_no_call_unpacks_a_literal_to_save_lines() -> None:
    for folder in ("rpc", "commands"):
        found = {p: literal_splats(t) for p, t in sources(folder).items()}
        assert {p: f for p, f in found.items() if f} == {}
    assert literal_splats("await update_record(*(call, dataset), mask)")
