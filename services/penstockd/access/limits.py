"""What an update makes of a consumer and its own limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstockd.access.masks import put_paths
from penstockd.catalog import Catalog
from penstockd.policy.model import Consumer
from penstockd.policy.plan_checks import LimitsDraft, checked_limits, limits_draft


@dataclass(frozen=True, slots=True)
class _Limited:
    """What has limits, under the name that masks have for them."""

    limits: LimitsDraft


def change_consumer(
    before: Consumer, given: Consumer, limits: LimitsDraft, mask: Sequence[str], catalog: Catalog
) -> Consumer:
    """A consumer with what ``mask`` names of the given one and of its limits.

    Limits that the mask does not name are neither changed nor checked. Raises FieldUnknown and
    ValueInvalid.
    """
    of_limits = [path for path in mask if path.partition(".")[0] == "limits"]
    after = put_paths(before, given, [path for path in mask if path not in of_limits])
    if not of_limits:
        return after
    own = put_paths(_Limited(limits_draft(before.limits)), _Limited(limits), of_limits)
    return replace(after, limits=checked_limits(own.limits, catalog))
