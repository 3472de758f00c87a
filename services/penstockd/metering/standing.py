"""Where a consumer stands: its limits, what it has used, and what that leads to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from penstockd.metering.admission import Limiter
from penstockd.metering.call_limits import account_of
from penstockd.policy.plans import PlanQuota, PlanRate, Terms


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """One limit, and what is left of it; ``start`` and ``end`` are those of a quota's period."""

    name: str
    what: str
    limit: int
    used: int
    soft: bool = False
    per_second: float = 0.0
    per: str = ""
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    exhausted: dt.datetime | None = None

    @property
    def remaining(self) -> int:
        """What is left."""
        return max(0, self.limit - self.used)


async def read_standing(limiter: Limiter, consumer_id: str, terms: Terms) -> list[LimitStanding]:
    """A consumer's limits: rates, what is under way, and quotas. Raises DatabaseUnavailable."""
    await limiter.spender.identify()
    now = limiter.spender.now
    found = await limiter.ledger.read_used(consumer_id, now)
    used = {(name, start): amount for name, start, amount in found}
    under_way = await limiter.ledger.read_held(consumer_id)
    rates = [_rate_standing(limiter, consumer_id, rate) for rate in terms.limits.rates]
    quotas = [_quota_standing(consumer_id, q, terms, used, now) for q in terms.limits.quotas]
    return [*rates, *_list_concurrent(terms, under_way), *quotas]


def forecast_end(
    used: int, limit: int, start: dt.datetime, end: dt.datetime, now: dt.datetime
) -> dt.datetime | None:
    """When a quota is used up at the pace of its period so far; None if not before its end."""
    if used >= limit:
        return now
    if not used or now <= start:
        return None
    seconds = (now - start).total_seconds() * limit / used
    if seconds >= (end - start).total_seconds():
        return None
    return start + dt.timedelta(seconds=seconds)


def _rate_standing(limiter: Limiter, consumer_id: str, rate: PlanRate) -> LimitStanding:
    """A rate, as this process knows it."""
    spike = limiter.spikes.find(consumer_id, rate)
    left = min(rate.burst, spike.remaining) if spike.good_until else rate.burst
    return LimitStanding(
        rate.key, "calls", rate.burst, rate.burst - left, per_second=rate.per_second
    )


def _list_concurrent(terms: Terms, used: Mapping[str, int]) -> Iterator[LimitStanding]:
    given = terms.limits.concurrent
    for what in (f.name for f in fields(given)):
        name, most = f"concurrent-{what}", getattr(given, what)
        if most > 0:
            yield LimitStanding(name, what, most, used.get(name, 0))


def _quota_standing(
    consumer_id: str,
    quota: PlanQuota,
    terms: Terms,
    used: Mapping[tuple[str, dt.datetime], int],
    now: dt.datetime,
) -> LimitStanding:
    account = account_of(consumer_id, quota, terms, now)
    spent = used.get((account.name, account.start), 0)
    return LimitStanding(
        quota.key,
        quota.what,
        quota.limit,
        spent,
        quota.soft,
        per=quota.per,
        start=account.start,
        end=account.end,
        exhausted=forecast_end(spent, quota.limit, account.start, account.end, now),
    )
