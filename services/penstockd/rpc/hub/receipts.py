"""The service Receipts: what became of exports and streams."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import receipts_pb2
from penstockd.commands.get_receipt import get_receipt
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Exchange, Method
from penstockd.rpc.receipts import message

_SERVICE = "penstock.hub.v1.Receipts"


def routes() -> Iterator[Route]:
    """The service's methods."""
    yield Route(
        Method(_SERVICE, "GetReceipt"),
        _get_receipt,
        receipts_pb2.GetReceiptRequest,
        receipts_pb2.Receipt.SerializeToString,
    )


async def _get_receipt(
    request: receipts_pb2.GetReceiptRequest, exchange: Exchange
) -> receipts_pb2.Receipt:
    receipt = await get_receipt(exchange.hub, exchange.call, request.receipt_id)
    return message(receipt, exchange.hub.places)
