"""A consumer's own limits, as updates change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.access.masks import put_paths
from penstockd.catalog import Catalog
from penstockd.policy.plan_checks import LimitsDraft, checked_limits, limits_draft
from penstockd.policy.plans import PlanLimits


@dataclass(frozen=True, slots=True)
class _Limited:
    """What has limits, under the name that masks have for them."""

    limits: LimitsDraft


def changed_limits(
    before: PlanLimits, given: LimitsDraft, mask: Sequence[str], catalog: Catalog
) -> PlanLimits:
    """The limits with what the paths of ``mask``, which begin with ``limits``, name of the given
    ones; unchanged and unchecked without any. Raises FieldUnknown and ValueInvalid."""
    if not mask:
        return before
    changed = put_paths(_Limited(limits_draft(before)), _Limited(given), mask)
    return checked_limits(changed.limits, catalog)
