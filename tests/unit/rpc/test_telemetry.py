"""Spans carry the request id, the consumer and the outcome, and continue the caller's trace."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from penstockd.audit.entry import Entry
from penstockd.rpc.exchange import Method
from penstockd.rpc.interceptors.telemetry import trace_call

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    return found


def exchange(**metadata: str) -> Any:
    method = Method("penstock.api.v1.Customers", "GetCustomer", "customers")
    entry = Entry(request_id="request-1", method=method.path, consumer_id="crm")
    return SimpleNamespace(method=method, metadata=metadata, arriving=SimpleNamespace(entry=entry))


async def answer(exchange: Any) -> Any:
    return "reply"


async def test_a_span_says_who_called_what_under_which_request(
    exporter: InMemorySpanExporter,
) -> None:
    call = exchange(traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    assert await trace_call(call, answer) == "reply"
    (span,) = exporter.get_finished_spans()
    assert span.name == "penstock.api.v1.Customers/GetCustomer"
    assert span.attributes is not None
    assert span.attributes["penstock.request_id"] == "request-1"
    assert span.attributes["penstock.consumer"] == "crm"
    assert span.status.status_code is StatusCode.UNSET
    assert span.context is not None
    assert format(span.context.trace_id, "032x") == TRACE == call.arriving.entry.trace_id


async def test_a_failed_call_is_an_error_with_its_reason(exporter: InMemorySpanExporter) -> None:
    call = exchange()

    async def fail(exchange: Any) -> Any:
        exchange.arriving.entry.outcome = "FIELD_UNKNOWN"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await trace_call(call, fail)
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "FIELD_UNKNOWN"
