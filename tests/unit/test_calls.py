"""One gate for each call: what makes a Call, and how it refuses, read from the hub's source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import penstockd
from fake_organs import FakeConnection
from penstockd.audit.entry import Entry
from penstockd.calls import Call
from penstockd.errors import PermissionDenied
from penstockd.policy.model import Permission, Principal
from penstockd.rpc.exchange import Exchange, Method, PublicCall, ServedCall

ROOT = Path(penstockd.__file__).parent
SOURCES = {p.relative_to(ROOT).as_posix(): p.read_text() for p in sorted(ROOT.rglob("*.py"))}
#: The gate itself, and the functions that it calls.
GATE = ("calls.py", "policy/snapshot.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (n for n in ast.walk(tree) if isinstance(n, Function))


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Calls of functions or methods that have one of these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in names:
                yield node


def named(argument: ast.expr) -> bool:
    """Whether an argument is ``Permission.NAME``, or all of a constant's permissions."""
    if isinstance(argument, ast.Starred):
        return isinstance(argument.value, ast.Name) and argument.value.id.isupper()
    return ast.unparse(argument).startswith("Permission.")


def requires(node: ast.AST) -> bool:
    return next(calls(node, "require"), None) is not None


def passes_on(function: Function) -> bool:
    """Whether a function only calls require, and so is another name for it."""
    rest = [s for s in function.body if not isinstance(s, ast.Return)]
    if ast.get_docstring(function) is not None:
        rest = rest[1:]
    return bool(rest) and all(isinstance(s, ast.Expr | ast.If) and requires(s) for s in rest)


def faults(source: str) -> list[str]:
    """Checks in a source that are not written ``call.require(Permission.NAME)``."""
    tree = ast.parse(source)
    found = [
        ast.unparse(n)
        for n in ast.walk(tree)
        if isinstance(n, ast.Assert) and "principal" in ast.unparse(n.test)
    ]
    for call in calls(tree, "require"):
        of_call = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "call"
        if not of_call or not call.args or not all(map(named, call.args)):
            found.append(ast.unparse(call))
    for function in functions(tree):
        denies = any(
            isinstance(n, ast.Raise) and n.exc is not None and next(calls(n.exc, DENIED), None)
            for n in ast.walk(function)
        )
        if (denies and next(calls(function, "permits"), None)) or passes_on(function):
            found.append(f"def {function.name}")
    return found


DENIED = PermissionDenied.__name__

#: The forms that were used before there was one way.
OLD = {
    "of the policy": "call.policy.require(call.principal, Permission.ACCESS_READ)",
    "with an assert": "assert call.principal is not None, 'nobody'",
    "a helper that is given the permission": """
def admit(call, permission):
    '''Raise PermissionDenied unless the caller has the permission.'''
    call.require(permission)
""",
    "a helper for one permission": """
def reader(call):
    '''The caller. Raises PermissionDenied unless it may read the policy.'''
    call.require(Permission.ACCESS_READ)
    return call.principal
""",
    "a helper with a way around": """
def permitted(call):
    if not call.permits(Permission.ACCESS_WRITE):
        call.require(Permission.WEBHOOKS_READ)
    return call.principal
""",
    "a function of a module": "_require(call, Permission.ACCESS_READ)\nrequire(call, X)",
    "by hand": """
def create(call, owner):
    if owner != call.principal.consumer_id and not call.permits(Permission.ACCESS_WRITE):
        raise PermissionDenied("webhooks of others take the permission access.write")
""",
}


@pytest.mark.parametrize("way", OLD)
def test_the_rule_finds_each_old_way(way: str) -> None:
    assert faults(OLD[way])


def test_the_rule_leaves_the_one_way_alone() -> None:
    good = """
def list_things(hub, call):
    call.require(Permission.ACCESS_READ)
    call.require(*TO_WRITE)
    if call.permits(Permission.ACCESS_WRITE):
        return every()
    return own()
"""
    assert faults(good) == []


def test_all_of_the_hub_refuses_by_require() -> None:
    found = {path: faults(text) for path, text in SOURCES.items() if path not in GATE}
    kernel = {p: f for p, f in found.items() if f and not p.startswith("native/")}
    assert kernel == {}
    users = [p for p in found if p.startswith("commands/") and "call.require(" in SOURCES[p]]
    assert len(users) > 15, "the walk has lost the commands"


def test_no_assert_speaks_of_the_principal() -> None:
    for path, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            assert not (isinstance(node, ast.Assert) and "principal" in ast.unparse(node.test)), (
                path
            )


def test_only_the_interceptor_auth_makes_a_call() -> None:
    """Code that could make a Call could act as any consumer."""
    made = [
        p
        for p, text in SOURCES.items()
        for _ in calls(ast.parse(text), Call.__name__, ServedCall.__name__)
    ]
    assert made == ["rpc/exchange.py"]
    admitted = [p for p, text in SOURCES.items() for _ in calls(ast.parse(text), "admit")]
    assert admitted == ["rpc/interceptors/auth.py"]


class Context:
    def invocation_metadata(self) -> Any:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


def test_before_auth_there_is_no_call() -> None:
    hub: Any = SimpleNamespace(policy=SimpleNamespace(newest=SimpleNamespace(revision=7)))
    context: Any = Context()
    wire: Any = None
    exchange = Exchange(hub, Method("penstock.hub.v1.Access", "ListRoles"), context, wire)
    assert (
        isinstance(exchange.arriving, PublicCall) and exchange.arriving.entry.policy_revision == 7
    )
    with pytest.raises(AttributeError):
        _ = exchange.call
    exchange.admit(hub.policy.newest, Principal("c", "k", frozenset()))
    after: object = exchange.arriving
    assert after is exchange.call
    assert (exchange.call.entry.consumer_id, exchange.call.entry.credential_id) == ("c", "k")


class Policy:
    revision = 1

    def permits(self, principal: Principal, permission: Permission) -> bool:
        return permission.value in principal.roles


def test_require_takes_one_of_several_and_names_the_first() -> None:
    policy: Any = Policy()
    books: Any = None

    def call(*roles: str) -> Call:
        return Call(Entry("r", "/m"), policy, books, Principal("c", "k", frozenset(roles)))

    both = (Permission.WEBHOOKS_READ, Permission.ACCESS_WRITE)
    call("webhooks.read").require(*both)
    call("access.write").require(*both)
    with pytest.raises(PermissionDenied, match=r"you need the permission webhooks\.read"):
        call("access.read").require(*both)
    with pytest.raises(PermissionDenied, match=r"you need the permission access\.write"):
        call("webhooks.read").require(Permission.ACCESS_WRITE)


class Gauge:
    """Notes what a call charges."""

    def __init__(self) -> None:
        self.imported: list[int] = []

    async def charge_import(self, count: int, entry: Entry) -> None:
        self.imported.append(count)

    async def charge_reply(self, entry: Entry) -> None:
        entry.spends[7] = entry.byte_count or 0


@pytest.mark.parametrize(("replayed", "charged"), [(False, [3]), (True, [])])
async def test_a_replay_imports_nothing(replayed: bool, charged: list[int]) -> None:
    """The call whose reply is repeated has paid for the records."""
    gauge: Any = Gauge()
    policy: Any = Policy()
    books: Any = None
    principal = Principal("c", "k", frozenset())
    call = Call(Entry("r", "/m"), policy, books, principal, replayed=replayed, gauge=gauge)
    await call.charge_import(3)
    await call.charge_import(3)
    assert gauge.imported == charged


async def test_the_entry_of_a_write_spends_the_bytes_of_its_reply() -> None:
    """It is written before the reply leaves, and no other entry could be charged for it."""
    gauge: Any = Gauge()
    policy: Any = Policy()
    books: Any = None
    entry = Entry("r", "/m", byte_count=42)
    call = Call(entry, policy, books, Principal("c", "k", frozenset()), gauge=gauge)
    connection: Any = FakeConnection()
    await call.audit_within(connection, 1)
    assert entry.spends == {7: 42}
    assert any(7 in a or [7] in a for _, a in connection.statements), connection.statements


class Sending(Context):
    """A context that notes, for each time headers are sent, what the journal has by then."""

    def __init__(self, journal: list[int | None]) -> None:
        self.journal, self.before = journal, list[int | None]()

    async def send_initial_metadata(self, sent: Any) -> None:
        self.before = list(self.journal)


async def test_headers_of_a_reply_leave_when_the_audit_has_its_size() -> None:
    recorded: list[int | None] = []

    async def record(entry: Entry) -> None:
        recorded.append(entry.byte_count)

    hub: Any = SimpleNamespace(policy=Policy(), journal=SimpleNamespace(record=record))
    hub.policy.newest = hub.policy
    context: Any = Sending(recorded)
    wire: Any = SimpleNamespace(headers_only=False, holds_headers=False)
    exchange = Exchange(hub, Method("penstock.api.v1.Customers", "ExportCustomers"), context, wire)
    exchange.admit(hub.policy.newest, Principal("c", "k", frozenset()))
    assert await exchange.head_reply(b"a page", {"h": "v"}) == b"a page"
    assert context.before == [6]


def test_the_rest_of_a_call_has_the_gauge_of_the_policy_that_holds_now() -> None:
    """Made anew when the policy is another, and only then."""
    first: Any = Policy()
    then: Any = Policy()
    books: Any = None
    made: list[Any] = []
    call = Call(Entry("r", "/m"), first, books, Principal("c", "k", frozenset()))
    call.adopt_terms(first)
    assert call.gauge is None, "nothing is limited"

    def meter(policy: Any) -> Any:
        made.append(policy)
        return policy

    call.meter = meter
    for policy in (first, first, then, then):
        call.adopt_terms(policy)
        assert call.gauge is policy
    assert made == [first, then]
