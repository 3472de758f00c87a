"""The list of metrics, and what is made from it: queries, alerts, a dashboard, OTLP."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from penstockd.observe.alerts import list_alerts, render_rules
from penstockd.observe.dashboards import ROWS, render_dashboard
from penstockd.observe.gauges import GaugeReadings
from penstockd.observe.metrics import METRICS, MetricKind, find_counter, find_gauge
from penstockd.observe.otlp import convert_metrics
from penstockd.observe.promql import find_quantile, select_series
from prometheus import find_program

ROOT = Path(__file__).parents[3]
#: Series for each alert under which it fires: ``promtool`` reads ``0x9`` as nine more of the same.
CAUSES: dict[str, dict[str, str]] = {
    "PenstockUnreachable": {'up{job="penstock"}': "0x100"},
    "PenstockErrorsPage": {
        'envoy_http_downstream_rq_xx_total{envoy_response_code_class="2"}': "0+950x100",
        'envoy_http_downstream_rq_xx_total{envoy_response_code_class="5"}': "0+50x100",
    },
    "PenstockErrorsTicket": {
        'envoy_http_downstream_rq_xx_total{envoy_response_code_class="2"}': "0+996x500",
        'envoy_http_downstream_rq_xx_total{envoy_response_code_class="5"}': "0+4x500",
    },
    "PenstockLatencyPage": {
        'penstock_call_seconds_bucket{method="/a/Get",le="0.25"}': "0+80x100",
        'penstock_call_seconds_count{method="/a/Get"}': "0+100x100",
    },
    "PenstockLatencyTicket": {
        'penstock_call_seconds_bucket{method="/a/Get",le="0.25"}': "0+96x500",
        'penstock_call_seconds_count{method="/a/Get"}': "0+100x500",
    },
    "PenstockProcessSilent": {'penstock_scrape_failed{process="worker-0"}': "1x100"},
    "PenstockWorkersMissing": {
        "envoy_cluster_membership_healthy": "1x100",
        "envoy_cluster_membership_total": "2x100",
    },
    "PenstockDatabaseSilent": {"penstock_database_answers": "0x100"},
    "PenstockTaskUnheld": {'penstock_singleton_held{singleton="usage"}': "0x100"},
    "PenstockTaskFailing": {'penstock_singleton_failing{singleton="usage"}': "1x100"},
    "PenstockOrganFailing": {'penstock_organ_failing{organ="policy"}': "1x100"},
    "PenstockFeedsLate": {"penstock_sequencer_lag_seconds": "6x100"},
    "PenstockAuditUnsealed": {"penstock_sealer_lag_seconds": "31x100"},
    "PenstockCheckpointsLate": {"penstock_checkpoint_age_seconds": "301x100"},
    "PenstockUsageLate": {"penstock_usage_lag_entries": "100001x100"},
    "PenstockWebhookDisabled": {'penstock_webhooks{state="DISABLED"}': "1x100"},
    "PenstockWebhooksLate": {"penstock_webhook_delivery_lag_seconds": "301x100"},
    "PenstockDiskLow": {
        "penstock_disk_free_bytes": "9x100",
        "penstock_disk_reserve_bytes": "10x100",
    },
    "PenstockConnectionsLow": {
        "penstock_database_connections": "91x100",
        "penstock_database_connections_usable": "100x100",
    },
    "PenstockTransactionOld": {"penstock_database_oldest_transaction_seconds": "7201x100"},
    "PenstockTablesBloated": {"penstock_database_dead_rows_ratio": "0.6x100"},
    "PenstockStandbyBehind": {
        'penstock_database_replication_lag_bytes{standby="s"}': "1073741825x100"
    },
    "PenstockCertificateExpires": {"penstock_certificate_expiry_seconds": "1209599x100"},
    "PenstockSigningKeyOld": {
        "penstock_signing_key_age_seconds": "112x100",
        "penstock_signing_key_max_age_seconds": "100x100",
    },
}
#: Series of a hub that works.
HEALTHY: dict[str, str] = {
    'up{job="penstock"}': "1x500",
    'envoy_http_downstream_rq_xx_total{envoy_response_code_class="2"}': "0+10000x500",
    'envoy_http_downstream_rq_xx_total{envoy_response_code_class="5"}': "0+9x500",
    'penstock_call_seconds_bucket{method="/a/Get",le="0.25"}': "0+992x500",
    'penstock_call_seconds_count{method="/a/Get"}': "0+1000x500",
    # Calls that wait for changes: their time says nothing.
    'penstock_call_seconds_bucket{method="/a/PollChanges",le="0.25"}': "0x500",
    'penstock_call_seconds_count{method="/a/PollChanges"}': "0+1000x500",
    'penstock_scrape_failed{process="worker-0"}': "0x500",
    "envoy_cluster_membership_healthy": "2x500",
    "envoy_cluster_membership_total": "2x500",
    "penstock_database_answers": "1x500",
    'penstock_singleton_held{singleton="usage"}': "1x500",
    'penstock_singleton_failing{singleton="usage"}': "0x500",
    'penstock_organ_failing{organ="policy"}': "0x500",
    "penstock_sequencer_lag_seconds": "4x500",
    "penstock_sealer_lag_seconds": "29x500",
    "penstock_checkpoint_age_seconds": "299x500",
    "penstock_usage_lag_entries": "99999x500",
    'penstock_webhooks{state="DISABLED"}': "0x500",
    "penstock_webhook_delivery_lag_seconds": "299x500",
    "penstock_disk_free_bytes": "11x500",
    "penstock_disk_reserve_bytes": "10x500",
    "penstock_database_connections": "89x500",
    "penstock_database_connections_usable": "100x500",
    "penstock_database_oldest_transaction_seconds": "7199x500",
    "penstock_database_dead_rows_ratio": "0.4x500",
    'penstock_database_replication_lag_bytes{standby="s"}': "1073741823x500",
    "penstock_certificate_expiry_seconds": "1209601x500",
    "penstock_signing_key_age_seconds": "109x500",
    "penstock_signing_key_max_age_seconds": "100x500",
}


def _fires(series: dict[str, str], interval: str, at: str, names: str, count: int) -> Any:
    """A case of ``promtool``: how many alerts whose names match fire at a time."""
    expected = [{"labels": "{}", "value": count}] if count else []
    query = f'count(ALERTS{{alertname=~"{names}", alertstate="firing"}})'
    return {
        "interval": interval,
        "input_series": [{"series": s, "values": v} for s, v in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": at, "exp_samples": expected}],
    }


def _judge(folder: Path, interval: str, cases: list[Any]) -> None:
    """Let Prometheus' own tool evaluate the shipped rules, with their windows and waits."""
    (folder / "rules.json").write_text(json.dumps(render_rules()))
    document = {"rule_files": ["rules.json"], "evaluation_interval": interval, "tests": cases}
    (folder / "cases.json").write_text(json.dumps(document))
    command = [find_program("promtool"), "test", "rules", "cases.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-3000:]


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    assert CAUSES.keys() == {alert.name for alert in list_alerts()}
    slow = {name for name in CAUSES if name.endswith("Ticket")}
    quick = [_fires(CAUSES[n], "1m", "90m", n, 1) for n in CAUSES.keys() - slow]
    _judge(tmp_path, "1m", quick)
    _judge(tmp_path, "10m", [_fires(CAUSES[n], "10m", "75h", n, 1) for n in slow])


def test_no_alert_fires_of_a_hub_that_works(tmp_path: Path) -> None:
    _judge(tmp_path, "10m", [_fires(HEALTHY, "10m", "75h", ".*", 0)])
    _judge(tmp_path, "1m", [_fires(HEALTHY, "1m", "90m", ".*", 0)])


def test_no_query_names_a_metric_or_a_label_that_does_not_exist() -> None:
    queries = [alert.query for alert in list_alerts()]
    queries += [q for _, panels in ROWS for panel in panels for q, _ in panel.queries]
    named = {n for query in queries for n in re.findall(r"\b(?:penstock|envoy|process)_\w+", query)}
    suffixes = {"_bucket", "_sum", "_count"}
    bases = {n for n in METRICS if METRICS[n].kind is MetricKind.HISTOGRAM}
    known = METRICS.keys() | {base + suffix for base in bases for suffix in suffixes}
    labels = {label for metric in METRICS.values() for label in metric.labels}
    assert named - known - labels - {"process"} == set()
    with pytest.raises(KeyError):
        select_series("penstock_cals_total")
    with pytest.raises(KeyError):
        select_series("penstock_calls_total", metod="x")
    with pytest.raises(KeyError):
        find_quantile(0.5, "penstock_calls_total", "5m")


def test_a_metric_is_of_the_kind_that_the_list_says() -> None:
    with pytest.raises(TypeError):
        find_gauge("penstock_calls_total")
    assert find_counter("penstock_calls_total", "m", "s", "o") is find_counter(
        "penstock_calls_total", "m", "s", "o"
    )


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = render_dashboard()["panels"]
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_a_reading_that_is_gone_is_absent() -> None:
    registry = CollectorRegistry()
    seen: dict[tuple[str, Sequence[str]], float] = {
        ("penstock_webhooks", ("ACTIVE",)): 2.0,
        ("penstock_webhooks", ("PAUSED",)): 1.0,
    }
    readings = GaugeReadings(lambda: seen)
    readings.register(registry)
    assert registry.get_sample_value("penstock_webhooks", {"state": "PAUSED"}) == 1
    del seen[("penstock_webhooks", ("PAUSED",))]
    assert registry.get_sample_value("penstock_webhooks", {"state": "PAUSED"}) is None
    assert registry.get_sample_value("penstock_webhooks", {"state": "ACTIVE"}) == 2
    readings.unregister(registry)
    assert registry.get_sample_value("penstock_webhooks", {"state": "ACTIVE"}) is None


def test_otlp_has_the_values_of_prometheus() -> None:
    registry = CollectorRegistry()
    Counter("a", "calls", ["m"], registry=registry).labels("x").inc(3)
    Gauge("b", "now", registry=registry).set(2.5)
    times = Histogram("c", "time", ["m"], buckets=(0.1, 1.0), registry=registry)
    for seconds in (0.05, 0.5, 0.6, 5.0):
        times.labels("y").observe(seconds)
    data = convert_metrics(registry, "node-1", 7)
    (resource,) = data.resource_metrics
    assert resource.resource.attributes["service.instance.id"] == "node-1"
    found: dict[str, Any] = {m.name: m.data for m in resource.scope_metrics[0].metrics}
    (calls,) = found["a_total"].data_points
    assert (calls.value, calls.attributes, calls.start_time_unix_nano) == (3, {"m": "x"}, 7)
    assert found["b"].data_points[0].value == 2.5
    (series,) = found["c"].data_points
    assert (list(series.bucket_counts), list(series.explicit_bounds)) == ([1, 2, 1], [0.1, 1.0])
    assert (series.count, series.sum) == (4, pytest.approx(6.15))
    assert (series.min, series.max) == (None, None), "Prometheus does not keep them"


def test_the_console_warns_of_what_the_alert_rules_name() -> None:
    """All but those of rates over time, which one reading does not have."""
    source = (ROOT / "services/portal/src/monitoring/warnings.ts").read_text()
    rates = re.compile("Errors|Latency|Unreachable")
    wanted = [alert.name for alert in list_alerts() if not rates.search(alert.name)]
    assert re.findall(r'alert: "(\w+)"', source) == wanted
