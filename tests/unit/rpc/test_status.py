"""The table of errors is total: every reason has a status, every error a reason."""

from __future__ import annotations

import importlib
import pkgutil

import grpc

import penstockd
from penstock.hub.v1 import error_reason_pb2
from penstockd.errors import DatabaseUnavailable, Invalid, Refused
from penstockd.rpc.status import STATUS, status_of


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
    return found


def test_every_reason_of_the_contract_has_a_status_and_no_other_has() -> None:
    contract = set(error_reason_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    assert set(STATUS) == contract


def test_every_error_has_a_reason_of_the_contract() -> None:
    for error in every_error():
        assert error.reason in STATUS, error  # type: ignore[attr-defined]


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
