"""The readings of a node: sums over its processes, once for all who ask."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from harness import eventually
from penstockd.observe import monitor
from penstockd.observe.exposition import metrics_socket, serve_metrics
from penstockd.observe.joining import NodeMetrics
from penstockd.observe.monitor import MetricReading, NodeMonitor, NodeReadings, gather_readings


def read(registry: CollectorRegistry) -> NodeReadings:
    return NodeReadings("n1", datetime.now(UTC), gather_readings(registry.collect()))


def test_values_are_sums_and_what_is_missing_is_none() -> None:
    registry = CollectorRegistry()
    calls = Counter("calls_total", "", ["outcome", "method"], registry=registry)
    calls.labels("OK", "/Get").inc(3)
    calls.labels("OK", "/List").inc(4)
    calls.labels("CONFLICT", "/Get").inc()
    Gauge("empty", "", registry=registry).set(math.nan)
    found = read(registry)
    assert found.value("calls_total") == 8
    assert found.value("calls_total", outcome="OK", method="/List") == 4
    assert found.value("calls_total", outcome="NONE") is None
    assert found.value("none") is found.value("empty") is None
    assert found.by_label("calls_total", "outcome") == {"CONFLICT": 1, "OK": 7}
    assert found.by_label("none", "outcome") == {}


def test_buckets_are_added_up_without_calls_that_wait() -> None:
    registry = CollectorRegistry()
    times = Histogram("call_seconds", "", ["method"], registry=registry, buckets=(0.1, 1.0))
    for method, seconds in (("/a/Get", 0.05), ("/a/List", 0.5), ("/a/PollChanges", 30.0)):
        times.labels(method).observe(seconds)
    found = read(registry)
    assert found.buckets("call_seconds", "/(Poll|Pull)") == [(0.1, 1), (1.0, 2), (math.inf, 2)]
    assert found.buckets("call_seconds") == [(0.1, 1), (1.0, 2), (math.inf, 3)]
    assert found.buckets("none") == []


class Counted(Collector):
    """Counts how often it is collected."""

    def __init__(self) -> None:
        self.times = 0

    def collect(self) -> Iterable[Family]:
        self.times += 1
        family = Family("times", "", "gauge")
        family.add_sample("times", {}, float(self.times))
        return [family]


async def test_who_asks_together_or_soon_gets_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, opened = Counted(), 0

    def find_node() -> tuple[str, Collector]:
        nonlocal opened
        opened += 1
        return "n1", counted

    node = NodeMonitor(find_node)
    assert (opened, counted.times) == (0, 0)
    found = await asyncio.gather(*(node.read() for _ in range(5)))
    assert {(f.node, f.value("times")) for f in found} == {("n1", 1.0)}
    monkeypatch.setattr(monitor, "FRESH", -1.0)
    assert (await node.read()).readings == {"times": [MetricReading({}, 2.0)]}
    assert opened == 1


async def test_a_worker_reads_its_keeper_over_a_socket(tmp_path: Path) -> None:
    """A process that does not answer is told as silent."""
    registry = CollectorRegistry()
    Gauge("penstock_nodes_alive", "", registry=registry).set(2)
    serving = asyncio.create_task(serve_metrics(metrics_socket(tmp_path, "keeper"), registry))
    await asyncio.to_thread(eventually, metrics_socket(tmp_path, "keeper").exists)
    metrics = NodeMetrics(tmp_path, ["worker-0"], tmp_path / "admin.sock", own=None)
    found = await NodeMonitor(lambda: ("n1", metrics)).read()
    serving.cancel()
    assert found.readings["penstock_nodes_alive"] == [MetricReading({"process": "keeper"}, 2.0)]
    silent = found.by_label("penstock_scrape_failed", "process")
    assert silent == {"envoy": 1, "keeper": 0, "worker-0": 1}
