"""What operators see of a process: its log, its spans and its metrics."""

from penstockd.observe.logs import (
    RareLine,
    flush_spans,
    log_beside_results,
    request_id_var,
    set_up,
)

__all__ = ["RareLine", "flush_spans", "log_beside_results", "request_id_var", "set_up"]
