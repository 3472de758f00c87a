"""Charges messages of webhooks to the quotas of their owners.

A message is an attempt, has records and bytes, and is charged for all of them before it leaves, in
the transaction that writes its audit entry. A retry is another message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from penstockd.audit.entry import DELIVERIES, Entry
from penstockd.metering.admission import BRIEFLY, Admission, Limiter
from penstockd.metering.call_limits import AskedCall
from penstockd.metering.purses import Charge, Over
from penstockd.policy.errors import AllowanceLost
from penstockd.policy.plans import Countable, Terms


class DeliveryCharges:
    """What the messages of one transaction are charged: a context around that transaction.

    If the transaction fails, only the database knows whether they were charged.
    """

    def __init__(self, limiter: Limiter | None) -> None:
        """``limiter``: None if nothing is limited."""
        self._limiter = limiter
        self._taken: list[Charge] = []
        self._entered: list[Charge] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()
        for charge in self._entered:
            if error is None:
                charge.settle()
            elif isinstance(error, AllowanceLost):
                charge.doubt()
            else:
                charge.lose()

    async def take(
        self, terms: Terms | None, consumer_id: str, records: Mapping[str, int], size: int
    ) -> None:
        """Take what one message uses; ``records`` are by dataset.

        Raises QuotaExhausted: then nothing is taken. Raises DatabaseUnavailable.
        """
        if self._limiter is None or terms is None or not terms.limits.quotas:
            return
        taken: list[Charge] = []
        try:
            await self._limiter.spender.identify()
            for place, dataset in enumerate(sorted(records) or [""]):
                asked = AskedCall(consumer_id, DELIVERIES, dataset, "calls")
                admission = Admission(self._limiter, terms, asked, patience=BRIEFLY)
                # An attempt and its bytes count for one dataset, as in the audit.
                if not place:
                    taken += await admission.take(Countable.WEBHOOK_ATTEMPTS, 1)
                    taken += await admission.take(Countable.BYTES, size, Over.FROM_SOME)
                if count := records.get(dataset):
                    taken += await admission.take(Countable.RECORDS, count)
        except BaseException:
            _give_back(taken)
            raise
        self._taken += taken

    def enter(self, entry: Entry) -> None:
        """Make an entry spend what was taken since the last one."""
        for charge in self._taken:
            spent = entry.spends.get(charge.portion_id, 0)
            entry.spends[charge.portion_id] = spent + charge.amount
        self._entered += self._taken
        self._taken = []

    def give_back(self) -> None:
        """Return what was taken since the last entry: its messages stay."""
        _give_back(self._taken)
        self._taken = []


def _give_back(charges: Iterable[Charge]) -> None:
    for charge in charges:
        charge.give_back()
