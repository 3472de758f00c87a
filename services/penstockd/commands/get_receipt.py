"""GetReceipt: the outcome of an export."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ReceiptNotFound
from penstockd.exports.receipts import Receipt, find_receipt
from penstockd.hub import Hub
from penstockd.policy.model import Action, Permission


async def get_receipt(hub: Hub, call: Call, receipt_id: str) -> Receipt:
    """The receipt with the id, for the consumer that made the export and for readers of the audit.

    The consumer's token must be allowed to read the dataset, since a receipt shows the number of
    records and the file's digest. Raises ReceiptNotFound if there is none, and for everybody else.
    """
    call.entry.receipt_id = receipt_id[:80]
    receipt = await find_receipt(hub.database, receipt_id)
    own = (
        receipt is not None
        and receipt.consumer_id == call.principal.consumer_id
        and call.reaches(receipt.dataset, Action.READ)
    )
    if receipt is None or not (own or call.permits(Permission.AUDIT_READ)):
        raise ReceiptNotFound(f"there is no receipt '{receipt_id[:80]}'")
    return receipt
