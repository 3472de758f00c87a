"""GetReceipt: what became of an export."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ReceiptNotFound
from penstockd.exports.receipts import Receipt, find_receipt
from penstockd.hub import Hub
from penstockd.policy.model import Action, Permission


async def get_receipt(hub: Hub, call: Call, receipt_id: str) -> Receipt:
    """The receipt with the id, for who made the export and who may read the audit.

    A token must be allowed to read the records, since a receipt shows their number and the digest
    of the file. Raises ReceiptNotFound, in the same way for others as if there were none.
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
