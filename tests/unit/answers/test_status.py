"""The contract and the error classes have the same reasons, and each reason defines its status."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re

import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

import penstockd
from penstock.hub.v1 import error_reason_pb2
from penstockd.answers.edge import make_edge_replies
from penstockd.answers.problem import http_status, make_problem
from penstockd.answers.reasons import REASONS
from penstockd.answers.status import status_of
from penstockd.errors import DatabaseUnavailable, Invalid, Refused, StorageFull, Violation
from penstockd.query.errors import QueryError
from penstockd.rpc.hub.errors import describe_reasons

CONTRACT = set(error_reason_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


def every_error() -> set[type[Refused]]:
    """All error classes of the tree, wherever they are defined."""
    for module in pkgutil.walk_packages(penstockd.__path__, "penstockd."):
        if ".migrations" not in module.name and not module.name.endswith(("__main__", ".build")):
            importlib.import_module(module.name)
    found: set[type[Refused]] = set()
    waiting: list[type[Refused]] = [Refused]
    while waiting:
        found.add(waiting[-1])
        waiting += waiting.pop().__subclasses__()
    return {error for error in found if error.__module__.startswith("penstockd.")}


def details(status: status_pb2.Status) -> dict[str, dict[str, object]]:
    """The details by the names of their types, as JSON."""
    told = json_format.MessageToDict(status)
    return {d["@type"].rpartition(".")[2]: d for d in told["details"]}


def test_reasons_classes_and_statuses_are_the_same_set() -> None:
    assert {error.reason for error in every_error()} == CONTRACT
    assert set(REASONS) == set(describe_reasons()) == CONTRACT


def test_errors_have_one_home_but_those_of_plans_queries_webhooks_and_http() -> None:
    homes = {error.__module__ for error in every_error()}
    more = ("policy.errors", "query.errors", "webhooks.errors", "rpc.http_errors")
    assert homes == {"penstockd.errors", *(f"penstockd.{part}" for part in more)}
    of_queries = {e for e in every_error() if e.__module__ == QueryError.__module__}
    assert of_queries == {e for e in every_error() if issubclass(e, QueryError)}


def test_every_reason_that_is_declared_in_code_is_declared_by_a_refused() -> None:
    """There is no second tree of errors: every error with a reason is a ``Refused``."""
    every_error()
    waiting, strays = [Exception], set[str]()
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        named = getattr(error, "reason", None)
        if named in CONTRACT and not issubclass(error, Refused):
            strays.add(f"{error.__module__}.{error.__name__}")
    assert not strays


@pytest.mark.parametrize("reason", sorted(CONTRACT))
def test_every_reason_is_described_with_an_example_that_holds(reason: str) -> None:
    description, sent = describe_reasons()[reason], REASONS[reason]
    assert description.text.endswith(".")
    said = re.findall(r"Status ([A-Z_]+), (\d{3})", description.text)
    assert said == [(sent.status, str(http_status(sent)))]
    example = json.loads(description.example)
    assert (example["code"], bool(example["message"])) == (sent.code, True)
    first, *others = example["details"]
    assert (first["reason"], first["domain"]) == (reason, "penstock")
    kinds = {
        "fieldViolations": error_details_pb2.BadRequest,
        "retryDelay": error_details_pb2.RetryInfo,
        "violations": error_details_pb2.QuotaFailure,
    }
    for detail in (first, *others):
        (kind,) = [k for name, k in kinds.items() if name in detail] or [
            error_details_pb2.ErrorInfo
        ]
        json_format.ParseDict(detail, kind())


@pytest.mark.parametrize("error", sorted(every_error(), key=str))
def test_every_error_links_to_its_description(error: type[Refused]) -> None:
    made = error.__new__(error, "no")
    Exception.__init__(made, "no")
    made.message, made.violations, made.metadata = "no", (), {}
    status = status_of(made, "r1", "https://hub.example.com")
    reason = error.reason
    sent = REASONS[reason]
    assert status.code == sent.code
    found = details(status)
    assert found["ErrorInfo"]["reason"] == reason
    assert found["RequestInfo"] == {**found["RequestInfo"], "requestId": "r1"}
    url = f"https://hub.example.com/v1/errors/{reason}"
    assert found["Help"]["links"] == [{"description": f"What {reason} means", "url": url}]
    assert ("RetryInfo" in found) == (sent.retry_seconds > 0)
    assert ("QuotaFailure" in found) == (sent.quota is not None)


def test_what_is_no_domain_error_leaves_without_its_text() -> None:
    status = status_of(RuntimeError("SELECT secret"), "r1")
    assert status.code == code_pb2.INTERNAL
    assert b"SELECT" not in status.SerializeToString()
    error = DatabaseUnavailable("postgresql://user:pw@host")
    assert str(error) == "postgresql://user:pw@host"  # for the log
    status = status_of(error, "r1")
    assert status.code == code_pb2.UNAVAILABLE
    assert b"pw@" not in status.SerializeToString()


def test_an_error_names_its_reason_and_request() -> None:
    status = status_of(Invalid("no"), "request-1")
    assert status.code == code_pb2.INVALID_ARGUMENT
    assert b"VALUE_INVALID" in status.SerializeToString()
    assert b"request-1" in status.SerializeToString()


def test_a_problem_tells_what_the_status_tells() -> None:
    bad = Invalid("two", violations=[Violation("a", "b")], metadata={"k": "v"})
    status = status_of(bad, "8f14e45f-ceea-467f-a0e6-c1a1c1b1c1d1", "https://h")
    assert make_problem(status) == {
        "type": "https://h/v1/errors/VALUE_INVALID",
        "title": "Value invalid",
        "status": 400,
        "detail": "two",
        "instance": "urn:uuid:8f14e45f-ceea-467f-a0e6-c1a1c1b1c1d1",
        "code": "INVALID_ARGUMENT",
        "reason": "VALUE_INVALID",
        "metadata": {"k": "v"},
        "violations": [{"field": "a", "description": "b"}],
        "requestId": "8f14e45f-ceea-467f-a0e6-c1a1c1b1c1d1",
    }
    full = status_of(StorageFull("no room"), "r", "https://h")
    assert make_problem(full)["quota"] and make_problem(full)["status"] == 507


def test_what_the_sidecar_says_is_of_the_same_table() -> None:
    told = make_edge_replies("https://h")
    assert [reply.least for reply in told].count(True) == 2
    for reply in told:
        status = json_format.ParseDict(reply.plain, status_pb2.Status())
        found = details(status)
        assert status.code == REASONS[str(found["ErrorInfo"]["reason"])].code
        assert {"ErrorInfo", "RequestInfo", "Help"} <= set(found)
        assert reply.problem["reason"] == found["ErrorInfo"]["reason"]
        assert reply.problem["status"] in (reply.status, "%RESPONSE_CODE%")
