"""What an operator sees: a hub's metrics in a real Prometheus, its alerts and its dashboard."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from feeds import watch
from harness import RunningHub, eventually, folder, free_port, new_customer, signal_processes
from penstockd.observe.metrics import METRICS, MetricKind
from prometheus import Prometheus, running_prometheus

pytestmark = pytest.mark.lane("api/monitoring", priority=3)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[RunningHub, int]]:
    """A hub with two workers, and the port of its metrics. Its disk is always low."""
    with folder() as data:
        port = free_port()
        hub = RunningHub(
            data / "hub",
            customers=20,
            environment={
                "PENSTOCK_METRICS_PORT": str(port),
                "PENSTOCK_WORKERS": "2",
                "PENSTOCK_DISK_RESERVE_MB": str(1 << 40),
            },
        )
        hub.start()
        try:
            yield hub, port
        finally:
            hub.stop()


def read_metrics(port: int) -> Samples:
    """All samples of a node."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the series that have these labels."""
    wanted = labels.items()
    return sum(v for (n, ls), v in samples.items() if n == name and wanted <= dict(ls).items())


def test_each_call_is_counted_once_by_method_surface_and_outcome(
    watched: tuple[RunningHub, int],
) -> None:
    hub, port = watched
    before = read_metrics(port)
    for _ in range(7):
        assert hub.get("/v1/customers/c00000001").status == 200
    for _ in range(3):
        assert hub.get("/v1/customers/none").status == 404
    assert hub.get("/v1/customers", pageSize=5).status == 200

    method = "/penstock.api.v1.Customers/GetCustomer"
    counted = ("penstock_calls_total", {"method": method, "surface": "REST"})

    def grown(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    after = read_metrics(port)
    assert grown(counted[0], **counted[1], outcome="OK") == 7
    assert grown(counted[0], **counted[1], outcome="RECORD_NOT_FOUND") == 3
    assert grown("penstock_call_seconds_count", method=method) == 10
    assert grown("penstock_disclosed_records_total", dataset="customers") == 12
    assert total(after, "penstock_calls_open") == 0


def test_all_processes_of_a_node_are_there(watched: tuple[RunningHub, int]) -> None:
    samples = read_metrics(watched[1])
    processes = {dict(labels).get("process") for _, labels in samples}
    assert processes == {"worker-0", "worker-1", "keeper", "envoy"}
    assert total(samples, "penstock_scrape_failed") == 0
    assert total(samples, "envoy_cluster_membership_healthy") == 2
    assert total(samples, "penstock_nodes_alive") == 1


def test_every_metric_of_the_list_has_a_value(watched: tuple[RunningHub, int]) -> None:
    hub, port = watched
    hub.get("/v1/customers/c00000001")
    names = {name for name, _ in read_metrics(port)}
    needs = {  # what a quiet hub without TLS and standby has no value of
        "penstock_certificate_expiry_seconds",
        "penstock_database_replication_lag_bytes",
        "penstock_webhook_attempts_total",
        "penstock_feed_delay_seconds",
    }
    missing = {
        metric.name
        for metric in METRICS.values()
        if metric.name + ("_count" if metric.kind is MetricKind.HISTOGRAM else "") not in names
    }
    assert missing == needs


def test_a_worker_that_is_frozen_is_missing_and_the_others_are_there(
    watched: tuple[RunningHub, int],
) -> None:
    hub, port = watched
    victim = hub.processes("worker")[0]
    victim.send_signal(signal.SIGSTOP)  # the supervisor kills it in some seconds
    samples = eventually(lambda: found if _failed(found := read_metrics(port)) else None)
    assert len({dict(labels).get("process") for _, labels in samples}) == 4  # named as failed
    assert total(samples, "penstock_nodes_alive") == 1
    eventually(lambda: not _failed(read_metrics(port)))


def _failed(samples: Samples) -> bool:
    return total(samples, "penstock_scrape_failed") > 0


def _shipped(hub: RunningHub, kind: str) -> Any:
    return json.loads(hub.command("monitoring", kind).stdout)


def _impatient(rules: Any) -> Any:
    """The rules, which fire as soon as their query has a result."""
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "0s"
    return rules


def test_prometheus_draws_every_panel_and_fires_what_is_caused(
    watched: tuple[RunningHub, int], tmp_path: Path
) -> None:
    hub, port = watched
    dashboard = _shipped(hub, "dashboard")
    queries = [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(queries) > 30
    with running_prometheus(tmp_path, port, _impatient(_shipped(hub, "rules"))) as prometheus:
        eventually(lambda: prometheus.evaluate("up == 1"))
        # The control: of a hub that works and whose disk is low, this alone is told.
        eventually(lambda: prometheus.firing() == {"PenstockDiskLow"})
        _cause_traffic(hub)

        def drawn() -> bool:
            hub.get("/v1/customers/c00000001")
            return all(prometheus.evaluate(query) for _, query in queries)

        try:
            eventually(drawn)
        except AssertionError:
            empty = [title for title, query in queries if not prometheus.evaluate(query)]
            raise AssertionError(f"no data: {empty}") from None
        _cause_alerts(hub, prometheus)
        states = prometheus.ask("rules")["groups"][0]["rules"]
        assert {rule["health"] for rule in states} == {"ok"}


def _cause_traffic(hub: RunningHub) -> None:
    """Let a webhook's delivery fail, and a stream receive a change."""
    url = f"http://127.0.0.1:{free_port()}/"  # nobody listens
    webhook = {"url": url, "selections": [{"dataset": "customers"}]}
    made = hub.request("POST", "/v1/webhooks", consumer="crm", json_body=webhook)
    assert made.status == 200, made.text
    with watch(hub, "crm", "customers") as stream:
        record = new_customer()
        made = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
        assert made.status == 200, made.text
        stream.to(hub.head())


def _cause_alerts(hub: RunningHub, prometheus: Prometheus) -> None:
    """Cause what alerts tell of, and see each of them."""
    hub.sql("UPDATE hub.webhook SET state = 'DISABLED' RETURNING 1")
    hub.sql(
        "INSERT INTO hub.singleton (name, term, node_id, host, acquire_time, expire_time,"
        " fail_time) VALUES ('nobodys', 0, '', '', now(), now(), now()) RETURNING 1"
    )
    caused = {"PenstockWebhookDisabled", "PenstockTaskUnheld", "PenstockTaskFailing"}
    eventually(lambda: prometheus.firing() >= caused)
    frozen = [*hub.processes("backend"), *hub.processes("postgres")]
    signal_processes(frozen, signal.SIGSTOP)
    try:
        eventually(lambda: "PenstockDatabaseSilent" in prometheus.firing())
        assert hub.request("GET", "/v1/customers", headers={"x-api-key": hub.api_key}).status >= 500
        eventually(lambda: "PenstockErrorsPage" in prometheus.firing())
    finally:
        signal_processes(frozen, signal.SIGCONT)
    eventually(lambda: "PenstockDatabaseSilent" not in prometheus.firing())
    hub.stop()
    eventually(lambda: "PenstockUnreachable" in prometheus.firing())
