"""How a node is, over the API."""

from __future__ import annotations

from typing import Any

from harness import RunningHub, eventually


def readings(hub: RunningHub) -> Any:
    reply = hub.get("/v1/monitoring")
    assert reply.status == 200, reply.text
    return reply.json()


def test_all_processes_and_tasks_are_there(hub: RunningHub) -> None:
    found = eventually(lambda: _whole(readings(hub)))
    names = {process["name"] for process in found["processes"]}
    assert {"keeper", "envoy", "worker-0"} <= names
    assert all(process["memoryBytes"] > 1e6 for process in found["processes"])
    assert not any(process.get("failing") for process in found["processes"])
    assert {"sequencer", "audit-sealer", "usage"} <= {task["name"] for task in found["tasks"]}
    assert found["database"]["answers"] and found["database"]["sizeBytes"] > 1e6
    assert found["machine"]["diskFreeBytes"] > 0
    assert "certificateSeconds" not in found["machine"], "this hub has no TLS"
    assert found["clients"]["workersHealthy"] == found["clients"]["workers"]


def _whole(found: Any) -> Any:
    """The readings once all processes answer and all tasks are held."""
    answers = all(process.get("answers") for process in found["processes"])
    return found if answers and all(task.get("held") for task in found.get("tasks", [])) else None


def test_calls_are_counted_by_their_outcome(hub: RunningHub) -> None:
    def missing() -> float:
        return float(readings(hub)["calls"]["outcomes"].get("RECORD_NOT_FOUND", 0))

    before = missing()
    for _ in range(3):
        assert hub.get("/v1/customers/no-such-customer").status == 404
    # Readings are given for some seconds.
    eventually(lambda: missing() >= before + 3)
    buckets = readings(hub)["calls"]["latency"]
    counts = [bucket["count"] for bucket in buckets]
    assert counts == sorted(counts) and counts[-1] > 0
    assert buckets[-1]["seconds"] == "Infinity"


def test_it_takes_the_permission(hub: RunningHub) -> None:
    refused = hub.get("/v1/monitoring", "crm")
    assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    assert "monitoring.read" in refused.text
    assert hub.request("GET", "/v1/monitoring").status == 401


def test_the_caller_is_told_what_it_may(hub: RunningHub) -> None:
    crm = hub.get("/v1/caller", "crm").json()
    assert (crm["consumerId"], crm["roles"], crm["plan"]) == ("crm", ["crm"], "internal")
    assert crm["permissions"] == ["webhooks.read", "webhooks.write"]
    assert "permissions" not in hub.get("/v1/caller", "bi").json()
    assert "monitoring.read" in hub.get("/v1/caller").json()["permissions"]
    assert hub.request("GET", "/v1/caller").status == 401
