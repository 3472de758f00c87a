"""One OpenTelemetry span for each call (semantic conventions for RPC), which continues the caller's
trace."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from penstockd.rpc.exchange import Exchange, Proceed

_propagator = TraceContextTextMapPropagator()


async def trace_call(exchange: Exchange, proceed: Proceed) -> Any:
    """Make a span with method, request id and, once known, consumer and outcome."""
    if "traceparent" not in exchange.metadata and not _is_traced():
        return await proceed(exchange)  # nobody would see the span
    method, entry = exchange.method, exchange.arriving.entry
    parent = None
    if "traceparent" in exchange.metadata:
        parent = _propagator.extract(exchange.metadata)
    tracer = trace.get_tracer("penstockd")
    with tracer.start_as_current_span(
        method.path.removeprefix("/"),
        context=parent,
        kind=SpanKind.SERVER,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        context = span.get_span_context()
        if context.is_valid:
            entry.trace_id = format(context.trace_id, "032x")
        try:
            return await proceed(exchange)
        finally:
            if span.is_recording():
                span.set_attributes(
                    {
                        "rpc.system": "grpc",
                        "rpc.service": method.service,
                        "rpc.method": method.name,
                        "penstock.request_id": entry.request_id,
                        "penstock.consumer": entry.consumer_id or "",
                        "penstock.outcome": entry.outcome,
                    }
                )
                if entry.outcome != "OK":
                    span.set_status(Status(StatusCode.ERROR, entry.outcome))


def _is_traced() -> bool:
    """Whether spans are exported."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
