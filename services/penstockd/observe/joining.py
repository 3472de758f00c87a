"""Joins the metrics of a node: those of its workers, its keeper and its sidecar."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_fd_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_fd_to_metric_families as parse_text
from prometheus_client.registry import Collector

from penstockd.observe.exposition import metrics_socket
from penstockd.observe.logs import RareLine
from penstockd.observe.metrics import METRICS, REGISTRY, Metric
from penstockd.observe.sidecar import MOST_BYTES, PATIENCE, fetch_text

#: Processes that are asked at one time.
_THREADS = 32
#: Envoy's names of the metrics in the list.
_ENVOY_STATS = (
    r"^(http\.public\.downstream_(rq_[1-5]xx|rq_total|rq_time|rq_active|cx_active"
    r"|cx_[rt]x_bytes_total)|[a-z]+\.http_local_rate_limit\.rate_limited"
    r"|cluster\.hub\.membership_(healthy|total)|server\.memory_allocated)$"
)
#: Labels that say nothing: only one part of the sidecar is asked for.
_ENVOY_LABELS = frozenset({"envoy_http_conn_manager_prefix", "envoy_cluster_name"})

_missing = RareLine(structlog.get_logger(__name__), "metrics_missing", seconds=60.0)


class NodeMetrics(Collector):
    """All metrics of a node.

    A process that does not answer is left out, and ``penstock_scrape_failed`` says so.
    """

    def __init__(
        self,
        sockets: Path,
        workers: Sequence[str],
        envoy: Path,
        own: CollectorRegistry | None = REGISTRY,
    ) -> None:
        """``envoy`` is the socket of the sidecar's administration. ``own`` are the metrics of the
        keeper in its own process; with None they are read over its socket."""
        self._sockets, self._workers, self._envoy, self._own = sockets, workers, envoy, own

    def collect(self) -> Iterable[Family]:
        """The families of all processes; each sample names its process."""
        joined: dict[str, Family] = {}
        failed: dict[str, bool] = {}
        reads: dict[str, Callable[[], Iterable[Family]]] = {
            process: partial(_read_process, metrics_socket(self._sockets, process))
            for process in ("keeper", *self._workers)
        }
        if self._own is not None:
            reads["keeper"] = self._own.collect
        reads["envoy"] = self._read_envoy
        # At once: several that are stuck together take no longer than one.
        with ThreadPoolExecutor(min(len(reads), _THREADS)) as pool:
            answers = {process: pool.submit(_collect_all, read) for process, read in reads.items()}
        for process, answer in answers.items():
            failed[process] = not _join_answer(joined, process, answer.result)
        name = "penstock_scrape_failed"
        family = Family(name, METRICS[name].help, "gauge")
        for process, bad in failed.items():
            family.add_sample(name, {"process": process}, float(bad))
        return [*joined.values(), family]

    def _read_envoy(self) -> Iterator[Family]:
        query = urlencode({"filter": _ENVOY_STATS, "histogram_buckets": "cumulative"})
        text = fetch_text(self._envoy, f"/stats/prometheus?{query}")
        for family in parse_text(io.StringIO(text)):
            if (metric := _find_listed(family)) is not None:
                yield _describe_family(family, metric)


def _collect_all(read: Callable[[], Iterable[Family]]) -> Sequence[Family]:
    """What a process answers, read to its end in the thread that asks."""
    return list(read())


def _join_answer(
    joined: dict[str, Family], process: str, answer: Callable[[], Sequence[Family]]
) -> bool:
    """Join what a process answers; returns whether it did."""
    try:
        _join_families(joined, process, answer())
    except Exception as error:  # of one process: those of the others must still be told
        _missing.warn(process=process, error=repr(error))
        return False
    return True


def _join_families(joined: dict[str, Family], process: str, families: Iterable[Family]) -> None:
    for family in families:
        kept = joined.setdefault(
            family.name, Family(family.name, family.documentation, family.type)
        )
        for sample in family.samples:
            labels = {**sample.labels, "process": process}
            kept.samples.append(sample._replace(labels=labels))


def _read_process(path: Path) -> Iterable[Family]:
    """The families of a worker or a keeper. Raises OSError, ValueError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        data = bytearray()
        while piece := connection.recv(1 << 16):
            data += piece
            if len(data) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
    return list(parse_openmetrics(io.StringIO(data.decode())))  # type: ignore[no-untyped-call]


def _find_listed(family: Family) -> Metric | None:
    """The metric of the list that a family of the sidecar is. The parser takes ``_total`` from the
    names of counters."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return METRICS.get(name)


def _describe_family(family: Family, metric: Metric) -> Family:
    """The family with its help text, without labels that say nothing."""
    named = Family(family.name, metric.help, family.type)
    for sample in family.samples:
        labels = {k: v for k, v in sample.labels.items() if k not in _ENVOY_LABELS}
        named.samples.append(sample._replace(labels=labels))
    return named
