"""ListDatasets: what the caller may read and write, as Views."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.view import View


def list_datasets(hub: Hub, call: Call) -> list[View]:
    """The caller's Views, by the names of their datasets."""
    views = [call.policy.visible(call.principal, d.name) for d in hub.catalog]
    found = [v for v in views if v is not None]
    call.entry.row_count = len(found)
    return sorted(found, key=lambda v: v.dataset.name)
