"""The service Monitoring: how the node is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from penstock.hub.v1 import monitoring_pb2 as api
from penstockd.commands.get_monitoring import get_monitoring
from penstockd.observe.metrics import WAITING_METHODS
from penstockd.observe.monitor import NodeReadings
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.routes import routes_of

_SERVICE = api.DESCRIPTOR.services_by_name["Monitoring"]
#: The sidecar's process, whose memory has a name of its own.
_SIDECAR = "envoy"


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(_SERVICE, {"GetMonitoring": _get_monitoring})


async def _get_monitoring(
    request: api.GetMonitoringRequest, call: ServedCall
) -> api.GetMonitoringResponse:
    found = await get_monitoring(call.hub, call)
    return api.GetMonitoringResponse(
        node=found.node,
        read_time=found.time,
        processes=_process_messages(found),
        clients=_client_message(found),
        calls=_call_message(found),
        tasks=_task_messages(found),
        lag=_lag_message(found),
        webhooks=_webhook_message(found),
        database=_database_message(found),
        machine=_machine_message(found),
    )


def _process_messages(found: NodeReadings) -> Iterator[api.ProcessReading]:
    failed = found.by_label("penstock_scrape_failed", "process")
    for name, silent in failed.items():
        memory = (
            found.value("envoy_server_memory_allocated")
            if name == _SIDECAR
            else found.value("process_resident_memory_bytes", process=name)
        )
        yield api.ProcessReading(
            name=name, answers=not silent, memory_bytes=memory, failing=_list_failing(found, name)
        )


def _list_failing(found: NodeReadings, process: str) -> Sequence[str]:
    return sorted(
        reading.labels["organ"]
        for reading in found.readings.get("penstock_organ_failing", ())
        if reading.value and reading.labels.get("process") == process
    )


def _client_message(found: NodeReadings) -> api.ClientReading:
    return api.ClientReading(
        answers=found.by_label("envoy_http_downstream_rq_xx_total", "envoy_response_code_class"),
        refused=found.value("envoy_http_local_rate_limit_rate_limited_total"),
        connections=found.value("envoy_http_downstream_cx_active"),
        requests=found.value("envoy_http_downstream_rq_active"),
        workers_healthy=found.value("envoy_cluster_membership_healthy"),
        workers=found.value("envoy_cluster_membership_total"),
    )


def _call_message(found: NodeReadings) -> api.CallReading:
    return api.CallReading(
        outcomes=found.by_label("penstock_calls_total", "outcome"),
        open=found.value("penstock_calls_open"),
        streams=found.value("penstock_streams_open"),
        latency=_bucket_messages(found.buckets("penstock_call_seconds", WAITING_METHODS)),
        feed_delay=_bucket_messages(found.buckets("penstock_feed_delay_seconds")),
    )


def _bucket_messages(buckets: Iterable[tuple[float, float]]) -> Iterator[api.TimeBucket]:
    for seconds, count in buckets:
        yield api.TimeBucket(seconds=seconds, count=count)


def _task_messages(found: NodeReadings) -> Iterator[api.TaskReading]:
    held = found.by_label("penstock_singleton_held", "singleton")
    failing = found.by_label("penstock_singleton_failing", "singleton")
    for name in sorted(held | failing):
        yield api.TaskReading(name=name, held=bool(held.get(name)), failing=bool(failing.get(name)))


def _lag_message(found: NodeReadings) -> api.LagReading:
    return api.LagReading(
        sequencer_seconds=found.value("penstock_sequencer_lag_seconds"),
        sealer_seconds=found.value("penstock_sealer_lag_seconds"),
        checkpoint_seconds=found.value("penstock_checkpoint_age_seconds"),
        usage_entries=found.value("penstock_usage_lag_entries"),
    )


def _webhook_message(found: NodeReadings) -> api.WebhookReading:
    return api.WebhookReading(
        states=found.by_label("penstock_webhooks", "state"),
        attempts=found.by_label("penstock_webhook_attempts_total", "result"),
        waiting=found.value("penstock_webhook_deliveries_waiting"),
        lag_seconds=found.value("penstock_webhook_delivery_lag_seconds"),
    )


def _database_message(found: NodeReadings) -> api.DatabaseReading:
    answers = found.value("penstock_database_answers")
    return api.DatabaseReading(
        answers=None if answers is None else bool(answers),
        size_bytes=found.value("penstock_database_size_bytes"),
        connections=found.value("penstock_database_connections"),
        connections_usable=found.value("penstock_database_connections_usable"),
        oldest_transaction_seconds=found.value("penstock_database_oldest_transaction_seconds"),
        waiting_locks=found.value("penstock_database_waiting_locks"),
        dead_rows_ratio=found.value("penstock_database_dead_rows_ratio"),
        standbys=found.by_label("penstock_database_replication_lag_bytes", "standby"),
        nodes=found.value("penstock_nodes_alive"),
    )


def _machine_message(found: NodeReadings) -> api.MachineReading:
    return api.MachineReading(
        disk_free_bytes=found.value("penstock_disk_free_bytes"),
        disk_reserve_bytes=found.value("penstock_disk_reserve_bytes"),
        certificate_seconds=found.value("penstock_certificate_expiry_seconds"),
        key_age_seconds=found.value("penstock_signing_key_age_seconds"),
        key_max_age_seconds=found.value("penstock_signing_key_max_age_seconds"),
    )
