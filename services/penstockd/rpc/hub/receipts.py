"""The service Receipts: the outcome of exports and streams."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import receipts_pb2
from penstockd.commands.get_receipt import get_receipt
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.receipts import make_message
from penstockd.rpc.routes import routes_of

_SERVICE = receipts_pb2.DESCRIPTOR.services_by_name["Receipts"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(
        _SERVICE,
        {
            "GetReceipt": _get_receipt,
        },
    )


async def _get_receipt(
    request: receipts_pb2.GetReceiptRequest, call: ServedCall
) -> receipts_pb2.Receipt:
    receipt = await get_receipt(call.hub, call, request.receipt_id)
    return make_message(receipt, call.hub.places)
