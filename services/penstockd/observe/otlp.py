"""Sends the metrics of a node to an OTLP endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

#: Seconds between two exports.
INTERVAL = 60.0
_CUMULATIVE = AggregationTemporality.CUMULATIVE

_log = structlog.get_logger(__name__)


async def push_metrics(
    endpoint: str, metrics: Collector, node: str, interval: float = INTERVAL
) -> None:
    """Send all metrics every ``interval`` seconds until cancelled.

    ``node`` identifies the node among those that send to the same endpoint. An endpoint that does
    not answer is logged, and tried again.
    """
    exporter, began = OTLPMetricExporter(endpoint=endpoint, insecure=True), time.time_ns()
    try:
        while True:
            await asyncio.sleep(interval)
            data = await asyncio.to_thread(lambda: convert_metrics(metrics, node, began))
            result = await asyncio.to_thread(exporter.export, data)
            if result is not MetricExportResult.SUCCESS:
                _log.warning("metrics_not_sent", endpoint=endpoint)
    finally:
        await asyncio.to_thread(exporter.shutdown)


def convert_metrics(metrics: Collector, node: str, began: int) -> MetricsData:
    """Prometheus' families as OTLP's metrics; ``began`` is when counting began, in nanoseconds
    since 1970."""
    now = time.time_ns()
    resource = Resource.create({"service.name": "penstock", "service.instance.id": node})
    scope = InstrumentationScope("penstockd")
    found = [_convert_family(family, began, now) for family in metrics.collect()]
    kept = [metric for metric in found if metric is not None]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, kept, "")], "")])


def _convert_family(family: Family, began: int, now: int) -> Metric | None:
    """One family; None for a type that OTLP does not have, or without samples."""
    data: Any
    if not family.samples:
        return None
    if family.type == "histogram":
        points = list(_list_histogram_points(family, began, now))
        data = Histogram(points, _CUMULATIVE)
    elif family.type == "counter":
        data = Sum(list(_list_points(family, began, now)), _CUMULATIVE, True)
    elif family.type in ("gauge", "unknown"):
        data = Gauge(list(_list_points(family, began, now)))
    else:
        return None
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Metric(name, family.documentation, "", data)


def _list_points(family: Family, began: int, now: int) -> Iterator[NumberDataPoint]:
    for sample in family.samples:
        yield NumberDataPoint(sample.labels, began, now, sample.value)


def _list_histogram_points(family: Family, began: int, now: int) -> Iterator[HistogramDataPoint]:
    """The series of a histogram; its buckets count what exceeds the one before."""
    for labels, samples in _group_series(family.samples):
        bounds = [float(s.labels["le"]) for s in samples if "le" in s.labels]
        counts = [int(s.value) for s in samples if "le" in s.labels]
        total = next((s.value for s in samples if s.name.endswith("_sum")), 0.0)
        own = [b - a for a, b in zip([0, *counts], counts, strict=False)]
        unknown: Any = None  # the least and the greatest value: Prometheus does not keep them
        yield HistogramDataPoint(
            dict(labels), began, now, counts[-1], total, own, bounds[:-1], unknown, unknown
        )


def _group_series(samples: Iterable[Any]) -> Iterable[tuple[Mapping[str, str], list[Any]]]:
    """The samples of each series of a histogram, by its labels but for the bound."""
    found: dict[tuple[tuple[str, str], ...], list[Any]] = {}
    for sample in samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        found.setdefault(labels, []).append(sample)
    return [(dict(labels), group) for labels, group in found.items()]
