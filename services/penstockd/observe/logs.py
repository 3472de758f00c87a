"""Logs and traces of a process: JSON lines on stderr, spans to an OTLP endpoint if there is one."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, MutableMapping, Sequence
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from penstockd.output import guard_output

#: The request id of the call that the current task serves, for its log lines.
request_id_var: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
#: Tracebacks without the values of variables, which can be secrets and data.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
)

#: The form of an event in the JSON log, whether the hub or a library logs it.
_PROCESSORS: Sequence[structlog.typing.Processor] = (
    lambda logger, method, event: _add_request_id(logger, method, event),
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _TRACEBACKS,
)


def set_up(process: str, level: str, otlp_endpoint: str | None) -> None:
    """Configure logging and tracing; call once, before anything is logged.

    From then on no line that the process writes can fail.
    """
    guard_output()
    threshold = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[*_PROCESSORS, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _send_logging_to_json()
    # The driver logs every attempt to connect with a traceback; the hub logs an outage once.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
    if otlp_endpoint:
        # It imports grpc, which a process that exports no spans need not load.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        resource = Resource.create({"service.name": "penstock", "penstock.process": process})
        provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)


def log_beside_results() -> None:
    """Configure logging for a command that prints a result: warnings on stderr, for people."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        # Look sys.stderr up at each line: whoever runs a command may have replaced it.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


class RareLine:
    """A log line that many calls could write at the same time, as in an outage. It is written at
    most every ``seconds``, with the number of lines left out since the last one."""

    def __init__(
        self,
        logger: Any,
        event: str,
        *,
        seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger, self._event = logger, event
        self._seconds, self._clock = seconds, clock
        self._written = -seconds
        self._left_out = 0

    def warn(self, **facts: object) -> None:
        """Write the line as a warning, or count it."""
        now = self._clock()
        if now - self._written < self._seconds:
            self._left_out += 1
            return
        self._logger.warning(self._event, **facts, left_out=self._left_out)
        self._written, self._left_out = now, 0


def flush_spans() -> None:
    """Send the spans that are waiting, at the end of a process."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def _send_logging_to_json() -> None:
    """Write the lines of libraries, warnings, and errors that nobody catches as JSON, too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_PROCESSORS],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    sys.excepthook = _log_end
    sys.unraisablehook = _log_unraisable
    threading.excepthook = _log_thread_end


def _log_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log the error that ends the process, unless it is Ctrl-C."""
    if not issubclass(kind, KeyboardInterrupt):
        structlog.get_logger(__name__).critical("process_failed", exc_info=(kind, error, trace))


def _log_unraisable(found: sys.UnraisableHookArgs) -> None:
    """Log an error that Python cannot raise, such as one of a finalizer."""
    kind, error, trace = found.exc_type, found.exc_value, found.exc_traceback
    structlog.get_logger(__name__).error(
        "error_ignored", place=repr(found.object)[:200], exc_info=(kind, error, trace)
    )


def _log_thread_end(found: threading.ExceptHookArgs) -> None:
    """Log the error that ends a thread."""
    kind, error, trace = found.exc_type, found.exc_value, found.exc_traceback
    structlog.get_logger(__name__).error("thread_failed", exc_info=(kind, error, trace))


def _add_request_id(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    request_id = request_id_var.get()
    if request_id:
        event["request_id"] = request_id
    return event
