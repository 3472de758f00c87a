"""Python SDK of the Penstock data hub.

    from penstock.client import Client

    with Client("http://127.0.0.1:8080", client_id="crm", client_secret="…") as client:
        customers = client.dataset("customers")
        for customer in customers.list(filter='status = "ACTIVE"', order_by="name"):
            print(customer.customer_id, customer.name)

Everything here works for every dataset that has generated stubs. Names load at first use, so that
importing the package is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.client.change import Change, Page, Position
    from penstock.client.client import Client
    from penstock.client.dataset import Counts, DatasetClient
    from penstock.client.errors import (
        ExportIncomplete,
        FeedEnded,
        PenstockError,
        UnknownDataset,
        Violation,
    )
    from penstock.client.export import Export
    from penstock.client.feed import Batch, Feed
    from penstock.client.replica import Replica

__all__ = [
    "Batch",
    "Change",
    "Client",
    "Counts",
    "DatasetClient",
    "Export",
    "ExportIncomplete",
    "Feed",
    "FeedEnded",
    "Page",
    "PenstockError",
    "Position",
    "Replica",
    "UnknownDataset",
    "Violation",
]

_HOMES = {
    "Batch": "penstock.client.feed",
    "Change": "penstock.client.change",
    "Client": "penstock.client.client",
    "Counts": "penstock.client.dataset",
    "DatasetClient": "penstock.client.dataset",
    "Export": "penstock.client.export",
    "ExportIncomplete": "penstock.client.errors",
    "Feed": "penstock.client.feed",
    "FeedEnded": "penstock.client.errors",
    "Page": "penstock.client.change",
    "PenstockError": "penstock.client.errors",
    "Position": "penstock.client.change",
    "Replica": "penstock.client.replica",
    "UnknownDataset": "penstock.client.errors",
    "Violation": "penstock.client.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
