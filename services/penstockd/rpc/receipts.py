"""Receipts on the wire: as messages, in headers, and as the trailers of a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from penstock.hub.v1 import receipts_pb2
from penstockd.exports.receipts import Receipt
from penstockd.formats import describe_loss
from penstockd.store.places import Places

#: The header that names the receipt when a stream begins.
HEADER = "penstock-receipt"
#: The most bytes of a receipt in a trailer; GetReceipt returns all of its lossy columns.
MOST_TRAILER_BYTES = 4096


def make_message(receipt: Receipt, places: Places) -> receipts_pb2.Receipt:
    """A receipt as callers see it."""
    return receipts_pb2.Receipt(
        receipt_id=receipt.receipt_id,
        dataset=receipt.dataset,
        consumer_id=receipt.consumer_id,
        request_id=receipt.request_id,
        state=receipt.state.value,
        reason=receipt.reason,
        format=receipt.format,
        cursor=receipt.sealed(places),
        row_count=receipt.row_count,
        byte_count=receipt.byte_count,
        sha256=receipt.sha256.hex() if receipt.sha256 is not None else "",
        policy_revision=receipt.policy_revision,
        start_time=receipt.start_time,
        finish_time=receipt.finish_time,
        resume_count=receipt.resume_count,
        loss=describe_loss(receipt.format),
        record_count=receipt.record_count,
        lossy_columns=[
            receipts_pb2.Receipt.LossyColumn(name=name, cell_count=count)
            for name, count in receipt.lossy_cells.items()
        ],
    )


def page_headers(body: bytes, rows: int, records: int) -> Mapping[str, str]:
    """Headers that describe a page: it is sent whole, and its receipt is not stored."""
    return {
        f"{HEADER}-rows": str(rows),
        f"{HEADER}-records": str(records),
        f"{HEADER}-bytes": str(len(body)),
        f"{HEADER}-sha256": hashlib.sha256(body).hexdigest(),
    }


def make_trailers(receipt: Receipt, places: Places) -> Mapping[str, str | bytes]:
    """The trailers of a stream: the receipt for programs, and its main parts as text."""
    message = make_message(receipt, places)
    while message.lossy_columns and message.ByteSize() > MOST_TRAILER_BYTES:
        del message.lossy_columns[len(message.lossy_columns) // 2 :]
    found: dict[str, str | bytes] = {
        f"{HEADER}-bin": message.SerializeToString(),
        f"{HEADER}-state": receipt.state.value,
        f"{HEADER}-rows": str(receipt.row_count),
        f"{HEADER}-records": str(receipt.record_count),
        f"{HEADER}-bytes": str(receipt.byte_count),
        f"{HEADER}-cursor": receipt.sealed(places),
    }
    if receipt.sha256 is not None:
        found[f"{HEADER}-sha256"] = receipt.sha256.hex()
    return found
