"""Rehearsals of plans: what their limits would have done, on recorded usage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from penstockd.budget import let_others_run
from penstockd.metering.demand import read_demand, split_levels
from penstockd.metering.report import read_freshness
from penstockd.metering.rollups import UsageLevel, read_levels
from penstockd.metering.trials import LimitFinding, QuotaTrial, RateTrial, find_first_use
from penstockd.policy.plans import PlanQuota, PlanRate, Terms
from penstockd.store.database import Connection

#: The most limits, of all consumers together, that one rehearsal judges.
MAX_FINDINGS = 5000
#: The most stretches that its reply lists.
MAX_LISTED = 2000
_CONCURRENT = (
    "usage does not record how many {what} were under way at one time; try the limit in force"
)


class RehearsedConsumer(NamedTuple):
    """A consumer, its terms under the plan, and whether it may raise limits."""

    consumer_id: str
    terms: Terms
    may_raise: bool = False


@dataclass(frozen=True, slots=True)
class PlanRehearsal:
    """Findings from ``start`` to ``end``, on usage from ``counted`` on; every call before ``fresh``
    is counted."""

    findings: Sequence[LimitFinding]
    start: dt.datetime
    end: dt.datetime
    fresh: dt.datetime
    counted: dt.datetime


async def rehearse_terms(
    connection: Connection, consumers: Sequence[RehearsedConsumer], days: int
) -> PlanRehearsal:
    """Try the terms of consumers on the last ``days``.

    The connection must be in a transaction that sees one state.
    """
    fresh, end = await read_freshness(connection)
    start = UsageLevel.HOUR.truncate(end - dt.timedelta(days=days))
    oldest = await read_levels(connection)
    wanted = min((find_first_use(each.terms, start) for each in consumers), default=start)
    work = _PlanTrials(connection, start, end)
    for consumer in consumers:
        low = find_first_use(consumer.terms, start)
        await work.rehearse(consumer, list(split_levels(low, end, oldest)))
    kept = next((span[1] for span in split_levels(wanted, end, oldest)), end)
    return PlanRehearsal(work.findings, start, end, fresh, max(wanted, kept))


class _PlanTrials:
    """One rehearsal under way."""

    def __init__(self, connection: Connection, start: dt.datetime, end: dt.datetime) -> None:
        self._connection, self._start, self._end = connection, start, end
        self.findings: list[LimitFinding] = []
        self._listed = 0

    async def rehearse(
        self,
        consumer: RehearsedConsumer,
        spans: Sequence[tuple[UsageLevel, dt.datetime, dt.datetime]],
    ) -> None:
        """Add the findings of one consumer, rates first."""
        trials = list(self._make_trials(consumer))
        limits: list[PlanRate | PlanQuota] = [*consumer.terms.limits.rates]
        limits += consumer.terms.limits.quotas
        if trials:
            demand = read_demand(
                self._connection, consumer.consumer_id, limits, spans, may_raise=consumer.may_raise
            )
            async for group in demand:
                for buckets in group:
                    for trial, bucket in zip(trials, buckets, strict=True):
                        trial.add(bucket)
                    await let_others_run()
        for trial in trials:
            self._add(trial.finish())
        for finding in _list_unjudged(consumer):
            self._add(finding)

    def _make_trials(self, consumer: RehearsedConsumer) -> Iterator[RateTrial | QuotaTrial]:
        name, terms = consumer.consumer_id, consumer.terms
        for rate in terms.limits.rates:
            yield RateTrial(rate, LimitFinding(name, rate.key, terms.plan.shadow), self._start)
        for quota in terms.limits.quotas:
            finding = LimitFinding(name, quota.key, quota.soft)
            yield QuotaTrial(quota, terms, finding, self._start)

    def _add(self, finding: LimitFinding) -> None:
        del finding.stretches[max(0, MAX_LISTED - self._listed) :]
        self._listed += len(finding.stretches)
        self.findings.append(finding)


def count_limits(consumers: Iterable[RehearsedConsumer]) -> int:
    """How many findings there will be."""
    return sum(
        len(each.terms.limits.rates)
        + len(each.terms.limits.quotas)
        + sum(1 for _ in _list_unjudged(each))
        for each in consumers
    )


def _list_unjudged(consumer: RehearsedConsumer) -> Iterator[LimitFinding]:
    """The limits of what is under way: usage does not tell."""
    limits = consumer.terms.limits.concurrent
    for what in (f.name for f in fields(limits)):
        if getattr(limits, what) > 0:
            reason = _CONCURRENT.format(what=what)
            yield LimitFinding(consumer.consumer_id, f"concurrent-{what}", reason=reason)
