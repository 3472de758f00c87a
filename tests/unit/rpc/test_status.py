"""The table of errors is total: reasons of the contract, classes and statuses are the same set."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

import penstockd
from penstock.hub.v1 import error_reason_pb2
from penstockd.errors import DatabaseUnavailable, Invalid, Refused, StorageFull, Violation
from penstockd.rpc.edge import replies
from penstockd.rpc.hub.errors import described
from penstockd.rpc.problem import MAX_BYTES, http_status, packed, problem
from penstockd.rpc.status import QUOTAS, RETRY_SECONDS, STATUS, status_of

CONTRACT = set(error_reason_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


def every_error() -> set[type[Exception]]:
    """All classes of the tree, wherever they are defined."""
    for module in pkgutil.walk_packages(penstockd.__path__, "penstockd."):
        if ".migrations" not in module.name and not module.name.endswith(("__main__", ".build")):
            importlib.import_module(module.name)
    found: set[type[Exception]] = {DatabaseUnavailable}
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
    classes = {error.reason for error in every_error()}  # type: ignore[attr-defined]
    assert classes == set(STATUS) == CONTRACT
    assert set(described()) == CONTRACT
    assert set(RETRY_SECONDS) <= CONTRACT
    assert set(QUOTAS) <= CONTRACT


@pytest.mark.parametrize("reason", sorted(CONTRACT))
def test_every_reason_is_described_with_an_example_that_holds(reason: str) -> None:
    description, code = described()[reason], STATUS[reason]
    assert description.text.endswith(".")
    said = re.findall(r"Status ([A-Z_]+), (\d{3})", description.text)
    assert said == [(code.name, str(http_status(code.value[0])))]
    example = json.loads(description.example)
    assert (example["code"], bool(example["message"])) == (code.value[0], True)
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
def test_every_error_links_to_its_description(error: type[Exception]) -> None:
    made = error.__new__(error, "no")
    Exception.__init__(made, "no")
    if isinstance(made, Refused):
        made.message, made.violations, made.metadata = "no", (), {}
    code, status = status_of(made, "r1", "https://hub.example.com")
    reason = error.reason  # type: ignore[attr-defined]
    assert code is STATUS[reason]
    found = details(status)
    assert found["ErrorInfo"]["reason"] == reason
    assert found["RequestInfo"] == {**found["RequestInfo"], "requestId": "r1"}
    url = f"https://hub.example.com/v1/errors/{reason}"
    assert found["Help"]["links"] == [{"description": f"What {reason} means", "url": url}]
    assert ("RetryInfo" in found) == (reason in RETRY_SECONDS)
    assert ("QuotaFailure" in found) == (reason in QUOTAS)


def test_what_is_no_domain_error_leaves_without_its_text() -> None:
    code, status = status_of(RuntimeError("SELECT secret"), "r1")
    assert code is grpc.StatusCode.INTERNAL
    assert b"SELECT" not in status.SerializeToString()
    code, status = status_of(DatabaseUnavailable("postgresql://user:pw@host"), "r1")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert b"pw@" not in status.SerializeToString()


def test_an_error_names_its_reason_and_request() -> None:
    code, status = status_of(Invalid("no"), "request-1")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert b"VALUE_INVALID" in status.SerializeToString()
    assert b"request-1" in status.SerializeToString()


def test_a_problem_tells_what_the_status_tells() -> None:
    bad = Invalid("two", violations=[Violation("a", "b")], metadata={"k": "v"})
    _, status = status_of(bad, "8f14e45f-ceea-467f-a0e6-c1a1c1b1c1d1", "https://h")
    assert problem(status) == {
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
    _, full = status_of(StorageFull("no room"), "r", "https://h")
    assert problem(full)["quota"] and problem(full)["status"] == 429


@pytest.mark.parametrize(
    "error",
    [
        Invalid(
            "ü" * 50, violations=[Violation(f"rows[{i}]", "\U0001f600" * 90) for i in range(99)]
        ),
        Invalid("x", metadata={str(i): "é" * 99 for i in range(99)}),
        Invalid("\U0001f600" * 9000, metadata={"a": "b"}),
        Invalid('line\r\nset-cookie: x="1"'),
    ],
    ids=["violations", "metadata", "message", "line ends"],
)
def test_a_problem_fits_into_a_header(error: Refused) -> None:
    _, status = status_of(error, "r1")
    text = packed(status)
    assert len(text) <= MAX_BYTES and text.isascii() and text.isprintable()
    assert json.loads(text)["reason"] == "VALUE_INVALID"


def test_what_the_sidecar_says_is_of_the_same_table() -> None:
    told = replies("https://h")
    assert [reply.least for reply in told].count(True) == 2
    for reply in told:
        status = json_format.ParseDict(reply.plain, status_pb2.Status())
        found = details(status)
        code = STATUS[str(found["ErrorInfo"]["reason"])]
        assert status.code == code.value[0]
        assert {"ErrorInfo", "RequestInfo", "Help"} <= set(found)
        assert reply.problem["reason"] == found["ErrorInfo"]["reason"]
        assert reply.problem["status"] in (reply.status, "%RESPONSE_CODE%")
