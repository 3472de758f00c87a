"""The alert rules that ship with the hub, as a rule file of Prometheus.

Two objectives have alerts by burn rate over several windows (The Site Reliability Workbook, 5): of
all answers 99.9 % are no fault of the hub, and of all calls 99 % take at most a quarter of a
second. An alert whose severity is ``page`` needs somebody now, ``ticket`` within days.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from penstockd.observe.metrics import WAITING_METHODS
from penstockd.observe.promql import select_series, sum_rates

#: The share of answers, and of calls, that may miss their objective.
_AVAILABILITY_BUDGET, _LATENCY_BUDGET = 0.001, 0.01
_LATENCY_BOUND = "0.25"
_WAITING = f"!~.*{WAITING_METHODS}.*"
#: Windows, and the factor of the budget at which it burns too fast in both: long, short, factor.
_PAGES = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
_TICKETS = (("1d", "2h", 3.0), ("3d", "6h", 1.0))


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule: it fires when ``query`` has had a result for ``wait`` (of Prometheus, as 30s)."""

    name: str
    query: str
    wait: str
    severity: str
    summary: str
    #: What an operator does first.
    advice: str


def list_alerts(job: str = "penstock") -> list[Alert]:
    """All rules; ``job`` is the name of the scrape job in Prometheus."""
    return [*_list_unreachable(job), *_list_burns(), *_ALERTS]


def render_rules(job: str = "penstock") -> dict[str, Any]:
    """The rule file as a document."""
    rules = [
        {
            "alert": alert.name,
            "expr": alert.query,
            "for": alert.wait,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "description": alert.advice},
        }
        for alert in list_alerts(job)
    ]
    return {"groups": [{"name": "penstock", "rules": rules}]}


def _list_unreachable(job: str) -> list[Alert]:
    return [
        Alert(
            "PenstockUnreachable",
            f'up{{job="{job}"}} == 0',
            "30s",
            "page",
            "A node gives no metrics.",
            "Look at penstock status on the node, and at the log of its keeper.",
        )
    ]


def _list_burns() -> Iterator[Alert]:
    for severity, windows in (("page", _PAGES), ("ticket", _TICKETS)):
        yield Alert(
            f"PenstockErrors{severity.title()}",
            _find_burning(_find_errors, windows, _AVAILABILITY_BUDGET),
            "1m",
            severity,
            "Too many answers are faults of the hub (5xx).",
            "See errors by reason on the dashboard, and search the log for their request ids.",
        )
        yield Alert(
            f"PenstockLatency{severity.title()}",
            _find_burning(_find_slow_calls, windows, _LATENCY_BUDGET),
            "1m",
            severity,
            f"Too many calls take longer than {_LATENCY_BOUND} s.",
            "See the slowest methods, the connections of workers and the load of the database.",
        )


def _find_burning(
    share: Callable[[str], str], windows: Iterable[tuple[str, str, float]], budget: float
) -> str:
    """The query of a budget that burns too fast in a long and a short window."""
    return " or ".join(
        f"({share(long)} > {factor * budget:g} and {share(short)} > {factor * budget:g})"
        for long, short, factor in windows
    )


def _find_errors(window: str) -> str:
    name = "envoy_http_downstream_rq_xx_total"
    bad = sum_rates(name, window, envoy_response_code_class="5")
    return f"{bad} / {sum_rates(name, window)}"


def _find_slow_calls(window: str) -> str:
    name = "penstock_call_seconds"
    quick = sum_rates(name, window, part="bucket", le=_LATENCY_BOUND, method=_WAITING)
    return f"1 - {quick} / {sum_rates(name, window, part='count', method=_WAITING)}"


_ALERTS = [
    Alert(
        "PenstockProcessSilent",
        f"{select_series('penstock_scrape_failed')} == 1",
        "30s",
        "page",
        "The process {{ $labels.process }} of a node gives no metrics.",
        "The supervisor restarts processes that end or hang; look at the log of this one.",
    ),
    Alert(
        "PenstockWorkersMissing",
        f"{select_series('envoy_cluster_membership_healthy')}"
        f" < {select_series('envoy_cluster_membership_total')}",
        "30s",
        "page",
        "A worker takes no calls.",
        "Look at its log; calls go to the other workers meanwhile.",
    ),
    Alert(
        "PenstockDatabaseSilent",
        f"{select_series('penstock_database_answers')} == 0",
        "15s",
        "page",
        "The database does not answer the keeper.",
        "Every call fails with DATABASE_UNAVAILABLE. Look at PostgreSQL and the way to it.",
    ),
    Alert(
        "PenstockTaskUnheld",
        f"{select_series('penstock_singleton_held')} == 0",
        "30s",
        "page",
        "No node does {{ $labels.singleton }}.",
        "Look at penstock nodes, and at the logs of the keepers.",
    ),
    Alert(
        "PenstockTaskFailing",
        f"{select_series('penstock_singleton_failing')} == 1",
        "30s",
        "page",
        "{{ $labels.singleton }} fails on the node that does it.",
        "penstock nodes shows the error.",
    ),
    Alert(
        "PenstockOrganFailing",
        f"{select_series('penstock_organ_failing')} == 1",
        "1m",
        "ticket",
        "{{ $labels.organ }} fails in {{ $labels.process }}.",
        "The log of the process has organ_failed with the error.",
    ),
    Alert(
        "PenstockFeedsLate",
        f"{select_series('penstock_sequencer_lag_seconds')} > 5",
        "30s",
        "page",
        "Committed changes wait for their numbers: feeds, subscriptions and webhooks stand still.",
        "Look for a long transaction in the database, and for the task sequencer.",
    ),
    Alert(
        "PenstockAuditUnsealed",
        f"{select_series('penstock_sealer_lag_seconds')} > 30",
        "1m",
        "page",
        "Entries of the audit wait for their seal.",
        "Look at the task audit-sealer, and for a long transaction in the database.",
    ),
    Alert(
        "PenstockCheckpointsLate",
        f"{select_series('penstock_checkpoint_age_seconds')} > 300",
        "1m",
        "ticket",
        "The audit has no new signed checkpoint.",
        "Look at the task audit-sealer.",
    ),
    Alert(
        "PenstockUsageLate",
        f"{select_series('penstock_usage_lag_entries')} > 100000",
        "5m",
        "ticket",
        "Reports of usage are behind.",
        "Look at the task usage; penstock usage reconcile says whether something is missing.",
    ),
    Alert(
        "PenstockWebhookDisabled",
        f"{select_series('penstock_webhooks', state='DISABLED')} > 0",
        "1m",
        "ticket",
        "A webhook is disabled, since its receiver has failed for days.",
        "penstock webhooks list shows it; its owner has a notice.",
    ),
    Alert(
        "PenstockWebhooksLate",
        f"{select_series('penstock_webhook_delivery_lag_seconds')} > 300",
        "5m",
        "ticket",
        "Deliveries to webhooks are due and are not sent.",
        "Look at the task webhooks, and at the receivers that answer slowly.",
    ),
    Alert(
        "PenstockDiskLow",
        f"{select_series('penstock_disk_free_bytes')}"
        f" < {select_series('penstock_disk_reserve_bytes')}",
        "15s",
        "page",
        "The disk of a node's data folder runs low.",
        "Make room: imports are refused, and a full disk stops the embedded database.",
    ),
    Alert(
        "PenstockConnectionsLow",
        f"{select_series('penstock_database_connections')}"
        f" > 0.9 * {select_series('penstock_database_connections_usable')}",
        "1m",
        "page",
        "The database has few connections left.",
        "Lower PENSTOCK_CONNECTIONS or PENSTOCK_WORKERS, or raise max_connections.",
    ),
    Alert(
        "PenstockTransactionOld",
        f"{select_series('penstock_database_oldest_transaction_seconds')} > 7200",
        "1m",
        "ticket",
        "A transaction has been open for hours: the database cannot clean up.",
        "Find it in pg_stat_activity; exports end after PENSTOCK_SNAPSHOT_SECONDS.",
    ),
    Alert(
        "PenstockTablesBloated",
        f"{select_series('penstock_database_dead_rows_ratio')} > 0.5",
        "1h",
        "ticket",
        "More than half of a large table is dead rows.",
        "Look for old transactions and replication slots, and at autovacuum.",
    ),
    Alert(
        "PenstockStandbyBehind",
        f"{select_series('penstock_database_replication_lag_bytes')} > 1073741824",
        "5m",
        "ticket",
        "A standby is more than 1 GiB behind.",
        "A failover to it would lose what it has not received.",
    ),
    Alert(
        "PenstockCertificateExpires",
        f"{select_series('penstock_certificate_expiry_seconds')} < 14 * 86400",
        "1m",
        "ticket",
        "The certificate of the public port expires within 14 days.",
        "Move a new one into PENSTOCK_TLS_DIR; no restart is needed.",
    ),
    Alert(
        "PenstockSigningKeyOld",
        f"{select_series('penstock_signing_key_age_seconds')}"
        f" > 1.1 * {select_series('penstock_signing_key_max_age_seconds')}",
        "1h",
        "ticket",
        "The key that signs tokens is not replaced.",
        "Look at the task signing-keys.",
    ),
]
