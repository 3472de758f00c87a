"""The one list of metrics. Help texts, dashboards and alert rules are made from it, so none of them
names a metric that does not exist.

Names follow Prometheus: base units, ``_total`` for counters. Every sample of a process gets the
label ``process`` when a node's metrics are joined (see ``joining``).
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

#: Upper bounds of the histograms of calls and feeds, in seconds.
_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


#: A part of the names of methods that wait for something, so that their time says nothing.
WAITING_METHODS = "/(Poll|Pull|Lease|Listen)"


class MetricSource(enum.Enum):
    """Which part of a node has the values."""

    WORKER = "worker"
    KEEPER = "keeper"
    PROCESS = "worker and keeper"
    ENVOY = "Envoy"


class MetricKind(enum.Enum):
    """How values behave."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``name`` is the one that queries use; of a histogram, the part before
    ``_bucket``."""

    name: str
    kind: MetricKind
    source: MetricSource
    help: str
    labels: tuple[str, ...] = ()


def _list_metrics(
    source: MetricSource, kind: MetricKind, *rows: tuple[str, str, str]
) -> list[Metric]:
    """Metrics of one source and kind, from rows of a name, labels and a help text."""
    return [Metric(name, kind, source, text, tuple(labels.split())) for name, labels, text in rows]


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in [
        *_list_metrics(
            MetricSource.WORKER,
            MetricKind.COUNTER,
            (
                "penstock_calls_total",
                "method surface outcome",
                "Calls that ended: by gRPC method, surface (REST, GRPC, GRPC_WEB) and reason of"
                " the error, or OK.",
            ),
            (
                "penstock_disclosed_records_total",
                "dataset",
                "Records that left the hub, by dataset; - for calls about several.",
            ),
        ),
        *_list_metrics(
            MetricSource.WORKER,
            MetricKind.HISTOGRAM,
            (
                "penstock_call_seconds",
                "method",
                "Time of calls whose reply is no stream, in the worker.",
            ),
            (
                "penstock_feed_delay_seconds",
                "",
                "Time from a commit to the sending of its changes on a stream that is not behind"
                " by its own choice of a cursor.",
            ),
        ),
        *_list_metrics(
            MetricSource.WORKER,
            MetricKind.GAUGE,
            ("penstock_calls_open", "", "Calls in progress, streams included."),
            ("penstock_streams_open", "", "Streams of changes, and calls that wait for changes."),
            (
                "penstock_pool_connections_in_use",
                "lane",
                "Database connections of the worker that calls hold, by kind of work.",
            ),
            (
                "penstock_pool_connections",
                "lane",
                "Database connections that the worker may hold, by kind of work.",
            ),
        ),
        *_list_metrics(
            MetricSource.PROCESS,
            MetricKind.GAUGE,
            (
                "process_resident_memory_bytes",
                "",
                "Resident memory of the process in bytes.",
            ),
            ("process_open_fds", "", "Open files of the process."),
            (
                "penstock_organ_failing",
                "organ",
                "1 while a task of the process besides its calls fails.",
            ),
        ),
        *_list_metrics(
            MetricSource.PROCESS,
            MetricKind.COUNTER,
            ("process_cpu_seconds_total", "", "Processor time of the process in seconds."),
        ),
        *_list_metrics(
            MetricSource.KEEPER,
            MetricKind.COUNTER,
            (
                "penstock_webhook_attempts_total",
                "result",
                "Attempts to deliver to webhooks: delivered or failed.",
            ),
        ),
        *_list_metrics(
            MetricSource.KEEPER,
            MetricKind.GAUGE,
            (
                "penstock_singleton_held",
                "singleton",
                "1 if a node holds a task that one node does for all.",
            ),
            ("penstock_singleton_failing", "singleton", "1 if such a task fails."),
            ("penstock_nodes_alive", "", "Nodes that share the database and are alive."),
            (
                "penstock_sequencer_lag_seconds",
                "",
                "Age of the oldest committed change that has no number yet: feeds wait for it.",
            ),
            (
                "penstock_sealer_lag_seconds",
                "",
                "Age of the oldest audit entry that no seal covers.",
            ),
            (
                "penstock_checkpoint_age_seconds",
                "",
                "Age of the newest signed checkpoint of the audit.",
            ),
            ("penstock_usage_lag_entries", "", "Sealed audit entries that usage does not count."),
            ("penstock_webhooks", "state", "Webhooks by state."),
            (
                "penstock_webhook_deliveries_waiting",
                "",
                "Deliveries that wait to be posted; of one webhook 10,000 are counted at most.",
            ),
            (
                "penstock_webhook_delivery_lag_seconds",
                "",
                "How long the delivery that is due longest has been due.",
            ),
            ("penstock_signing_key_age_seconds", "", "Age of the key that signs tokens."),
            (
                "penstock_signing_key_max_age_seconds",
                "",
                "Age at which that key is replaced: PENSTOCK_KEY_DAYS.",
            ),
            ("penstock_database_size_bytes", "", "Size of the database."),
            ("penstock_database_connections", "", "Sessions on the database server."),
            (
                "penstock_database_connections_usable",
                "",
                "Sessions that the server allows to ordinary roles.",
            ),
            (
                "penstock_database_oldest_transaction_seconds",
                "",
                "Age of the oldest open transaction; it delays vacuum.",
            ),
            ("penstock_database_waiting_locks", "", "Sessions that wait for a lock."),
            (
                "penstock_database_dead_rows_ratio",
                "",
                "Share of dead rows in the largest part of the tables with the most of them:"
                " what vacuum has not cleaned up.",
            ),
            (
                "penstock_database_replication_lag_bytes",
                "standby",
                "Bytes of log that a standby has not replayed.",
            ),
            (
                "penstock_database_answers",
                "",
                "1 if the database answered the last look, else 0; then the other figures of the"
                " database are absent.",
            ),
            ("penstock_disk_free_bytes", "", "Free bytes on the disk of the data folder."),
            (
                "penstock_disk_reserve_bytes",
                "",
                "Free bytes below which the hub warns: PENSTOCK_DISK_RESERVE_MB.",
            ),
            (
                "penstock_certificate_expiry_seconds",
                "",
                "Time until the certificate of the public port expires; absent without TLS.",
            ),
            (
                "penstock_scrape_failed",
                "process",
                "1 if a process of the node gave no metrics to this scrape.",
            ),
        ),
        *_list_metrics(
            MetricSource.ENVOY,
            MetricKind.COUNTER,
            (
                "envoy_http_downstream_rq_xx_total",
                "envoy_response_code_class",
                "Answers to clients by class of their HTTP status.",
            ),
            ("envoy_http_downstream_rq_total", "", "Requests of clients."),
            ("envoy_http_downstream_cx_rx_bytes_total", "", "Bytes received from clients."),
            ("envoy_http_downstream_cx_tx_bytes_total", "", "Bytes sent to clients."),
            (
                "envoy_http_local_rate_limit_rate_limited_total",
                "envoy_local_http_ratelimit_prefix",
                "Requests over a rate limit.",
            ),
        ),
        *_list_metrics(
            MetricSource.ENVOY,
            MetricKind.GAUGE,
            ("envoy_http_downstream_cx_active", "", "Connections of clients."),
            ("envoy_http_downstream_rq_active", "", "Requests in progress."),
            ("envoy_cluster_membership_healthy", "", "Workers that take calls."),
            ("envoy_cluster_membership_total", "", "Workers that there should be."),
            ("envoy_server_memory_allocated", "", "Memory of the sidecar in bytes."),
        ),
        *_list_metrics(
            MetricSource.ENVOY,
            MetricKind.HISTOGRAM,
            (
                "envoy_http_downstream_rq_time",
                "",
                "Time of requests as clients see it, in milliseconds.",
            ),
        ),
    ]
}

#: The metrics of this process.
REGISTRY = CollectorRegistry()
# When counting began is that of the process, for every series.
disable_created_metrics()  # type: ignore[no-untyped-call]
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


@functools.cache
def find_counter(name: str, *labels: str) -> Counter:
    """The series of a counter of this process with these values of its labels."""
    made: Any = _make_family(name, MetricKind.COUNTER)
    return made.labels(*labels) if labels else made  # type: ignore[no-any-return]


@functools.cache
def find_gauge(name: str) -> Gauge:
    """A gauge of this process."""
    made: Any = _make_family(name, MetricKind.GAUGE)
    return made  # type: ignore[no-any-return]


@functools.cache
def find_histogram(name: str, *labels: str) -> Histogram:
    """The series of a histogram of this process with these values of its labels."""
    made: Any = _make_family(name, MetricKind.HISTOGRAM)
    return made.labels(*labels) if labels else made  # type: ignore[no-any-return]


@functools.cache
def _make_family(name: str, kind: MetricKind) -> Any:
    """The family of a metric. Raises TypeError if it is of another kind."""
    metric = METRICS[name]
    if metric.kind is not kind:
        raise TypeError(f"{name} is a {metric.kind.value}")
    if kind is MetricKind.COUNTER:
        return Counter(name, metric.help, metric.labels, registry=REGISTRY)
    if kind is MetricKind.GAUGE:
        return Gauge(name, metric.help, metric.labels, registry=REGISTRY)
    return Histogram(name, metric.help, metric.labels, registry=REGISTRY, buckets=_BUCKETS)
