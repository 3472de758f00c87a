"""The coarse ring: what the sidecar lets callers do, before the hub asks for their exact limits.

The keeper writes the plans' highest rate into a file beside the sockets, and the supervisor renders
it into the limits that Envoy watches. No caller may be refused here that its plan would admit.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from penstockd.node.errors import ConfigRefused
from penstockd.node.replacing import replace_text

_PLAN_RATE = "plan-rate.json"


@dataclass(frozen=True)
class RateLimit:
    """The calls that one caller may make: ``rate`` a second, and ``burst`` at once after a rest.

    A caller is a consumer with a token or an API key. Calls without a valid token of the hub are
    counted by address: twice the rate for calls with an API key, since one address may use several
    keys, but also make them up; the rate itself for tokens that only the hub can check; a fifth for
    sign-ins; a tenth for the others. In addition, some calls are counted by address whatever
    credentials they carry: a tenth for health checks and for preflights of browsers, each
    separately; a twentieth for files and documents that are open to all; a hundredth for
    reflection, whose calls are streams.
    """

    rate: int
    burst: int

    def times(self, numerator: int, denominator: int = 1) -> RateLimit:
        """A multiple, of at least one call."""
        return RateLimit(
            max(1, self.rate * numerator // denominator),
            max(1, self.burst * numerator // denominator),
        )

    def over(self, other: RateLimit) -> RateLimit:
        """The larger of both."""
        return RateLimit(max(self.rate, other.rate), max(self.burst, other.burst))


@dataclass(frozen=True, slots=True)
class RingRate:
    """The highest rate that a plan gives a consumer, and the highest burst; ``all_limited``:
    whether every consumer has a rate for all its calls."""

    rate: int
    burst: int
    all_limited: bool


def scale_limits(limit: RateLimit | None, plans: RingRate | None) -> dict[str, RateLimit] | None:
    """The limits of each kind of caller; None for none.

    A token or key may do what the highest plan allows, or what the settings do if a consumer has no
    rate. Many consumers may share an address: its limits never fall below those of the settings.
    """
    if limit is None:
        return None
    caller = address = limit
    if plans is not None:
        # Envoy fills buckets once a second: with less room, it would refuse what the plan admits.
        highest = RateLimit(plans.rate, plans.burst + plans.rate)
        address = limit.over(highest)
        caller = highest if plans.all_limited else address
    return {
        "consumer": caller,
        "address": address,
        "with_key": address.times(2),
        "sign_in": limit.times(1, 5),
        "anonymous": limit.times(1, 10),
        "open": limit.times(1, 20),
        "reflection": limit.times(1, 100),
    }


def write_plan_rate(folder: Path, rate: RingRate | None) -> None:
    """Tell the supervisor the plans' highest rate; None if they have none. Raises OSError."""
    replace_text(folder / _PLAN_RATE, json.dumps(None if rate is None else asdict(rate)))


def forget_plan_rate(folder: Path) -> None:
    """Remove what an earlier run told: its database may have been another, or it ended while it
    wrote. Raises OSError."""
    (folder / _PLAN_RATE).unlink(missing_ok=True)


def read_plan_rate(folder: Path) -> RingRate | None:
    """The plans' highest rate as the keeper told it; None if there is none, or none was told yet.

    Raises OSError, and ConfigRefused if the file is not the keeper's.
    """
    path = folder / _PLAN_RATE
    try:
        found = json.loads(path.read_text("utf-8"))
        return None if found is None else RingRate(**found)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ConfigRefused(f"{path} holds no rate: {error}") from error
